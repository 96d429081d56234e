//! Disks of virtual machines: a raw file each, and how the machine sees it.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// What a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// A disk of a virtio SCSI host adapter.
    Scsi,
    /// NVMe.
    Nvme,
    /// SATA (AHCI).
    Sata,
    /// A USB stick, which says that it is removable.
    Usb,
}

/// A disk of a machine.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The file with its bytes.
    pub file: PathBuf,
    /// What it hangs on.
    pub bus: Bus,
    /// Logical sector size in bytes: 512 or 4096.
    pub sector: u32,
    /// Its serial number.
    pub serial: String,
    /// The most bytes that are written in a second.
    pub write_rate: Option<u64>,
    /// Rules of QEMU's `blkdebug`, in a file: errors to be injected.
    pub faults: Option<PathBuf>,
    /// It cannot be written.
    pub read_only: bool,
    /// Its world wide name, if it has one; then other paths may lead to its file, too. On SCSI only.
    pub wwn: Option<u64>,
}

impl Disk {
    /// A virtio disk over an existing file.
    pub fn of(file: &Path) -> Self {
        let serial = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self {
            file: file.to_owned(),
            bus: Bus::Virtio,
            sector: 512,
            serial,
            write_rate: None,
            faults: None,
            read_only: false,
            wwn: None,
        }
    }

    /// A new virtio disk of zeros; its serial number is the file's name.
    ///
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn empty(file: &Path, bytes: u64) -> Result<Self> {
        let made = File::create_new(file).map_err(LabError::io("creating", file))?;
        made.set_len(bytes).map_err(LabError::io("sizing", file))?;
        Ok(Self::of(file))
    }

    /// The same on another bus.
    #[must_use]
    pub fn on(self, bus: Bus) -> Self {
        Self { bus, ..self }
    }

    /// The same with 4096-byte sectors.
    #[must_use]
    pub fn with_large_sectors(self) -> Self {
        Self { sector: 4096, ..self }
    }

    /// The same, but slower to write.
    #[must_use]
    pub fn writing_at(self, bytes_per_second: u64) -> Self {
        Self { write_rate: Some(bytes_per_second), ..self }
    }

    /// The same, with errors injected as the rules say (QEMU's `docs/devel/blkdebug.rst`).
    ///
    /// # Errors
    /// When the file with the rules cannot be written.
    pub fn failing(self, rules: &str) -> Result<Self> {
        let file = self.file.with_extension("faults");
        std::fs::write(&file, rules).map_err(LabError::io("writing", &file))?;
        Ok(Self { faults: Some(file), ..self })
    }

    /// Two paths to the same disk: two SCSI host adapters.
    #[must_use]
    pub fn by_two_paths(self, wwn: u64) -> Vec<Self> {
        vec![Self { bus: Bus::Scsi, wwn: Some(wwn), ..self }; 2]
    }

    /// The words for QEMU of disk number `n`; firmware tries the lowest `turn` first.
    pub(super) fn words(&self, n: usize, turn: Option<usize>) -> Vec<String> {
        let file = self.file.display();
        let file = self
            .faults
            .as_ref()
            .map_or_else(|| file.to_string(), |rules| format!("blkdebug:{}:{file}", rules.display()));
        let mut drive = format!("if=none,id=disk{n},file={file},format=raw");
        // A flush that has to fail must reach the file; all others need not reach the host's disk.
        drive += if self.faults.is_some() { ",cache=writeback,werror=report,rerror=report" } else { ",cache=unsafe" };
        if let Some(rate) = self.write_rate {
            drive += &format!(",throttling.bps-write={rate}");
        }
        if self.read_only {
            drive += ",readonly=on";
        }
        if self.wwn.is_some() {
            drive += ",file.locking=off";
        }
        let (host, device) = match self.bus {
            Bus::Virtio => (None, "virtio-blk-pci"),
            Bus::Scsi => (Some(format!("virtio-scsi-pci,id=host{n}")), "scsi-hd"),
            Bus::Nvme => (None, "nvme"),
            Bus::Sata => (Some(format!("ahci,id=host{n}")), "ide-hd"),
            Bus::Usb => (Some(format!("qemu-xhci,id=host{n}")), "usb-storage"),
        };
        let mut device = format!("{device},drive=disk{n},serial={}", self.serial);
        if host.is_some() {
            device += &format!(",bus=host{n}.0");
        }
        if let Some(wwn) = self.wwn {
            device += &format!(",share-rw=on,wwn={wwn:#x}");
        }
        if self.bus == Bus::Usb {
            device += ",removable=on";
        } else if self.sector != 512 {
            device += &format!(",logical_block_size={0},physical_block_size={0}", self.sector);
        }
        if let Some(turn) = turn {
            device += &format!(",bootindex={turn}");
        }
        let mut words = vec!["-drive".to_owned(), drive];
        words.extend(host.into_iter().flat_map(|host| ["-device".to_owned(), host]));
        words.extend(["-device".to_owned(), device]);
        words
    }
}
