//! The logical sector of a disk in a file: a file does not say it, but what lies in it may prove it.
//!
//! Only proofs count, strongest first, and only where they speak for one size alone: a GPT whose header and entries hold
//! at their place, the backup header in the last sector, a protective MBR that covers just this disk, and an MBR at whose
//! partitions file systems begin that fit them in sectors of one size, while nothing is recognised where the other size
//! puts them.

use crate::le::{u16_at, u32_at, u64_at};
use crate::source::ReadAt;
use crate::table::{self, Partition, gpt};
use crate::used::is_anything;
use std::io;

/// The sizes that disks have.
const SIZES: [u32; 2] = [512, 4096];
/// How much of the front of a partition is looked at: to the end of the superblock of Btrfs.
const FRONT: usize = (64 << 10) + 4096;

/// A sector size that is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The sector in bytes.
    pub(crate) sector: u32,
    /// What proves it.
    pub(crate) by: &'static str,
}

/// The sector of the disk of `bytes` bytes in `source`, if something proves it.
pub(crate) fn proven(source: &dyn ReadAt, bytes: u64) -> io::Result<Option<Proof>> {
    let disk = Disk { source, bytes };
    let proofs: [(&'static str, Holds); 4] = [
        ("its GPT", |disk, sector| disk.has_gpt(sector)),
        ("its backup GPT", |disk, sector| disk.has_backup_gpt(sector)),
        ("its protective MBR, which covers all of it", |disk, sector| disk.is_covered(sector)),
        ("the file systems at the partitions of its MBR", |disk, sector| disk.has_file_systems(sector)),
    ];
    for (by, holds) in proofs {
        let mut found = Vec::new();
        for sector in SIZES {
            if bytes.is_multiple_of(sector.into()) && bytes >= 3 * u64::from(sector) && holds(&disk, sector)? {
                found.push(Proof { sector, by });
            }
        }
        match found[..] {
            [] => {}
            [proof] => return Ok(Some(proof)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a disk with sectors of that size has what is proof of it.
type Holds = fn(&Disk<'_>, u32) -> io::Result<bool>;

struct Disk<'a> {
    source: &'a dyn ReadAt,
    bytes: u64,
}

impl Disk<'_> {
    /// `len` bytes at `at`, or as many as there are.
    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(rest)];
        self.source.read_at(at, &mut bytes)?;
        Ok(bytes)
    }

    fn header_at(&self, number: u64, sector: u32) -> io::Result<Option<gpt::Header>> {
        let bytes = self.read(number * u64::from(sector), sector as usize)?;
        Ok(gpt::Header::parse(&bytes, number))
    }

    fn has_gpt(&self, sector: u32) -> io::Result<bool> {
        let Some(header) = self.header_at(1, sector)? else { return Ok(false) };
        self.entries_hold(&header, sector)
    }

    fn has_backup_gpt(&self, sector: u32) -> io::Result<bool> {
        let last = self.bytes / u64::from(sector) - 1;
        let Some(header) = self.header_at(last, sector)? else { return Ok(false) };
        Ok(header.alternate == 1 && self.entries_hold(&header, sector)?)
    }

    fn entries_hold(&self, header: &gpt::Header, sector: u32) -> io::Result<bool> {
        let at = header.entries.checked_mul(sector.into()).filter(|at| *at < self.bytes);
        // A header that holds has at most a megabyte of entries.
        let (Some(at), Ok(len)) = (at, usize::try_from(header.array_bytes())) else { return Ok(false) };
        let array = self.read(at, len)?;
        Ok(array.len() == len && header.array_holds(&array))
    }

    /// Whether the MBR protects as many sectors as there are behind it.
    fn is_covered(&self, sector: u32) -> io::Result<bool> {
        let boot = self.read(0, 512)?;
        let Some(entry) = gpt::protective_entry(&boot) else { return Ok(false) };
        let behind = self.bytes / u64::from(sector) - 1;
        Ok(u32_at(&boot, entry + 12).is_some_and(|covered| u64::from(covered) == behind))
    }

    /// Whether a file system that fits begins at some partition of the MBR, and nothing known at any partition in sectors
    /// of the other size.
    fn has_file_systems(&self, sector: u32) -> io::Result<bool> {
        let partitions = |sector| match table::read(self.source, self.bytes, sector) {
            Ok(table) if table.kind == crate::manifest::TableKind::Mbr => table.partitions,
            _ => Vec::new(),
        };
        for other in SIZES.into_iter().filter(|other| *other != sector) {
            if partitions(other).iter().any(|found| is_anything(self.source, found.start, found.bytes)) {
                return Ok(false);
            }
        }
        for found in partitions(sector) {
            let front = self.read(found.start, FRONT)?;
            if fits(&front, &found, sector) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a partition begins with a file system that states this sector, or a size that a partition of the same number
/// of the other sectors could not have.
fn fits(front: &[u8], partition: &Partition, sector: u32) -> bool {
    let stated = boot_sector(front).is_some_and(|stated| u64::from(sector) == stated);
    let factor = u64::from(SIZES[1] / SIZES[0]);
    let of_that_size = |bytes: u64| {
        let room = partition.bytes;
        bytes <= room && if sector == SIZES[0] { bytes.saturating_mul(2) > room } else { bytes > room / factor }
    };
    stated || sizes(front).into_iter().flatten().any(of_that_size)
}

/// The bytes of a sector that the boot sector of a FAT, NTFS or exFAT states.
fn boot_sector(front: &[u8]) -> Option<u64> {
    let jumps = matches!(front.first()?, 0xE9 | 0xEB) && front.get(510..512)? == [0x55, 0xAA];
    if front.get(3..11)? == b"EXFAT   " {
        let shift = *front.get(108)?;
        return (jumps && shift < 32).then(|| 1 << shift);
    }
    let per_cluster = *front.get(13)?;
    let (reserved, fats, media) = (u16_at(front, 14)?, *front.get(16)?, *front.get(21)?);
    let ntfs = front.get(3..11)? == b"NTFS    ";
    let fat = reserved > 0 && matches!(fats, 1 | 2) && (media == 0xF0 || media >= 0xF8);
    (jumps && per_cluster.is_power_of_two() && (ntfs || fat)).then(|| u16_at(front, 11).map(u64::from))?
}

/// The sizes in bytes that ext2/3/4, XFS, Btrfs and swap state.
fn sizes(front: &[u8]) -> [Option<u64>; 4] {
    let be = |at: usize| Some(u64::from(u32_at(front, at)?.swap_bytes()));
    let ext = || {
        let (magic, blocks, log) = (u16_at(front, 1024 + 56)?, u32_at(front, 1024 + 4)?, u32_at(front, 1024 + 24)?);
        (magic == 0xEF53 && log <= 6).then(|| u64::from(blocks) << (10 + log))
    };
    let xfs = || {
        let blocks = be(8)? << 32 | be(12)?;
        front.starts_with(b"XFSB").then(|| be(4)?.checked_mul(blocks)).flatten()
    };
    let btrfs = || (front.get(65536 + 64..65536 + 72)? == b"_BHRfS_M").then(|| u64_at(front, 65536 + 201 + 8))?;
    let swap = || {
        let of = |page: usize| front.get(page - 10..page).is_some_and(|magic| magic == b"SWAPSPACE2");
        let page = [4096, 8192, 16384, 65536].into_iter().find(|page| of(*page))?;
        Some((u64::from(u32_at(front, 1028)?) + 1) * page as u64)
    };
    [ext(), xfs(), btrfs(), swap()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{run, tool};
    use std::io::Cursor;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    const MIB: u64 = 1 << 20;

    /// A disk in a file, gone after the test.
    struct Made {
        dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Made {
        fn new(bytes: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("disk");
            std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            Self { dir, path }
        }

        fn write(&self, at: u64, bytes: &[u8]) {
            std::fs::File::options().write(true).open(&self.path).unwrap().write_all_at(bytes, at).unwrap();
        }

        /// An MBR with partitions: type, first sector, sectors.
        fn mbr(&self, partitions: &[(u8, u32, u32)]) {
            for (no, (kind, first, sectors)) in (0..).zip(partitions) {
                let mut entry = [0; 16];
                entry[4] = *kind;
                entry[8..12].copy_from_slice(&first.to_le_bytes());
                entry[12..].copy_from_slice(&sectors.to_le_bytes());
                self.write(446 + no * 16, &entry);
            }
            self.write(510, &[0x55, 0xAA]);
        }

        /// Copies what a program made in a file of its own to `at`.
        fn put(&self, at: u64, bytes: u64, make: impl Fn(&str)) {
            let part = self.dir.path().join("part");
            std::fs::File::create(&part).unwrap().set_len(bytes).unwrap();
            make(part.to_str().unwrap());
            self.write(at, &std::fs::read(&part).unwrap());
        }

        fn proven(&self) -> Option<u32> {
            proven_of(&std::fs::read(&self.path).unwrap()).map(|proof| proof.sector)
        }
    }

    fn proven_of(bytes: &Vec<u8>) -> Option<Proof> {
        proven(bytes, bytes.len() as u64).unwrap()
    }

    /// A disk with a GPT and one partition in it.
    fn gpt_disk(sector: u32, bytes: usize) -> Vec<u8> {
        let size =
            if sector == 512 { ::gpt::disk::LogicalBlockSize::Lb512 } else { ::gpt::disk::LogicalBlockSize::Lb4096 };
        let device = Box::new(Cursor::new(vec![0_u8; bytes]));
        let config = ::gpt::GptConfig::new().writable(true).logical_block_size(size);
        let mut disk = config.create_from_device(device, None).unwrap();
        disk.add_partition("root", 3 * MIB, ::gpt::partition_types::LINUX_FS, 0, None).unwrap();
        let mut bytes = disk.write().unwrap().into_inner();
        let behind = u32::try_from(bytes.len()).unwrap() / sector - 1;
        ::gpt::mbr::ProtectiveMBR::with_lb_size(behind).overwrite_lba0(&mut Cursor::new(&mut bytes)).unwrap();
        bytes
    }

    #[test]
    fn a_gpt_proves_its_sectors_even_if_parts_of_it_are_damaged() {
        for sector in SIZES {
            let by = |disk: &Vec<u8>| proven_of(disk).map(|proof| (proof.sector, proof.by));
            let mut disk = gpt_disk(sector, 16 << 20);
            assert_eq!(by(&disk), Some((sector, "its GPT")));
            disk[sector as usize] ^= 1;
            assert_eq!(by(&disk), Some((sector, "its backup GPT")));
            let last = disk.len() - sector as usize;
            disk[last] ^= 1;
            assert_eq!(by(&disk), Some((sector, "its protective MBR, which covers all of it")));
            disk[446 + 12..446 + 16].fill(0xFF);
            assert_eq!(by(&disk), None);
        }
    }

    #[test]
    fn a_signature_alone_and_tables_for_both_sizes_prove_nothing() {
        let mut disk = vec![0; 16 << 20];
        assert_eq!(proven_of(&disk), None);
        disk[4096..4104].copy_from_slice(b"EFI PART");
        assert_eq!(proven_of(&disk), None);
        let (small, large) = (gpt_disk(512, 16 << 20), gpt_disk(4096, 16 << 20));
        // Two backups at their places: the header of 512 lies in the last sector of the other one, behind its header.
        let mut both = large.clone();
        let (array, header) = (both.len() - 33 * 512, both.len() - 512);
        both[header..].copy_from_slice(&small[header..]);
        assert_eq!(proven_of(&both).map(|proof| proof.sector), Some(4096), "the primary says it");
        both[4096] ^= 1;
        both[446 + 12..446 + 16].fill(0xFF);
        assert_eq!(proven_of(&both).map(|proof| proof.sector), Some(4096), "the entries for 512 are not there");
        both[array..array + 512].copy_from_slice(&small[array..array + 512]);
        assert_eq!(proven_of(&both), None);
    }

    #[test]
    fn an_mbr_proves_its_sectors_by_file_systems_that_fit_its_partitions() {
        let partitions = [(0x0C, 256, 2048), (0x83, 2560, 2048)];
        let (fat, ext) = (256, 2560);
        for sector in SIZES {
            let at = |first: u64| first * u64::from(sector);
            let bytes = at(2048);
            if let (Some(_), Some(_)) = (tool("mkfs.fat"), tool("mke2fs")) {
                let disk = Made::new(at(8192));
                disk.mbr(&partitions);
                assert_eq!(disk.proven(), None);
                let size = sector.to_string();
                disk.put(at(fat), bytes, |part| drop(run("mkfs.fat", ["-S", size.as_str(), part])));
                assert_eq!(disk.proven(), Some(sector), "FAT, {sector}");
                let disk = Made::new(at(8192));
                disk.mbr(&partitions);
                disk.put(at(ext), bytes, |part| drop(run("mke2fs", ["-q", "-F", part])));
                assert_eq!(disk.proven(), Some(sector), "ext2, {sector}");
            }
        }
    }

    #[test]
    fn an_mbr_proves_nothing_where_something_begins_at_its_partitions_in_either_size() {
        let Some(_) = tool("mke2fs") else { return };
        let disk = Made::new(64 * MIB);
        disk.mbr(&[(0x83, 256, 4096)]);
        disk.put(MIB, 16 * MIB, |part| drop(run("mke2fs", ["-q", "-F", part])));
        assert_eq!(disk.proven(), Some(4096));
        disk.write(256 * 512, b"LUKS\xBA\xBE");
        assert_eq!(disk.proven(), None);
    }

    #[test]
    fn a_file_system_that_was_once_elsewhere_on_a_disk_of_512_proves_nothing() {
        let Some(_) = tool("mke2fs") else { return };
        // An encrypted partition at 1 MiB; at eight times that an old file system that is too small or too large.
        for mib in [1, 30] {
            let disk = Made::new(64 * MIB);
            disk.mbr(&[(0x83, 2048, 4096)]);
            disk.put(8 * MIB, mib * MIB, |part| drop(run("mke2fs", ["-q", "-F", part])));
            assert_eq!(disk.proven(), None, "{mib} MiB");
        }
    }

    #[test]
    fn random_tables_never_panic() {
        let mut state = 7_u64;
        let mut bytes = vec![0; 64 << 10];
        for _ in 0..200 {
            bytes.fill_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56).to_le_bytes()[0]
            });
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[4096..4104].copy_from_slice(b"EFI PART");
            let len = bytes.len() as u64;
            let _ = proven(&bytes, len).unwrap();
            let short = bytes[..1024].to_vec();
            let _ = proven(&short, 1024).unwrap();
        }
    }
}
