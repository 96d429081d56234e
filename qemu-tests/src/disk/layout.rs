//! Where things are on a sample disk, and the tools that put them there.

use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};
use crate::tool;

const MIB: u64 = 1 << 20;

/// Sizes of a sample disk's partitions.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// EFI partition (FAT) in MiB. Under 512 MiB: with FAT32 it would have too few clusters to be valid.
    pub efi_mib: u64,
    /// Swap partition in MiB.
    pub swap_mib: u64,
    /// Root partition (ext4) in MiB.
    pub root_mib: u64,
}

impl Layout {
    /// The disk's size: a MiB ahead of the first partition and one behind the last for the second table.
    pub fn bytes(&self) -> u64 {
        (1 + self.efi_mib + self.swap_mib + self.root_mib + 1) * MIB
    }

    /// Byte range of the EFI partition.
    pub fn efi(&self) -> Range<u64> {
        MIB..(1 + self.efi_mib) * MIB
    }

    /// Byte range of the swap partition.
    pub fn swap(&self) -> Range<u64> {
        let start = self.efi().end;
        start..start + self.swap_mib * MIB
    }

    /// Byte range of the root partition.
    pub fn root(&self) -> Range<u64> {
        let start = self.swap().end;
        start..start + self.root_mib * MIB
    }

    /// Makes the disk: table, file systems, `efi_files` (which are copied to the EFI partition's root) and the tree
    /// `root` as the ext4 file system's content.
    ///
    /// # Errors
    /// When a tool is missing or fails.
    pub fn make(&self, disk: &Path, root: &Path, efi_files: &[PathBuf]) -> Result<()> {
        let file = File::create(disk).map_err(LabError::io("creating", disk))?;
        file.set_len(self.bytes()).map_err(LabError::io("sizing", disk))?;
        drop(file);
        let partition = |n: u32, range: &Range<u64>, kind: &str| {
            let (first, last) = (range.start / 512, range.end / 512 - 1);
            [format!("--new={n}:{first}:{last}"), format!("--typecode={n}:{kind}")]
        };
        let mut table = Vec::new();
        table.extend(partition(1, &self.efi(), "EF00"));
        table.extend(partition(2, &self.swap(), "8200"));
        table.extend(partition(3, &self.root(), "8300"));
        tool::run("sgdisk", words(table.iter().map(String::as_str), disk))?;
        self.make_efi(disk, efi_files)?;
        self.make_swap(disk)?;
        let offset = format!("offset={},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", self.root().start);
        let mut args = words(["-q", "-F", "-t", "ext4", "-L", "root", "-E", &offset, "-d"], root);
        args.extend([disk.as_os_str().to_owned(), format!("{}k", self.root_mib * 1024).into()]);
        tool::run("mke2fs", args).map(drop)
    }

    fn make_efi(&self, disk: &Path, files: &[PathBuf]) -> Result<()> {
        let sectors = (self.efi().start / 512).to_string();
        let mut args = words(["-F", "16", "-n", "EFI", "--offset", &sectors], disk);
        args.push((self.efi_mib * 1024).to_string().into());
        tool::run("mkfs.vfat", args)?;
        let image = format!("{}@@{}", disk.display(), self.efi().start);
        tool::run("mmd", ["-i", &image, "::/EFI", "::/EFI/BOOT"])?;
        for file in files {
            tool::run("mcopy", words(["-i", &image], file).into_iter().chain(["::/EFI/BOOT/".into()]))?;
        }
        Ok(())
    }

    /// `mkswap` takes no offset: the signature is made in a file of its own and copied into place.
    fn make_swap(&self, disk: &Path) -> Result<()> {
        let part = disk.with_extension("swap");
        let file = File::create(&part).map_err(LabError::io("creating", &part))?;
        file.set_len(self.swap_mib * MIB).map_err(LabError::io("sizing", &part))?;
        tool::run("mkswap", [&part])?;
        let (from, to) = (format!("if={}", part.display()), format!("of={}", disk.display()));
        let seek = format!("seek={}", self.swap().start / MIB);
        tool::run("dd", [&from, &to, "bs=1M", &seek, "conv=notrunc,sparse", "status=none"])?;
        std::fs::remove_file(&part).map_err(LabError::io("removing", part))
    }

    /// The root file system as `debugfs` and `e2fsck` take it: the disk with an offset.
    pub fn root_device(&self, disk: &Path) -> String {
        format!("{}?offset={}", disk.display(), self.root().start)
    }

    /// The byte ranges of a disk that hold something, as `dumpe2fs` says it and without any code of ours: all but the
    /// free blocks of the root file system and the swap partition behind its signature.
    ///
    /// # Errors
    /// When `dumpe2fs` fails.
    pub fn used_ranges(&self, disk: &Path) -> Result<Vec<Range<u64>>> {
        let text = self.dumpe2fs(disk)?;
        let size = text.lines().find_map(|line| line.strip_prefix("Block size:")?.trim().parse::<u64>().ok());
        let size = size.unwrap_or(4096);
        let mut ranges = Vec::new();
        ranges.push(0..self.swap().start + 4096);
        let mut at = self.root().start;
        // The same words stand, with a number, in the head of the text; groups are indented.
        for list in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
            for run in list.split(", ").filter(|run| !run.is_empty()) {
                let (first, last) = run.split_once('-').unwrap_or((run, run));
                let (Ok(first), Ok(last)) = (first.trim().parse::<u64>(), last.trim().parse::<u64>()) else { continue };
                let free = self.root().start + first * size..self.root().start + (last + 1) * size;
                if at < free.start {
                    ranges.push(at..free.start);
                }
                at = free.end;
            }
        }
        ranges.push(at..self.bytes());
        Ok(ranges)
    }

    /// What `dumpe2fs` says of the root file system. Since e2fsprogs 1.47.2 it looks for a file that is called as the whole
    /// argument, offset and all, before the offset is cut off: here there is one.
    fn dumpe2fs(&self, disk: &Path) -> Result<String> {
        let folder = tempfile::tempdir().map_err(LabError::io("creating a folder in", std::env::temp_dir()))?;
        let disk = disk.canonicalize().map_err(LabError::io("finding", disk))?;
        let link = folder.path().join("disk");
        let with_offset = self.root_device(&link);
        for name in [link.as_path(), Path::new(&with_offset)] {
            std::os::unix::fs::symlink(&disk, name).map_err(LabError::io("linking", name))?;
        }
        tool::run("dumpe2fs", [&with_offset])
    }

    /// Checks the root file system of a disk.
    ///
    /// # Errors
    /// When `e2fsck` finds anything wrong.
    pub fn check(&self, disk: &Path) -> Result<()> {
        tool::run("e2fsck", ["-f", "-n", &self.root_device(disk)]).map(drop)
    }
}

/// Arguments of a tool that end with a path.
fn words<'a>(args: impl IntoIterator<Item = &'a str>, path: &Path) -> Vec<OsString> {
    args.into_iter().map(OsString::from).chain([path.as_os_str().to_owned()]).collect()
}
