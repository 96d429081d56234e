//! The configuration of dnsmasq, as text.

use super::card::Card;
use super::range::DhcpRange;
use clap::ValueEnum;
use std::fmt::Write;
use std::net::SocketAddrV4;
use std::path::Path;

/// What UEFI machines that boot by PXE load first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UefiStage {
    /// iPXE, which then fetches kernel and initramfs over HTTP.
    Ipxe,
    /// Kernel and initramfs in one file over TFTP, without iPXE: slower, for firmware that iPXE can't use.
    Uki,
}

impl UefiStage {
    /// Its file on TFTP.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Ipxe => UEFI_STAGE,
            Self::Uki => UKI,
        }
    }
}

/// First stages, as they are called on TFTP.
pub(super) const BIOS_STAGE: &str = "undionly.kpxe";
/// The same for UEFI.
pub(super) const UEFI_STAGE: &str = "snponly.efi";
/// The UKI.
pub(super) const UKI: &str = "slidecast.efi";

/// What the configuration depends on.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) card: &'a Card,
    /// The addresses to give out; none: another DHCP server does that.
    pub(super) range: Option<DhcpRange>,
    pub(super) http: SocketAddrV4,
    pub(super) uefi: UefiStage,
    /// Where the file of leases and the folder `tftp` are.
    pub(super) dir: &'a Path,
    /// Whom dnsmasq becomes once it has its ports.
    pub(super) user: &'a str,
}

impl Setup<'_> {
    /// The file.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let (Self { card, http, dir, .. }, uefi) = (self, self.uefi.file());
        writeln!(text, "# Written by slidecast for one run.\nport=0\ninterface={}\nbind-interfaces", card.name)?;
        writeln!(text, "user={0}\nlog-dhcp\ndhcp-leasefile={1}/leases\npid-file={1}/pid", self.user, dir.display())?;
        writeln!(text, "enable-tftp\ntftp-root={}/tftp\ntftp-no-fail", dir.display())?;
        // iPXE says so in option 175 or in its user class; it is past the first stage.
        writeln!(text, "dhcp-match=set:ipxe,175\ndhcp-userclass=set:ipxe,iPXE")?;
        writeln!(text, "dhcp-match=set:bios,option:client-arch,0")?;
        writeln!(text, "dhcp-match=set:uefi,option:client-arch,7\ndhcp-match=set:uefi,option:client-arch,9")?;
        writeln!(text, "dhcp-match=set:http-arch,option:client-arch,16\ndhcp-vendorclass=set:http-class,HTTPClient")?;
        writeln!(text, "tag-if=set:http,tag:http-arch,tag:http-class,tag:!ipxe")?;
        writeln!(text, "dhcp-boot=tag:ipxe,http://{http}/boot.ipxe")?;
        writeln!(text, "dhcp-boot=tag:http,http://{http}/{UKI}")?;
        match self.range {
            Some(DhcpRange { first, last }) => {
                // The net is ours: nobody else gives out addresses, and there is no way out of it.
                writeln!(text, "dhcp-range={first},{last},{},1h", card.mask())?;
                writeln!(text, "dhcp-authoritative\nno-ping\ndhcp-option=option:router")?;
                writeln!(text, "dhcp-boot=tag:!ipxe,tag:bios,{BIOS_STAGE}\ndhcp-boot=tag:!ipxe,tag:uefi,{uefi}")?;
                // UEFI HTTP Boot takes offers alone that say this.
                writeln!(text, "dhcp-option-force=tag:http,60,HTTPClient")
            }
            None => {
                writeln!(text, "dhcp-range={},proxy,{}", card.network(), card.mask())?;
                // A machine whose architecture has no file here gets no answer: another server may have one for it. Firmware
                // that names no architecture (option 93) is an old BIOS.
                writeln!(
                    text,
                    "tag-if=set:served,tag:bios,tag:!http-class\ntag-if=set:served,tag:uefi,tag:!http-class"
                )?;
                writeln!(text, "tag-if=set:served,tag:http\ndhcp-match=set:arch,option:client-arch")?;
                writeln!(text, "tag-if=set:foreign,tag:arch,tag:!served\ndhcp-ignore=tag:foreign")?;
                // dnsmasq answers a proxy question only if its vendor class is listed, and with that class.
                writeln!(text, "dhcp-pxe-vendor=PXEClient,HTTPClient\npxe-prompt=\"SlideCast\",0")?;
                writeln!(text, "pxe-service=tag:!ipxe,x86PC,\"SlideCast\",{BIOS_STAGE}")?;
                writeln!(text, "pxe-service=tag:!ipxe,BC_EFI,\"SlideCast\",{uefi}")?;
                writeln!(text, "pxe-service=tag:!ipxe,X86-64_EFI,\"SlideCast\",{uefi}")?;
                // iPXE on BIOS takes the file from the menu alone, on UEFI from the offer alone.
                writeln!(text, "pxe-service=tag:ipxe,x86PC,\"SlideCast\",http://{http}/boot.ipxe")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::card::tests::card;

    const HEAD: &str = "# Written by slidecast for one run.
port=0
interface=eth1
bind-interfaces
user=dnsmasq
log-dhcp
dhcp-leasefile=/tmp/b/leases
pid-file=/tmp/b/pid
enable-tftp
tftp-root=/tmp/b/tftp
tftp-no-fail
dhcp-match=set:ipxe,175
dhcp-userclass=set:ipxe,iPXE
dhcp-match=set:bios,option:client-arch,0
dhcp-match=set:uefi,option:client-arch,7
dhcp-match=set:uefi,option:client-arch,9
dhcp-match=set:http-arch,option:client-arch,16
dhcp-vendorclass=set:http-class,HTTPClient
tag-if=set:http,tag:http-arch,tag:http-class,tag:!ipxe
dhcp-boot=tag:ipxe,http://10.0.0.1:7580/boot.ipxe
dhcp-boot=tag:http,http://10.0.0.1:7580/slidecast.efi
";

    fn text(range: Option<&str>, uefi: UefiStage) -> String {
        let http = "10.0.0.1:7580".parse().unwrap();
        let range = range.map(|range| range.parse().unwrap());
        Setup { card: &card(), range, http, uefi, dir: Path::new("/tmp/b"), user: "dnsmasq" }.to_text()
    }

    #[test]
    fn beside_another_server_no_address_is_given_out() {
        let expected = "dhcp-range=10.0.0.0,proxy,255.255.255.0
tag-if=set:served,tag:bios,tag:!http-class
tag-if=set:served,tag:uefi,tag:!http-class
tag-if=set:served,tag:http
dhcp-match=set:arch,option:client-arch
tag-if=set:foreign,tag:arch,tag:!served
dhcp-ignore=tag:foreign
dhcp-pxe-vendor=PXEClient,HTTPClient
pxe-prompt=\"SlideCast\",0
pxe-service=tag:!ipxe,x86PC,\"SlideCast\",undionly.kpxe
pxe-service=tag:!ipxe,BC_EFI,\"SlideCast\",snponly.efi
pxe-service=tag:!ipxe,X86-64_EFI,\"SlideCast\",snponly.efi
pxe-service=tag:ipxe,x86PC,\"SlideCast\",http://10.0.0.1:7580/boot.ipxe
";
        assert_eq!(text(None, UefiStage::Ipxe), format!("{HEAD}{expected}"));
    }

    #[test]
    fn on_a_net_of_our_own_addresses_come_with_the_boot_file() {
        let expected = "dhcp-range=10.0.0.100,10.0.0.200,255.255.255.0,1h
dhcp-authoritative
no-ping
dhcp-option=option:router
dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe
dhcp-boot=tag:!ipxe,tag:uefi,slidecast.efi
dhcp-option-force=tag:http,60,HTTPClient
";
        assert_eq!(text(Some("10.0.0.100-10.0.0.200"), UefiStage::Uki), format!("{HEAD}{expected}"));
    }
}
