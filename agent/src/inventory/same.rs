//! Which entries of the list are one disk: several paths to it (SAN, dual-ported SAS), or several loop devices over one file.
//!
//! Two entries are one disk only where nothing else can be meant, because of two disks that are taken for one either could be
//! overwritten. All of this must hold:
//!
//! - they are attached in a way that has several paths (`fc`, `iscsi`, `sas`, `scsi`, `nvme`, or SCSI over `virtio`): a SATA or
//!   USB disk has one port, so two of them with one name are two disks;
//! - both have the same world wide name and the same serial number, and neither is a filler (one character over and over,
//!   fewer than four characters): makers of cheap disks give all of them one;
//! - the name is one that a registered maker gave: NAA 2, 5 or 6, or no NAA name. NAA 3 is given locally; a software target
//!   numbers its disks with it, each server from one;
//! - model, size, sectors and the flags of removable and read-only are the same.
//!
//! Everything else stays two disks, and so an ambiguity for a person.

use super::loops::Loop;
use slidecast_proto::control::{Disk, Held};

/// How disks are attached that can be reached by several paths.
const SEVERAL_PATHS: [&str; 6] = ["fc", "iscsi", "sas", "scsi", "nvme", "virtio"];
/// A name or serial number that is shorter is a filler.
const MIN_NAME: usize = 4;

/// Merges entries that are one disk. The first stays, with the paths of the others; what holds one of them holds it.
pub(super) fn merge(disks: Vec<Disk>, is_one_loop: impl Fn(&Disk, &Disk) -> bool) -> Vec<Disk> {
    let mut merged: Vec<Disk> = Vec::with_capacity(disks.len());
    for disk in disks {
        let first = merged.iter_mut().find(|first| is_one_disk(first, &disk) || is_one_loop(first, &disk));
        match first {
            Some(first) => {
                first.other_paths.push(disk.path);
                let held = std::mem::replace(&mut first.held, Held::No);
                first.held = gravest([held, disk.held]);
            }
            None => merged.push(disk),
        }
    }
    merged
}

/// Whether two loop devices of the list show the same bytes.
pub(super) fn is_one_loop(loops: &[Loop], one: &Disk, other: &Disk) -> bool {
    let find = |disk: &Disk| {
        let name = disk.path.rsplit('/').next()?;
        loops.iter().find(|found| found.name == name)
    };
    let both = find(one).zip(find(other)).filter(|_| one.transport == "loop" && other.transport == "loop");
    let alike = one.logical_sector == other.logical_sector && one.read_only == other.read_only;
    both.is_some_and(|(one, other)| one.is_same_as(other)) && alike
}

/// The gravest of several uses.
pub(super) fn gravest(held: impl IntoIterator<Item = Held>) -> Held {
    let grave = |held: &Held| match held {
        Held::BootMedium(_) => 0,
        Held::Mounted(_) => 1,
        Held::InUse(_) => 2,
        Held::No => 3,
    };
    held.into_iter().min_by_key(grave).unwrap_or(Held::No)
}

fn is_one_disk(one: &Disk, other: &Disk) -> bool {
    let named = is_sure(&one.wwn) && is_registered(&one.wwn) && is_sure(&one.serial);
    let several = SEVERAL_PATHS.contains(&one.transport.as_str()) && !one.file && !other.file;
    let names = |disk: &Disk| (disk.wwn.to_ascii_lowercase(), disk.serial.clone(), disk.model.clone());
    let shape = |disk: &Disk| {
        let flags = (disk.removable, disk.read_only);
        (disk.transport.clone(), disk.bytes, disk.logical_sector, disk.physical_sector, flags)
    };
    named && several && names(one) == names(other) && shape(one) == shape(other)
}

/// Whether a name or serial number can be that of one disk only.
fn is_sure(name: &str) -> bool {
    let name = name.trim().trim_start_matches("0x");
    let digits = name.rsplit('.').next().unwrap_or(name);
    let mut chars = digits.chars().filter(|c| c.is_alphanumeric());
    let first = chars.next();
    digits.len() >= MIN_NAME && chars.any(|c| Some(c) != first)
}

/// Whether a world wide name is not one that anybody may give (SPC-4, 7.8.6.6: the first digit is the kind).
fn is_registered(wwn: &str) -> bool {
    wwn.strip_prefix("0x").is_none_or(|digits| digits.starts_with(['2', '5', '6']))
}

#[cfg(test)]
mod tests {
    use super::super::disks;
    use super::super::tests::Tree;
    use super::*;
    use crate::inventory::Wait;

    const WWN: &str = "naa.600508b1001c4d41";

    /// Two disks of two hosts, each with these attributes on top of what both have.
    fn found(place: [&str; 2], one: &[(&str, &str)], other: &[(&str, &str)]) -> Vec<Disk> {
        let tree = Tree::new();
        let usual = [("device/model", "LOGICAL VOLUME"), ("device/serial", "PEYHB0ARH9"), ("device/wwid", WWN)];
        for (name, dev, place, own) in [("sda", "8:0", place[0], one), ("sdb", "8:16", place[1], other)] {
            tree.disk(name, place, dev, &[&usual[..], own].concat());
        }
        let mut found = disks(&tree.roots, Wait::ForAll, None);
        let dev = format!("{}/", tree.roots.dev.to_str().unwrap());
        for disk in &mut found {
            disk.path = disk.path.replace(&dev, "");
            disk.other_paths.iter_mut().for_each(|path| *path = path.replace(&dev, ""));
        }
        found
    }

    const FC: [&str; 2] = ["pci0/host1/rport-1:0-0/target1:0:0/1:0:0:0", "pci0/host2/rport-2:0-0/target2:0:0/2:0:0:0"];
    const SATA: [&str; 2] = ["pci0/ata1/host1/target1:0:0/1:0:0:0", "pci0/ata2/host2/target2:0:0/2:0:0:0"];
    const USB: [&str; 2] = ["pci0/usb1/1-1/host1/target1:0:0/1:0:0:0", "pci0/usb1/1-2/host2/target2:0:0/2:0:0:0"];

    #[test]
    fn two_paths_with_one_name_serial_and_size_are_one_disk() {
        let found = found(FC, &[], &[]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), &found[0].other_paths[..]), ("sda", &["sdb".to_owned()][..]));
        assert!(found[0].to_string().ends_with(", also sdb)"), "{}", found[0]);
    }

    #[test]
    fn whatever_differs_makes_two_disks() {
        for (file, text) in [
            ("size", "4096\n"),
            ("device/serial", "PEYHB0ARH8"),
            ("device/wwid", "naa.600508b1001c4d42"),
            ("device/model", "OTHER"),
            ("ro", "1\n"),
            ("removable", "1\n"),
            ("queue/logical_block_size", "4096\n"),
        ] {
            assert_eq!(found(FC, &[], &[(file, text)]).len(), 2, "{file}");
        }
    }

    #[test]
    fn without_a_name_or_serial_of_its_own_nothing_is_one_disk() {
        for (file, text) in [
            ("device/serial", ""),
            ("device/serial", "0000000000"),
            ("device/serial", "123"),
            ("device/wwid", ""),
            ("device/wwid", "naa.0000000000000000"),
            ("device/wwid", "eui.ffffffffffffffff"),
            ("device/wwid", "naa.3000000100000001"),
            ("device/wwid", "t10.ATA LOGICAL VOLUME PEYHB0ARH9"),
        ] {
            assert_eq!(found(FC, &[(file, text)], &[(file, text)]).len(), 2, "{file}={text}");
        }
    }

    #[test]
    fn disks_with_one_port_are_two_whatever_they_are_called() {
        assert_eq!(found(SATA, &[], &[]).len(), 2);
        assert_eq!(found(USB, &[], &[]).len(), 2);
        assert_eq!(found([FC[0], USB[0]], &[], &[]).len(), 2);
    }

    #[test]
    fn what_holds_one_path_holds_the_disk() {
        let tree = Tree::new();
        let names = [("device/serial", "PEYHB0ARH9"), ("device/wwid", WWN)];
        tree.disk("sda", FC[0], "8:0", &names);
        tree.disk("sdb", FC[1], "8:16", &names);
        tree.write("sys/block/sdb/holders/dm-0/x", "");
        let found = disks(&tree.roots, Wait::ForAll, None);
        assert_eq!((found.len(), &found[0].held), (1, &Held::InUse("sdb is part of dm-0".into())));
    }
}
