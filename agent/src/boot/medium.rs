//! The medium that the machine was booted from: whatever is asked for, it is never written.
//!
//! The kernel does not say what it came from. It is told by the name that `mkimage.sh` gives its media, on the whole disk or on
//! one of its partitions: a volume of ISO 9660 or FAT that is called `SLIDECAST`.

use slidecast_proto::control::{Disk, Held};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The name of a volume on our media, padded with spaces where it stands.
const LABEL: &[u8] = b"SLIDECAST";

/// Marks every disk that carries our label as what the machine was booted from.
pub(crate) fn hold_boot_medium(disks: &mut [Disk]) {
    for disk in disks.iter_mut().filter(|disk| !disk.file) {
        if let Some(volume) = labelled(Path::new("/sys/block"), &disk.path) {
            disk.held = Held::BootMedium(format!("{volume} is a volume called SLIDECAST"));
        }
    }
}

/// The disk or partition with our label, if there is one.
fn labelled(blocks: &Path, disk: &str) -> Option<String> {
    let name = Path::new(disk).file_name()?.to_str()?;
    let folder = blocks.join(name);
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut partitions: Vec<String> = names.filter(|part| folder.join(part).join("partition").exists()).collect();
    partitions.sort_unstable();
    let mut volumes = std::iter::once(disk.to_owned()).chain(partitions.iter().map(|part| format!("/dev/{part}")));
    volumes.find(|volume| is_labelled(Path::new(volume)))
}

fn is_labelled(volume: &Path) -> bool {
    // A disk that can't be read has other troubles, which are said when it is opened as a target.
    File::open(volume).is_ok_and(|file| is_iso(&file) || is_fat(&file))
}

/// ECMA-119: the primary volume descriptor stands in the seventeenth sector of 2048 bytes, its name at byte 40.
fn is_iso(file: &File) -> bool {
    let mut descriptor = [0; 72];
    let whole = file.read_exact_at(&mut descriptor, 16 * 2048).is_ok();
    whole && descriptor.starts_with(b"\x01CD001") && is_ours(&descriptor[40..72])
}

/// Microsoft's FAT specification: the name stands in the boot sector, at byte 43 (FAT12, FAT16) or 71 (FAT32), before the
/// letters `FAT`.
fn is_fat(file: &File) -> bool {
    let mut sector = [0; 512];
    let whole = file.read_exact_at(&mut sector, 0).is_ok() && sector.ends_with(&[0x55, 0xaa]);
    let named = |at: usize| is_ours(&sector[at..at + 11]) && sector[at + 11..].starts_with(b"FAT");
    whole && (named(43) || named(71))
}

fn is_ours(name: &[u8]) -> bool {
    name.strip_prefix(LABEL).is_some_and(|rest| rest.iter().all(|byte| matches!(byte, b' ' | 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_iso_and_both_fats_of_that_name_are_ours_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        let mut iso = vec![0; 40 << 10];
        iso[32768..32774].copy_from_slice(b"\x01CD001");
        iso[32808..32840].copy_from_slice(b"SLIDECAST                       ");
        std::fs::write(&path, &iso).unwrap();
        assert!(is_labelled(&path));
        iso[32817] = b'2';
        std::fs::write(&path, &iso).unwrap();
        assert!(!is_labelled(&path));
        for (name, fat, size, expected) in [
            ("SLIDECAST", "16", 16 << 20, true),
            ("SLIDECAST", "32", 64 << 20, true),
            ("SLIDECASTER", "16", 16 << 20, false),
            ("EFI", "32", 64 << 20, false),
        ] {
            File::create(&path).unwrap().set_len(size).unwrap();
            let made = Command::new("mkfs.vfat").args(["-F", fat, "-n", name]).arg(&path).output().unwrap();
            assert!(made.status.success(), "{made:?}");
            assert_eq!(is_labelled(&path), expected, "{name} FAT{fat}");
        }
        std::fs::write(&path, b"short").unwrap();
        assert!(!is_labelled(&path) && !is_labelled(&folder.path().join("missing")));
    }
}
