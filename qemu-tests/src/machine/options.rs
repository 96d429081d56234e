//! What a virtual machine is made of, and the words that tell QEMU so.

use std::path::{Path, PathBuf};

use super::disk::Disk;

/// What starts before any of our programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF, with its variables as they come from the factory.
    Uefi,
    /// OVMF with Secure Boot on; the file holds the variables, keys among them.
    SecureUefi {
        /// The variables to start with; they are copied.
        variables: PathBuf,
    },
}

/// What the firmware tries, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// No firmware menu at all: this kernel with this initramfs.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// The initramfs.
        initramfs: PathBuf,
        /// The kernel command line.
        words: String,
    },
    /// The network only.
    Network,
    /// The first disk, and the network where that does not boot.
    DiskThenNetwork,
    /// The first disk only.
    Disk,
    /// A USB stick with this image, and nothing else.
    Stick(PathBuf),
    /// A CD with this image, and nothing else.
    Cd(PathBuf),
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The server's card in whose network it is; none is a switch with nobody else.
    pub behind: Option<usize>,
    /// QEMU's name for the model.
    pub model: &'static str,
}

impl Card {
    /// A virtio card behind the server's card number `card`.
    pub const fn behind(card: usize) -> Self {
        Self { behind: Some(card), model: "virtio-net-pci" }
    }
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory in MiB.
    pub memory: u32,
    /// BIOS or UEFI.
    pub firmware: Firmware,
    /// What is booted.
    pub boot: Boot,
    /// Its cards.
    pub cards: Vec<Card>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// It has a screen and a keyboard, and not only a serial line.
    pub screen: bool,
    /// A restart restarts it; otherwise it ends the machine.
    pub restarts: bool,
    /// Further words for QEMU.
    pub more: Vec<String>,
}

impl Options {
    /// A PC with BIOS, 256 MiB, one card and these disks.
    pub fn new(boot: Boot, disks: Vec<Disk>) -> Self {
        Self {
            memory: 256,
            firmware: Firmware::Bios,
            boot,
            cards: vec![Card::behind(0)],
            disks,
            screen: false,
            restarts: false,
            more: vec![],
        }
    }

    /// The same with UEFI, which needs more memory for itself.
    #[must_use]
    pub fn uefi(self) -> Self {
        Self { firmware: Firmware::Uefi, memory: self.memory.max(512), ..self }
    }

    /// The same with this much memory in MiB.
    #[must_use]
    pub fn memory(self, memory: u32) -> Self {
        Self { memory, ..self }
    }

    /// The same, restarting when it is told to.
    #[must_use]
    pub fn restarting(self) -> Self {
        Self { restarts: true, ..self }
    }

    /// The same with these cards.
    #[must_use]
    pub fn cards(self, cards: Vec<Card>) -> Self {
        Self { cards, ..self }
    }

    /// Further words for QEMU that leave UEFI HTTP Boot as the only network boot of OVMF, which would try PXE first.
    pub fn without_pxe() -> Vec<String> {
        let no_pxe = ["IPv4", "IPv6"].map(|kind| format!("name=opt/org.tianocore/{kind}PXESupport,string=n"));
        no_pxe.into_iter().flat_map(|value| ["-fw_cfg".to_owned(), value]).collect()
    }

    /// All words for QEMU of the machine called `name`, the lab's machine number `number`; its files are in `dir`.
    pub(super) fn words(&self, name: &str, number: usize, dir: &Path) -> Vec<String> {
        let accelerator = std::env::var("SLIDECAST_QEMU_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned());
        let at = |ending: &str| format!("{}/{name}.{ending}", dir.display());
        let mut words: Vec<String> = ["-nodefaults", "-display", "none", "-no-user-config"].map(str::to_owned).to_vec();
        let mut add = |key: &str, value: String| words.extend([key.to_owned(), value]);
        add("-accel", accelerator);
        // With all that the emulation has: BLAKE3 and zstd are quicker with wide registers, in TCG too.
        add("-cpu", "max".to_owned());
        add("-m", self.memory.to_string());
        let secure = matches!(self.firmware, Firmware::SecureUefi { .. });
        add("-machine", if secure { "q35,smm=on" } else { "q35" }.to_owned());
        if self.firmware != Firmware::Bios {
            let code = if secure { "OVMF_CODE_4M.secboot.fd" } else { "OVMF_CODE_4M.fd" };
            add("-drive", format!("if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/{code}"));
            add("-drive", format!("if=pflash,format=raw,file={}", at("variables")));
        }
        if secure {
            add("-global", "driver=cfi.pflash01,property=secure,value=on".to_owned());
        }
        let serial =
            format!("socket,id=serial,path={},server=on,wait=off,logfile={},logappend=on", at("serial"), at("console"));
        add("-chardev", serial);
        add("-serial", "chardev:serial".to_owned());
        add("-qmp", format!("unix:{},server=on,wait=off", at("qmp")));
        if self.screen {
            add("-vga", "std".to_owned());
        }
        add("-boot", "strict=on,menu=off".to_owned());
        if let Boot::Kernel { kernel, initramfs, words } = &self.boot {
            add("-kernel", kernel.display().to_string());
            add("-initrd", initramfs.display().to_string());
            add("-append", words.clone());
        }
        for (n, card) in self.cards.iter().enumerate() {
            let netdev = format!("tap,id=net{n},ifname={name}.{n},script=no,downscript=no");
            add("-netdev", netdev);
            let mut turn = String::new();
            let from_network = matches!(self.boot, Boot::Network | Boot::DiskThenNetwork);
            if from_network {
                turn = format!(",bootindex={}", n + 10);
            }
            // BIOS boots from the network with the card's ROM, which is iPXE already. UEFI has a network stack of its own, as
            // real machines have. Where there is nothing to start, none of them wastes time on it.
            if !from_network || self.firmware != Firmware::Bios {
                turn += ",romfile=";
            }
            let address = mac(number, n);
            add("-device", format!("{},netdev=net{n},mac={address}{turn}", card.model));
        }
        let disks_boot = matches!(self.boot, Boot::Disk | Boot::DiskThenNetwork);
        for (n, disk) in self.disks.iter().enumerate() {
            words.extend(disk.words(n, (disks_boot && n == 0).then_some(1)));
        }
        if let Boot::Stick(image) = &self.boot {
            let stick = Disk { read_only: true, ..Disk::of(image).on(super::Bus::Usb) };
            words.extend(stick.words(90, Some(1)));
        }
        if let Boot::Cd(image) = &self.boot {
            let drive = format!("if=none,id=cd,media=cdrom,readonly=on,format=raw,file={}", image.display());
            words.extend(["-drive".to_owned(), drive]);
            words.extend(["-device", "ide-cd,drive=cd,bus=ide.0,bootindex=1"].map(str::to_owned));
        }
        if !self.restarts {
            words.push("-no-reboot".to_owned());
        }
        words.extend(self.more.iter().cloned());
        words
    }
}

/// The hardware address of card `n` of the lab's machine `number`: of the range that QEMU uses.
pub fn mac(number: usize, n: usize) -> String {
    format!("52:54:00:77:{n:02x}:{number:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(options: &Options) -> String {
        options.words("m1", 1, Path::new("/run")).join(" ")
    }

    #[test]
    fn a_machine_without_network_boot_has_no_option_rom() {
        let options = Options::new(Boot::Disk, vec![Disk::of(Path::new("/d/one.disk"))]);
        let text = line(&options);
        assert!(text.contains("virtio-net-pci,netdev=net0,mac=52:54:00:77:00:01,romfile="), "{text}");
        assert!(text.contains("drive=disk0,serial=one,bootindex=1"), "{text}");
        assert!(text.contains("-no-reboot"), "{text}");
    }

    #[test]
    fn the_disk_comes_before_the_network_when_both_are_tried() {
        let options = Options::new(Boot::DiskThenNetwork, vec![Disk::of(Path::new("/d/one.disk"))]).restarting();
        let text = line(&options);
        assert!(text.contains("mac=52:54:00:77:00:01,bootindex=10"), "{text}");
        assert!(text.contains("serial=one,bootindex=1"), "{text}");
        assert!(!text.contains("-no-reboot"), "{text}");
    }
}
