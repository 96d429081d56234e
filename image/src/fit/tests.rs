//! Tables of sgdisk and of the `gpt` crate, fitted.

use super::*;
use crate::testing::{LoopDevice, run, tool};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const HEAD: usize = 1 << 20;

/// A file of `bytes`, partitioned with sgdisk in sectors of 512 bytes.
fn disk(bytes: u64, arguments: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    tool("sgdisk")?;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    run("sgdisk", arguments.iter().copied().chain([path.to_str().unwrap()]));
    Some((dir, path))
}

/// `image` as it lies on a disk of `bytes` when what [`tail_area`] covers, and all behind the image, is `rest`.
fn laid_out(image: &[u8], sector: u32, bytes: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let to = |at: u64| usize::try_from(at).unwrap();
    let mut disk = image.to_vec();
    disk.resize(to(bytes), 0);
    let tail = tail_area(bytes, sector);
    let head = if tail.is_empty() { to(bytes) } else { HEAD.min(to(tail.start)) };
    if tail.is_empty() {
        (disk, Vec::new(), Vec::new())
    } else {
        let end = disk.split_off(to(tail.end));
        let tail = disk.split_off(to(tail.start));
        let body = disk.split_off(head);
        (disk, body, [tail, end].concat())
    }
}

/// What a deployment to a disk of `bytes` leaves of an image.
fn fitted_as(image: &[u8], sector: u32, bytes: u64) -> (Outcome, Vec<u8>) {
    let (mut head, body, mut tail) = laid_out(image, sector, bytes);
    let whole = if tail.is_empty() { 0 } else { tail.len() - usize::try_from(bytes % u64::from(sector)).unwrap() };
    let geometry = Geometry::new(sector, image.len() as u64, bytes).unwrap();
    let outcome = fit(&mut head, &mut tail[..whole], geometry);
    (outcome, [head, body, tail].concat())
}

/// The same of an image that does not hold the backup table.
fn fitted(image: &[u8], sector: u32, bytes: u64) -> Vec<u8> {
    let mut image = image.to_vec();
    let geometry = Geometry::new(sector, image.len() as u64, image.len() as u64).unwrap();
    let tail = image.len() / sector as usize * sector as usize;
    if let Outcome::Fitted(area) =
        fit(&mut image.clone()[..HEAD.min(tail)], &mut vec![0; 0x20000 + sector as usize], geometry)
    {
        image[usize::try_from(area.start).unwrap()..tail].fill(0);
    }
    let (outcome, disk) = fitted_as(&image, sector, bytes);
    assert!(matches!(outcome, Outcome::Fitted(_)), "{outcome:?}");
    disk
}

fn assert_sgdisk_finds_no_problem(path: &Path) {
    let said = run("sgdisk", ["-v", path.to_str().unwrap()]);
    assert!(said.contains("No problems found"), "{said}");
    for word in ["problem:", "Caution! ", "damaged", "invalid", "too small", "mismatch"] {
        assert!(!said.to_lowercase().contains(&word.to_lowercase()), "{said}");
    }
}

#[test]
fn an_image_that_holds_only_the_first_sectors_of_its_backup_is_fitted() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+20M"]) else { return };
    let whole = std::fs::read(&path).unwrap();
    // As `create` leaves it: 33 sectors, of which the last four grains are in no use.
    let mut image = whole.clone();
    let from = image.len() - 4 * 4096;
    image[from..].fill(0);
    assert_ne!(image[from - 512..from], [0; 512]);
    let (outcome, disk) = fitted_as(&image, 512, 64 * MIB);
    assert!(matches!(outcome, Outcome::Fitted(_)), "{outcome:?}");
    assert!(disk == whole);
}

#[test]
fn on_a_disk_of_the_same_size_nothing_changes_and_the_backup_is_that_of_sgdisk() {
    for bytes in [3 * MIB, 64 * MIB, 64 * MIB + 512 * 7, 64 * MIB + 100] {
        let Some((_dir, path)) = disk(bytes, &["-n1:2048:+1M", "-c1:one", "-n2:0:0"]) else { return };
        let image = std::fs::read(&path).unwrap();
        let result = fitted(&image, 512, bytes);
        assert!(result[..HEAD] == image[..HEAD]);
        assert!(result == image);
    }
}

#[test]
fn sgdisk_finds_no_problem_on_a_larger_disk_and_the_partitions_are_the_same() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+10M", "-t1:ef00", "-n2:0:0"]) else { return };
    let image = std::fs::read(&path).unwrap();
    let list = |path: &Path| {
        let said = run("sgdisk", ["-i1", "-i2", path.to_str().unwrap()]);
        assert!(said.contains("Partition unique GUID"), "{said}");
        said
    };
    let before = list(&path);
    for bytes in [64 * MIB + 512, 65 * MIB, 130 * MIB + 512 * 3] {
        std::fs::write(&path, fitted(&image, 512, bytes)).unwrap();
        assert_sgdisk_finds_no_problem(&path);
        assert_eq!(list(&path), before);
        let said = run("sgdisk", ["-p", path.to_str().unwrap()]);
        assert!(said.contains(&format!("last usable sector is {}", bytes / 512 - 34)), "{said}");
        // The same as if it had been partitioned there: the protective MBR's length and end too.
        let head = std::fs::read(&path).unwrap();
        run("sgdisk", ["-e", path.to_str().unwrap()]);
        assert!(head[..HEAD] == std::fs::read(&path).unwrap()[..HEAD]);
    }
}

#[test]
fn what_was_fitted_to_a_larger_disk_and_back_is_what_it_was() {
    let Some((_dir, path)) = disk(8 * MIB, &["-n1:2048:+1M"]) else { return };
    let image = std::fs::read(&path).unwrap();
    let mut grown = fitted(&image, 512, 50 * MIB);
    assert!(grown[..HEAD] != image[..HEAD]);
    unfit(&mut grown[..HEAD], 512, 8 * MIB);
    assert!(grown[..HEAD] == image[..HEAD]);
}

#[test]
fn a_disk_with_4096_byte_sectors_is_fitted_too() {
    let Some((_dir, path)) = disk(64 * MIB, &[]) else { return };
    let Some(device) = LoopDevice::new(&path, 4096) else { return };
    run("sgdisk", ["-n1:256:+10M", "-n2:0:0", device.path()]);
    drop(device);
    let image = std::fs::read(&path).unwrap();
    let same = fitted(&image, 4096, 64 * MIB);
    assert!(same == image);
    std::fs::write(&path, fitted(&image, 4096, 100 * MIB)).unwrap();
    let device = LoopDevice::new(&path, 4096).unwrap();
    assert_sgdisk_finds_no_problem(Path::new(device.path()));
}

/// The same as the test above by another program's eyes, where there are no loop devices.
#[test]
fn the_gpt_crate_reads_both_tables_of_a_fitted_disk_with_4096_byte_sectors() {
    let lb = gpt::disk::LogicalBlockSize::Lb4096;
    let device = Box::new(std::io::Cursor::new(vec![0_u8; 16 << 20]));
    let mut disk =
        gpt::GptConfig::new().writable(true).logical_block_size(lb).create_from_device(device, None).unwrap();
    disk.add_partition("root", 3 * MIB, gpt::partition_types::LINUX_FS, 0, None).unwrap();
    let mut image = disk.write().unwrap().into_inner();
    gpt::mbr::ProtectiveMBR::with_lb_size(4095).overwrite_lba0(&mut std::io::Cursor::new(&mut image)).unwrap();
    let grown = fitted(&image, 4096, 40 * MIB);
    let disk = gpt::GptConfig::new()
        .logical_block_size(lb)
        .only_valid_headers(true)
        .open_from_device(Box::new(std::io::Cursor::new(grown)))
        .unwrap();
    assert_eq!(disk.primary_header().unwrap().backup_lba, 40 * 256 - 1);
    assert_eq!(disk.backup_header().unwrap().current_lba, 40 * 256 - 1);
    assert_eq!(disk.partitions().len(), 1);
}

#[test]
fn a_table_for_which_there_is_no_room_stays_as_it_is_on_every_disk_of_its_size_or_larger() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+20M"]) else { return };
    let mut image = std::fs::read(&path).unwrap();
    image.truncate(21 << 20);
    let (outcome, same) = fitted_as(&image, 512, 21 * MIB);
    assert!(matches!(outcome, Outcome::Unfitted(Unfitted::BackupElsewhere, _)) && outcome.warning().is_none());
    assert!(same == image);
    for more in [1, 32] {
        let (outcome, larger) = fitted_as(&image, 512, 21 * MIB + more * 512);
        assert!(matches!(outcome, Outcome::Unfitted(Unfitted::NoRoom, _)));
        let said = outcome.warning().unwrap();
        assert!(said.contains("not fitted") && said.contains("no room"), "{said}");
        assert!(larger[..image.len()] == image[..] && larger[image.len()..].iter().all(|byte| *byte == 0));
    }
    std::fs::write(&path, fitted(&image, 512, 21 * MIB + 33 * 512)).unwrap();
    assert_sgdisk_finds_no_problem(&path);
}

#[test]
fn a_table_of_a_disk_that_has_grown_stays_as_it_is_at_that_size_and_is_fitted_to_a_larger_one() {
    let Some((_dir, path)) = disk(60 * MIB, &["-n1:2048:+20M"]) else { return };
    let mut image = std::fs::read(&path).unwrap();
    image.resize(64 << 20, 0);
    let (outcome, same) = fitted_as(&image, 512, 64 * MIB);
    assert!(matches!(outcome, Outcome::Unfitted(Unfitted::BackupElsewhere, _)));
    assert!(same == image);
    std::fs::write(&path, fitted(&image, 512, 80 * MIB)).unwrap();
    assert_sgdisk_finds_no_problem(&path);
}

#[test]
fn what_the_image_has_where_the_backup_belongs_is_never_overwritten() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+20M"]) else { return };
    let image = std::fs::read(&path).unwrap();
    let end = image.len();
    for at in [end - 33 * 512, end - 512, end - 512 + 60, end - 512 + 200, end - 1024] {
        let mut image = image.clone();
        image[at] ^= 1;
        let (outcome, disk) = fitted_as(&image, 512, 64 * MIB);
        assert!(matches!(outcome, Outcome::Unfitted(Unfitted::Occupied, _)), "{at}: {outcome:?}");
        assert!(disk == image);
        // The same bytes lie in front of the backup on a disk that is large enough, and in it on one that is not.
        let (outcome, _) = fitted_as(&image, 512, 64 * MIB + 33 * 512);
        assert!(matches!(outcome, Outcome::Fitted(_)), "{at}: {outcome:?}");
        let (outcome, disk) = fitted_as(&image, 512, 64 * MIB + 8 * 512);
        if at < end - 25 * 512 {
            // What lies in front stays, and behind it is nothing but the old backup.
            assert!(matches!(outcome, Outcome::Fitted(_)), "{at}: {outcome:?}");
            assert!(disk[at] == image[at]);
        } else {
            assert!(matches!(outcome, Outcome::Unfitted(Unfitted::Occupied, _)), "{at}: {outcome:?}");
            assert!(disk[..end] == image[..]);
        }
    }
}

#[test]
fn what_the_image_holds_of_its_old_backup_is_no_obstacle_on_a_disk_that_is_a_little_larger() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+20M"]) else { return };
    let mut image = std::fs::read(&path).unwrap();
    let kept = image.len() - 8 * 512 * 4;
    assert!(image[kept - 512..kept].iter().any(|byte| *byte != 0), "the first of the entries");
    image[kept..].fill(0);
    for more in [1, 4, 8, 31, 32, 33, 40] {
        let (outcome, disk) = fitted_as(&image, 512, 64 * MIB + more * 512);
        assert!(matches!(outcome, Outcome::Fitted(_)), "{more}: {outcome:?}");
        std::fs::write(&path, disk).unwrap();
        assert_sgdisk_finds_no_problem(&path);
    }
}

#[test]
fn a_backup_with_a_longer_header_is_one_of_this_table() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+20M"]) else { return };
    let mut image = std::fs::read(&path).unwrap();
    let at = image.len() - 512;
    image[at + 12..at + 16].copy_from_slice(&512_u32.to_le_bytes());
    seal(&mut image[at..at + 512]);
    let (outcome, disk) = fitted_as(&image, 512, 64 * MIB);
    assert!(matches!(outcome, Outcome::Fitted(_)), "{outcome:?}");
    assert!(disk == image);
}

#[test]
fn an_mbr_and_no_table_are_no_gpt_and_a_broken_gpt_is_told() {
    let geometry = Geometry::new(512, 64 * MIB, 80 * MIB).unwrap();
    let outcome_of = |head: &mut Vec<u8>| {
        let (before, mut tail) = (head.clone(), vec![0; 0x20200]);
        let outcome = fit(head, &mut tail, geometry);
        assert!(*head == before && tail.iter().all(|byte| *byte == 0));
        outcome
    };
    let mut mbr = vec![0; HEAD];
    mbr[446 + 4] = 0x83;
    mbr[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert_eq!(outcome_of(&mut mbr), Outcome::NoGpt);
    assert_eq!(outcome_of(&mut vec![0; HEAD]), Outcome::NoGpt);
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+40M"]) else { return };
    let image = std::fs::read(&path).unwrap();
    // Header, an entry; without the MBR's signature and protective entry there is no GPT.
    for (flipped, damaged) in
        [(510, false), (450, false), (512, true), (520, true), (545, true), (588, true), (1024, true)]
    {
        let mut head = image[..HEAD].to_vec();
        head[flipped] ^= 1;
        let outcome = outcome_of(&mut head);
        assert_eq!(outcome == Outcome::Unfitted(Unfitted::Damaged, geometry), damaged, "{flipped}: {outcome:?}");
        assert_eq!(outcome.warning().is_some(), damaged);
    }
}

#[test]
fn a_table_of_256_or_1024_entries_is_fitted_and_one_of_more_is_told() {
    for (entries, usable) in [("-S256", 66), ("-S1024", 258)] {
        let Some((_dir, path)) = disk(32 * MIB, &[entries, "-n1:2048:+10M"]) else { return };
        let image = std::fs::read(&path).unwrap();
        assert!(fitted(&image, 512, 32 * MIB) == image);
        std::fs::write(&path, fitted(&image, 512, 40 * MIB)).unwrap();
        assert_sgdisk_finds_no_problem(&path);
        let said = run("sgdisk", ["-p", path.to_str().unwrap()]);
        assert!(said.contains(&format!("last usable sector is {}", 40 * 2048 - usable)), "{said}");
    }
    let Some((_dir, path)) = disk(32 * MIB, &["-S2048", "-n1:2048:+10M"]) else { return };
    let image = std::fs::read(&path).unwrap();
    let (outcome, _) = fitted_as(&image, 512, 40 * MIB);
    assert!(matches!(outcome, Outcome::Unfitted(Unfitted::TooManyEntries, _)), "{outcome:?}");
    assert!(outcome.warning().unwrap().contains("1024 entries"));
}

#[test]
fn entries_behind_the_first_mib_are_told() {
    let Some((_dir, path)) = disk(32 * MIB, &["-j4096", "-n1:8192:+10M"]) else { return };
    let image = std::fs::read(&path).unwrap();
    let (outcome, disk) = fitted_as(&image, 512, 40 * MIB);
    assert!(matches!(outcome, Outcome::Unfitted(Unfitted::EntriesTooFar, _)), "{outcome:?}");
    assert!(disk[..image.len()] == image[..]);
}

#[test]
fn a_hybrid_mbr_keeps_its_own_entries() {
    let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+10M", "-n2:0:0", "-h1"]) else { return };
    let image = std::fs::read(&path).unwrap();
    let grown = fitted(&image, 512, 80 * MIB);
    assert!(grown[..512] == image[..512]);
    assert!(grown[512..1024] != image[512..1024]);
}

#[test]
fn sizes_that_cannot_fit_are_errors_before_anything_is_read() {
    assert_eq!(Geometry::new(520, MIB, MIB), Err(FitError::Sector(520)));
    assert_eq!(Geometry::new(512, MIB, MIB - 512), Err(FitError::TooSmall { disk_bytes: MIB - 512, need: MIB }));
    assert!(Geometry::new(4096, MIB, MIB).unwrap().is_own_size());
    assert!(tail_area(0, 512).is_empty());
    assert_eq!(tail_area(64 * MIB + 5, 4096), 64 * MIB - 0x21000..64 * MIB);
}

proptest::proptest! {
    /// Whatever a head and a tail hold, and however long they are, fitting ends with a word.
    #[test]
    fn nothing_makes_fitting_panic(
        at in proptest::collection::vec((0_usize..2048, proptest::prelude::any::<u8>()), 0..6),
        field in 0_usize..12, value in proptest::prelude::any::<u64>(), sealed: bool,
        image_bytes in 0_u64..4 * MIB, more in 0_u64..200_000, head_len in 0_usize..300_000, tail_len in 0_usize..0x21000,
    ) {
        let lb = gpt::disk::LogicalBlockSize::Lb512;
        let device = Box::new(std::io::Cursor::new(vec![0_u8; 2 << 20]));
        let mut disk = gpt::GptConfig::new().writable(true).logical_block_size(lb).create_from_device(device, None).unwrap();
        disk.add_partition("root", 300 << 10, gpt::partition_types::LINUX_FS, 0, None).unwrap();
        let mut head = disk.write().unwrap().into_inner();
        gpt::mbr::ProtectiveMBR::with_lb_size(4095).overwrite_lba0(&mut std::io::Cursor::new(&mut head)).unwrap();
        head[512 + 8 * field..512 + 8 * field + 8].copy_from_slice(&value.to_le_bytes());
        if sealed {
            head[512..520].copy_from_slice(b"EFI PART");
            head[524..528].copy_from_slice(&92_u32.to_le_bytes());
            seal(&mut head[512..604]);
        }
        at.iter().for_each(|(at, byte)| head[*at] ^= byte);
        head.truncate(head_len);
        let mut tail = vec![0; tail_len];
        for sector in [512, 4096] {
            let _ = fit(&mut head, &mut tail, Geometry::new(sector, image_bytes, image_bytes + more).unwrap());
            unfit(&mut head, sector, image_bytes);
        }
    }
}
