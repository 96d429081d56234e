//! A GUID partition table fitted to the size of the disk it lands on.
//!
//! The backup header and its copy of the entries belong in the last sectors of the disk, wherever that is; so an image does
//! not hold them. They are made from the primary table, which on a disk of another size changes too: where the backup is,
//! the last usable sector, the checksums and the length in the protective MBR. On a disk of the same size nothing of the
//! head changes, and the backup is what partitioning tools write (UEFI specification 5.3.2).
//!
//! Pure functions over bytes: `export` and the agents' head shadow use the same ones.

use crate::le::u32_at;
use crate::table::gpt::{Header, header_crc, protective_entry};
use core::fmt;
use core::ops::Range;

/// How much of the front of a disk [`fit`] wants to see.
pub const HEAD_BYTES: u64 = 1 << 20;
/// The room that every GPT keeps for its entries.
const ARRAY_BYTES: u64 = 16 << 10;

/// Why a partition table cannot be fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitError {
    /// No disk has sectors of so many bytes.
    Sector(u32),
    /// Too little of the front of the disk was given.
    HeadTooShort {
        /// Bytes given.
        have: u64,
        /// Bytes wanted.
        need: u64,
    },
    /// The table or a partition ends behind the last place that a disk of this size has for it.
    TooSmall {
        /// Bytes of the disk.
        disk_bytes: u64,
        /// Bytes that the disk needs to have.
        need: u64,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sector(sector) => write!(f, "fitting a partition table: no disk has sectors of {sector} bytes"),
            Self::HeadTooShort { have, need } => {
                write!(f, "fitting a partition table: {have} bytes of the front of the disk, {need} are needed")
            }
            Self::TooSmall { disk_bytes, need } => {
                write!(f, "fitting the partition table to a disk of {disk_bytes} bytes: it needs {need} bytes")
            }
        }
    }
}

impl std::error::Error for FitError {}

/// The bytes at the end of a disk that belong to the backup GPT: 16 KiB of entries and one sector of header. Empty on a
/// disk too small for any GPT. On a disk that is no multiple of its sectors it ends with the last whole one.
#[must_use]
pub fn backup_area(disk_bytes: u64, sector: u32) -> Range<u64> {
    let sector = u64::from(sector.max(1));
    let end = disk_bytes - disk_bytes % sector;
    let bytes = ARRAY_BYTES.next_multiple_of(sector) + sector;
    // In front: protective MBR, header, entries.
    if end < 2 * bytes + sector { end..end } else { end - bytes..end }
}

/// Fits the GPT in `head`, the first [`HEAD_BYTES`] of a disk (or all of it), to `disk_bytes`; gives what belongs in
/// [`backup_area`].
///
/// `None`, and `head` unchanged, where there is nothing to fit: no table, an MBR, a GPT that does not hold, one with more
/// entries than the area takes, or one made for this very size whose last partition reaches into the area.
///
/// # Errors
/// [`FitError`] when a partition would end behind the disk, or on parameters that no disk has. `head` is then unchanged.
pub fn fit(head: &mut [u8], sector: u32, disk_bytes: u64) -> Result<Option<Vec<u8>>, FitError> {
    if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return Err(FitError::Sector(sector));
    }
    let (have, need) = (head.len() as u64, HEAD_BYTES.min(disk_bytes));
    if have < need {
        return Err(FitError::HeadTooShort { have, need });
    }
    let Some(table) = Table::read(head, sector) else { return Ok(None) };
    let area = backup_area(disk_bytes, sector);
    let last = (disk_bytes / u64::from(sector)).saturating_sub(1);
    if area.is_empty() {
        let need = 2 * (ARRAY_BYTES + u64::from(sector)) + u64::from(sector);
        return Err(FitError::TooSmall { disk_bytes, need });
    }
    let same_size = table.header.alternate == last;
    let first_of_area = area.start / u64::from(sector);
    if table.array.len() as u64 > ARRAY_BYTES {
        return Ok(None);
    }
    if table.end > first_of_area {
        if same_size {
            return Ok(None);
        }
        let need = table.end.saturating_mul(u64::from(sector)).saturating_add(area.end - area.start);
        return Err(FitError::TooSmall { disk_bytes, need });
    }
    if !same_size {
        let at = sector as usize;
        let header = &mut head[at..at + table.header.len];
        header[32..40].copy_from_slice(&last.to_le_bytes());
        header[48..56].copy_from_slice(&(first_of_area - 1).to_le_bytes());
        seal(header);
        fit_protective(head, table.header.alternate, last);
    }
    let mut backup = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)];
    let header_at = backup.len() - sector as usize;
    let array_sectors = (table.array.len() as u64).div_ceil(u64::from(sector));
    let array_at = header_at - usize::try_from(array_sectors).unwrap_or(0) * sector as usize;
    backup[array_at..array_at + table.array.len()].copy_from_slice(&head[table.array.clone()]);
    let header = &mut backup[header_at..header_at + table.header.len];
    header.copy_from_slice(&head[sector as usize..][..table.header.len]);
    header[24..32].copy_from_slice(&last.to_le_bytes());
    header[32..40].copy_from_slice(&1_u64.to_le_bytes());
    header[72..80].copy_from_slice(&(last - array_sectors).to_le_bytes());
    seal(header);
    Ok(Some(backup))
}

/// A primary table that holds, with the place of its array in the head and the end of its last partition.
struct Table {
    header: Header,
    array: Range<usize>,
    end: u64,
}

impl Table {
    fn read(head: &[u8], sector: u32) -> Option<Self> {
        let size = sector as usize;
        protective_entry(head)?;
        let header = Header::parse(head.get(size..2 * size)?, 1)?;
        let start = usize::try_from(header.entries.checked_mul(u64::from(sector))?).ok()?;
        let array = start..start.checked_add(usize::try_from(header.array_bytes()).ok()?)?;
        let entries = head.get(array.clone())?;
        if start < 2 * size || !header.array_holds(entries) {
            return None;
        }
        let end = header.partitions(entries).map(|(_, entry)| entry.last.saturating_add(1)).max().unwrap_or(0);
        Some(Self { header, array, end })
    }
}

/// Puts the right checksum into a header.
fn seal(header: &mut [u8]) {
    let crc = header_crc(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// Lets the protective MBR cover the disk up to sector `last`, if it covered it up to sector `old` (or claims to cover
/// some other size while it stands alone). An entry of the largest possible length covers every disk.
fn fit_protective(head: &mut [u8], old: u64, last: u64) {
    let Some(at) = protective_entry(head) else { return };
    let sectors = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let alone = (0..4).map(|index| 446 + index * 16).all(|other| other == at || head[other + 4] == 0);
    match u32_at(head, at + 12) {
        Some(u32::MAX) => return,
        Some(length) if length == sectors(old) || alone => {}
        // A hybrid MBR: the entry ends where the first copied partition begins.
        _ => return,
    }
    head[at + 5..at + 8].copy_from_slice(&cylinder_head_sector(last));
    head[at + 12..at + 16].copy_from_slice(&sectors(last).to_le_bytes());
}

/// Sector `lba` in the geometry of 255 heads and 63 sectors a track, or all ones if it is too far out.
fn cylinder_head_sector(lba: u64) -> [u8; 3] {
    let (track, sector) = (lba / 63, lba % 63 + 1);
    let (cylinder, head) = (track / 255, track % 255);
    match (u8::try_from(head), u8::try_from(sector | (cylinder >> 8) << 6), u8::try_from(cylinder & 0xFF)) {
        (Ok(head), Ok(sector), Ok(cylinder_low)) if cylinder < 1024 => [head, sector, cylinder_low],
        _ => [0xFF; 3],
    }
}

#[cfg(test)]
mod tests {
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

    /// What a deployment leaves on a disk of `bytes` when only the head was in the image.
    fn fitted(image: &[u8], sector: u32, bytes: u64) -> Vec<u8> {
        let mut disk = image[..usize::try_from(HEAD_BYTES.min(image.len() as u64)).unwrap()].to_vec();
        let backup = fit(&mut disk, sector, bytes).unwrap().expect("a GPT");
        disk.resize(usize::try_from(bytes).unwrap(), 0);
        let area = backup_area(bytes, sector);
        disk[usize::try_from(area.start).unwrap()..usize::try_from(area.end).unwrap()].copy_from_slice(&backup);
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
    fn on_a_disk_of_the_same_size_nothing_changes_and_the_backup_is_that_of_sgdisk() {
        for bytes in [3 * MIB, 64 * MIB, 64 * MIB + 512 * 7, 64 * MIB + 100] {
            let Some((_dir, path)) = disk(bytes, &["-n1:2048:+1M", "-c1:one", "-n2:0:0"]) else { return };
            let image = std::fs::read(&path).unwrap();
            let result = fitted(&image, 512, bytes);
            assert!(result[..HEAD] == image[..HEAD]);
            let area = backup_area(bytes, 512);
            let area = usize::try_from(area.start).unwrap()..usize::try_from(area.end).unwrap();
            assert!(result[area.clone()] == image[area]);
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
        assert!(fitted(&fitted(&image, 512, 5000 * MIB / 100), 512, 8 * MIB)[..4096] == image[..4096]);
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
    fn a_partition_behind_the_end_of_the_disk_is_an_error_that_says_how_large_it_must_be() {
        let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+40M"]) else { return };
        let image = std::fs::read(&path).unwrap();
        let mut head = image[..HEAD].to_vec();
        let need = 41 * MIB + 33 * 512;
        assert_eq!(fit(&mut head, 512, need - 512), Err(FitError::TooSmall { disk_bytes: need - 512, need }));
        assert!(head == image[..HEAD]);
        fitted(&image, 512, need);
    }

    #[test]
    fn an_mbr_no_table_and_a_broken_gpt_are_left_alone() {
        let mut heads = vec![vec![0; HEAD]];
        heads[0][446 + 4] = 0x83;
        heads[0][510..512].copy_from_slice(&[0x55, 0xAA]);
        heads.push(vec![0; HEAD]);
        if let Some((_dir, path)) = disk(64 * MIB, &["-n1:2048:+40M"]) {
            let image = std::fs::read(&path).unwrap();
            // Signature of the MBR, type of the protective entry, header, an entry.
            for flipped in [510, 450, 512, 520, 545, 600 - 12, 1024] {
                let mut head = image[..HEAD].to_vec();
                head[flipped] ^= 1;
                heads.push(head);
            }
        }
        for mut head in heads {
            let before = head.clone();
            assert_eq!(fit(&mut head, 512, 64 * MIB), Ok(None));
            assert!(head == before);
        }
    }

    #[test]
    fn more_entries_than_the_area_takes_are_left_alone() {
        let Some((_dir, path)) = disk(64 * MIB, &["-S256", "-n1:2048:+40M"]) else { return };
        let mut head = std::fs::read(&path).unwrap();
        assert_eq!(fit(&mut head, 512, 64 * MIB), Ok(None));
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
    fn parameters_of_no_disk_are_errors() {
        assert_eq!(fit(&mut [0; 512], 520, MIB), Err(FitError::Sector(520)));
        assert_eq!(fit(&mut [0; 512], 512, MIB), Err(FitError::HeadTooShort { have: 512, need: MIB }));
        assert_eq!(fit(&mut [0; 512], 512, 512), Ok(None));
        assert!(backup_area(0, 512).is_empty());
        assert_eq!(backup_area(64 * MIB + 5, 4096), 64 * MIB - 20480..64 * MIB);
    }
}
