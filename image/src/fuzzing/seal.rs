//! Puts the checksums of an input right: a fuzzer cannot guess them, and behind each stands most of a reader.

use super::SparseDisk;
use crate::be;
use crate::format::{FOOTER_BYTES, SUPERBLOCK_BYTES, Section};
use crate::le::{u16_at, u32_at, u64_at};
use crate::source::ReadAt as _;
use crate::used::{boot_sum_of_exfat, crc32c, f2fs_sum, lvm_sum, md_sum};
use slidecast_proto::units::Hash;

/// The checksums of the primary header of a GPT and of its entries.
pub(super) fn gpt(disk: &mut SparseDisk<'_>, sector: u32) {
    let own = u64::from(sector);
    let mut header = vec![0; sector as usize];
    if disk.read_at(own, &mut header).is_err() {
        return;
    }
    let entries = u64_at(&header, 72).and_then(|first| first.checked_mul(own));
    let bytes = u32_at(&header, 80).zip(u32_at(&header, 84)).and_then(|(count, bytes)| count.checked_mul(bytes));
    if let (Some(at), Some(bytes @ 0..=0x10_0000)) = (entries, bytes) {
        let mut array = vec![0; bytes as usize];
        if disk.read_at(at, &mut array).is_ok() {
            header[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
        }
    }
    header[16..20].fill(0);
    let len = u32_at(&header, 12).map_or(0, |len| len as usize).clamp(92, header.len());
    let crc = crc32fast::hash(&header[..len]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk.put(own, &header[..92]);
}

/// The checksum of the superblock of ext4, where it has one.
pub(super) fn ext(disk: &mut SparseDisk<'_>) {
    let mut raw = [0; 1024];
    if disk.read_at(1024, &mut raw).is_ok() && u16_at(&raw, 0x38) == Some(0xEF53) {
        disk.put(1024 + 0x3FC, &crc32c(!0, &raw[..0x3FC]).to_le_bytes());
    }
}

/// The checksums of an LVM2 label in sector 1, of the metadata area at 4096, and of the text that it names.
pub(super) fn lvm(disk: &mut SparseDisk<'_>) {
    let (mut label, mut area) = ([0; 512], [0; 512]);
    if disk.read_at(512, &mut label).is_err() || disk.read_at(4096, &mut area).is_err() {
        return;
    }
    disk.put(512 + 16, &lvm_sum(&label[20..]).to_le_bytes());
    let place = u64_at(&area, 40).zip(u64_at(&area, 48));
    if let Some((at @ 0..=0x10_0000, len @ 0..=0x1_0000)) = place {
        let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
        if disk.read_at(4096 + at, &mut text).is_ok() {
            area[56..60].copy_from_slice(&lvm_sum(&text).to_le_bytes());
        }
    }
    let sum = lvm_sum(&area[4..]).to_le_bytes();
    disk.put(4096 + 56, &area[56..60]);
    disk.put(4096, &sum);
}

/// The checksum of an md superblock of version 1.2.
pub(super) fn md(disk: &mut SparseDisk<'_>) {
    let mut raw = [0; 4096];
    if disk.read_at(4096, &mut raw).is_err() {
        return;
    }
    let len = u32_at(&raw, 220).map_or(0, |devices| devices as usize).min(1920) * 2 + 256;
    disk.put(4096 + 216, &md_sum(&raw[..len], 216).to_le_bytes());
}

/// The checksums of XFS, version 5: those of the superblock, and in the first groups those of the headers and of the roots
/// of the trees of free extents.
pub(super) fn xfs(disk: &mut SparseDisk<'_>) {
    let mut superblock = [0; 4096];
    if disk.read_at(0, &mut superblock).is_err() || !superblock.starts_with(b"XFSB") {
        return;
    }
    let word = |at| be::u32_at(&superblock, at).unwrap_or(0);
    let (block, sector) = (word(4).clamp(512, 65536), (word(100) & 0xFFFF).clamp(512, 4096));
    sum_of_xfs(disk, 0, sector, 224);
    for group in 0..word(88).min(8) {
        let start = u64::from(group) * u64::from(word(84)) * u64::from(block);
        let mut header = [0; 64];
        if disk.read_at(start + u64::from(sector), &mut header).is_err() {
            return;
        }
        for (number, at) in [(1, 216), (2, 312), (3, 32)] {
            sum_of_xfs(disk, start + number * u64::from(sector), sector, at);
        }
        for at in [16, 20] {
            let root = be::u32_at(&header, at).unwrap_or(0);
            sum_of_xfs(disk, start + u64::from(root) * u64::from(block), block, 52);
        }
    }
}

/// The checksum at `place` of a structure of XFS.
fn sum_of_xfs(disk: &mut SparseDisk<'_>, at: u64, bytes: u32, place: usize) {
    let mut raw = vec![0; bytes as usize];
    if disk.read_at(at, &mut raw).is_ok() {
        raw[place..place + 4].fill(0);
        disk.put(at + place as u64, &(!crc32c(!0, &raw)).to_le_bytes());
    }
}

/// The checksum of the superblock of btrfs and of the nodes of 4 KiB that its trees may have: whatever lies at a multiple of
/// 4 KiB and says that it is there, as in a file system whose chunks lie where they are called.
pub(super) fn btrfs(disk: &mut SparseDisk<'_>) {
    let (mut place, mut raw) = ([0; 8], [0; 4096]);
    for at in (64 << 10..disk.bytes().min(16 << 20)).step_by(4096) {
        let found = disk.read_at(at + 48, &mut place).is_ok() && u64::from_le_bytes(place) == at;
        if found && disk.read_at(at, &mut raw).is_ok() {
            disk.put(at, &(!crc32c(!0, &raw[32..])).to_le_bytes());
        }
    }
}

/// The checksum of the boot region of exFAT.
pub(super) fn exfat(disk: &mut SparseDisk<'_>) {
    let mut region = [0; 12 * 4096];
    if disk.read_at(0, &mut region[..512]).is_err() {
        return;
    }
    let sector = 1 << region[108].clamp(9, 12);
    if disk.read_at(0, &mut region[..12 * sector]).is_ok() {
        let sum = boot_sum_of_exfat(&region[..11 * sector]).to_le_bytes();
        disk.put(11 * sector as u64, &sum.repeat(sector / 4));
    }
}

/// The checksums of F2FS: those of both superblocks and of the first and last block of both packs of checkpoints.
pub(super) fn f2fs(disk: &mut SparseDisk<'_>) {
    let mut raw = [0; 4096];
    for at in [1024, 5120] {
        if disk.read_at(at, &mut raw[..3072]).is_ok() {
            disk.put(at + 3068, &f2fs_sum(&[&raw[..3068]]).to_le_bytes());
        }
    }
    let first = u32_at(&raw, 76).unwrap_or(0);
    for pack in [u64::from(first), u64::from(first) + 512] {
        let mut last = pack;
        for _ in 0..2 {
            if disk.read_at(last * 4096, &mut raw).is_err() {
                break;
            }
            disk.put(last * 4096 + 4092, &f2fs_sum(&[&raw[..4092]]).to_le_bytes());
            last = pack + u64::from(u32_at(&raw, 136).unwrap_or(0).clamp(1, 512)) - 1;
        }
    }
}

/// The hashes of the sections, the id of the layer, and the hashes of superblock and footer.
pub(super) fn layer(file: &mut [u8]) {
    const HASHED: usize = 4096 - 32;
    const ENTRY: usize = 8 + 8 + 8 + 32;
    /// Behind the footer's magic and the layer id.
    const ENTRIES: usize = 8 + 32;
    /// Behind the fields that the id covers and the place of the footer.
    const LAYER: usize = 88;
    let Some(footer_at) = file.len().checked_sub(usize::try_from(FOOTER_BYTES).unwrap_or(0)) else { return };
    if footer_at < usize::try_from(SUPERBLOCK_BYTES).unwrap_or(0) {
        return;
    }
    let (body, footer) = file.split_at_mut(footer_at);
    body[LAYER - 8..LAYER].copy_from_slice(&(footer_at as u64).to_le_bytes());
    let mut id = body[..LAYER - 8].to_vec();
    for (index, kind) in Section::ALL.into_iter().enumerate() {
        let entry = &mut footer[ENTRIES + index * ENTRY..][..ENTRY];
        let range = u64_at(entry, 8).zip(u64_at(entry, 16)).and_then(|(at, bytes)| {
            let start = usize::try_from(at).ok()?;
            body.get(start..start.checked_add(usize::try_from(bytes).ok()?)?)
        });
        if let Some(bytes) = range {
            entry[24..].copy_from_slice(&Hash::of(bytes).0);
        }
        if kind != Section::Manifest {
            id.push(kind as u8);
            id.extend_from_slice(&entry[16..]);
        }
    }
    let id = Hash::of(&id).0;
    body[LAYER..LAYER + 32].copy_from_slice(&id);
    footer[8..40].copy_from_slice(&id);
    for part in [&mut body[..4096], footer] {
        let hash = Hash::of(&part[..HASHED]).0;
        part[HASHED..].copy_from_slice(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateOptions, Image, create};

    #[test]
    fn a_layer_that_create_made_is_sealed_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, path) = (folder.path().join("disk"), folder.path().join("a.slide"));
        std::fs::write(
            &disk,
            (0..200_000_u32).map(|at| u8::try_from(at / 7 % 251).unwrap()).chain([0; 4800]).collect::<Vec<_>>(),
        )
        .unwrap();
        create(&CreateOptions::new(&disk, &path), |_| ()).unwrap();
        let made = std::fs::read(&path).unwrap();
        let mut sealed = made.clone();
        layer(&mut sealed);
        assert!(sealed == made);
        sealed[5000] ^= 1;
        let harmed = sealed.len() - 4096 - 1;
        sealed[harmed] ^= 1;
        std::fs::write(&path, &sealed).unwrap();
        assert!(Image::open(&path).is_err());
        layer(&mut sealed);
        std::fs::write(&path, &sealed).unwrap();
        assert!(Image::open(&path).unwrap().resolve().is_err(), "only the manifest does not follow from the rest");
    }
}
