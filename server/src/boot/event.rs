//! What people are told of booting machines, a line each.

use slidecast_proto::hex;
use slidecast_proto::quantity::Bytes;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Takes events; called from several threads.
pub type Tell = Arc<dyn Fn(BootEvent) + Send + Sync>;

/// The hardware address of a machine's network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `52:54:00:12:34:56`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::parse_mac(text, ':').map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write_mac(f, self.0)
    }
}

/// What asks for boot, by its DHCP vendor class and architecture (RFC 4578, RFC 5970).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// PXE of a BIOS.
    Bios,
    /// PXE of a 64-bit x86 UEFI.
    Uefi,
    /// UEFI HTTP Boot, 64-bit x86.
    UefiHttp,
    /// iPXE, on whatever firmware.
    Ipxe,
    /// An architecture that there are no boot files for.
    Other(Architecture),
}

/// A client architecture (option 93), as IANA's registry of processor architecture types numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Architecture(pub u16);

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "BIOS",
            2 => "Itanium",
            6 => "32-bit x86 UEFI",
            7 | 9 => "64-bit x86 UEFI",
            10 => "32-bit ARM UEFI",
            11 => "64-bit ARM UEFI",
            15 => "32-bit x86 UEFI HTTP Boot",
            16 => "64-bit x86 UEFI HTTP Boot",
            18 => "32-bit ARM UEFI HTTP Boot",
            19 => "64-bit ARM UEFI HTTP Boot",
            20 => "BIOS HTTP Boot",
            27 => "64-bit RISC-V UEFI",
            28 => "64-bit RISC-V UEFI HTTP Boot",
            _ => return write!(f, "architecture {}", self.0),
        };
        write!(f, "architecture {}, {name}", self.0)
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.write_str("BIOS"),
            Self::Uefi => f.write_str("UEFI"),
            Self::UefiHttp => f.write_str("UEFI HTTP Boot"),
            Self::Ipxe => f.write_str("iPXE"),
            Self::Other(arch) => write!(f, "{arch}, for which there are no boot files"),
        }
    }
}

/// How a file was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// From dnsmasq.
    Tftp,
    /// From us.
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tftp => "TFTP",
            Self::Http => "HTTP",
        })
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootEvent {
    /// A machine asked what to boot.
    Asked {
        /// Its card.
        mac: Mac,
        /// Its address, if it has one already.
        address: Option<Ipv4Addr>,
        /// What asked.
        firmware: Firmware,
    },
    /// A machine of an architecture without boot files asked, and was left to other servers. Told once per architecture.
    Unserved {
        /// Its card.
        mac: Mac,
        /// What it is.
        architecture: Architecture,
    },
    /// A machine fetched a file, or gave up on it.
    Fetched {
        /// Its card, where the kernel knows it.
        mac: Option<Mac>,
        /// Its address.
        address: Ipv4Addr,
        /// The file's name.
        file: String,
        /// How much of it was sent.
        bytes: u64,
        /// How.
        over: Protocol,
        /// All that was asked for was sent.
        whole: bool,
    },
    /// A machine that is through asked again, and was sent on to its own disk.
    SentOn {
        /// Its card.
        mac: Mac,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Something is amiss; booting goes on.
    Trouble(String),
    /// Booting from the network has ended for good.
    Ended(String),
}

impl fmt::Display for BootEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked { mac, address, firmware } => {
                write!(f, "{mac}")?;
                if let Some(address) = address {
                    write!(f, " {address}")?;
                }
                write!(f, " asked for boot ({firmware})")
            }
            Self::Unserved { mac, architecture } => write!(
                f,
                "{mac} asked for boot ({architecture}) and gets no answer: there are no boot files for it here; \
                 further machines of its kind are not told"
            ),
            Self::Fetched { mac, address, file, bytes, over, whole } => {
                if let Some(mac) = mac {
                    write!(f, "{mac} ")?;
                }
                let (bytes, what) = (Bytes(*bytes), if *whole { "fetched" } else { "broke off fetching" });
                write!(f, "{address} {what} {file} ({bytes} over {over})")
            }
            Self::SentOn { mac, address } => write!(f, "{mac} {address} is through: sent on to its own disk"),
            Self::Trouble(text) => f.write_str(text),
            Self::Ended(text) => write!(f, "network boot has ended: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xaf]);

    #[test]
    fn hardware_addresses_are_six_bytes() {
        assert_eq!(Mac::parse("52:54:00:12:34:AF"), Some(MAC));
        assert_eq!(MAC.to_string(), "52:54:00:12:34:af");
        for text in
            ["", "52:54:00:12:34", "52:54:00:12:34:af:00", "52:54:00:12:34:+f", "52-54-00-12-34-af", "5:4:0:1:3:a"]
        {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }

    #[test]
    fn events_are_plain_lines() {
        let address = Ipv4Addr::from([10, 0, 0, 7]);
        let asked = BootEvent::Asked { mac: MAC, address: Some(address), firmware: Firmware::Bios };
        assert_eq!(asked.to_string(), "52:54:00:12:34:af 10.0.0.7 asked for boot (BIOS)");
        let asked = BootEvent::Asked { mac: MAC, address: None, firmware: Firmware::Other(Architecture(99)) };
        assert!(asked.to_string().ends_with(" asked for boot (architecture 99, for which there are no boot files)"));
        let unserved = BootEvent::Unserved { mac: MAC, architecture: Architecture(11) };
        let said = "52:54:00:12:34:af asked for boot (architecture 11, 64-bit ARM UEFI) and gets no answer: ";
        assert!(unserved.to_string().starts_with(said), "{unserved}");
        let (file, over) = ("vmlinuz".to_owned(), Protocol::Http);
        let fetched = BootEvent::Fetched { mac: Some(MAC), address, file, bytes: 8 << 20, over, whole: true };
        assert_eq!(fetched.to_string(), "52:54:00:12:34:af 10.0.0.7 fetched vmlinuz (8 MiB over HTTP)");
        let (file, over) = ("snponly.efi".to_owned(), Protocol::Tftp);
        let broken = BootEvent::Fetched { mac: None, address, file, bytes: 0, over, whole: false };
        assert_eq!(broken.to_string(), "10.0.0.7 broke off fetching snponly.efi (0 B over TFTP)");
    }
}
