//! Images that lie under right checksums, made out of good ones. The system tests use this file, too.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "helpers of tests; not every test uses each")]

use slidecast_image::Image;
use slidecast_image::manifest::{Content, Part, PartWriter};
use slidecast_proto::units::{BlockNo, Hash, PartNo};
use std::path::Path;

const PAGE: usize = 4096;
const LIVE_HASHES: usize = 4;
const MANIFEST: usize = 6;

/// Gives the newest layer at `path` a wrong hash over the live grains of one block, and makes everything right again that
/// is made of it: sections, layer id, manifest, footer and superblock.
pub fn wrong_live_hash(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let resolved = Image::open(path).unwrap().resolve().unwrap();
    let mut header = resolved.header().clone();
    let wrong = Hash([9; 32]);
    let mut right = None;
    for no in 0..header.parts.len() {
        let number = PartNo(u32::try_from(no).unwrap());
        let part = Part::parse(&header, number, &resolved.part_bytes(number)).unwrap();
        let mut writer = PartWriter::new(part.first());
        for block in (part.first().0..part.first().0 + part.len()).map(BlockNo) {
            let info = part.block(block).unwrap();
            let mut content = info.content;
            if let Content::Stored { hash, live, .. } = &mut content
                && live != hash
                && right.is_none()
            {
                right = Some(core::mem::replace(live, wrong));
            }
            writer.push(content, info.places.len(), info.places.iter().copied());
        }
        header.parts[no].hash = Hash::of(&writer.finish());
    }
    let right = right.expect("some block is partly live");

    let number =
        |bytes: &[u8], at: usize| usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    let footer = number(&bytes, 80);
    let entry = |kind: usize| footer + 40 + (kind - 1) * 56;
    let section = |bytes: &[u8], kind: usize| {
        let from = number(bytes, entry(kind) + 8);
        from..from + number(bytes, entry(kind) + 16)
    };
    let live = section(&bytes, LIVE_HASHES);
    let row = bytes[live.clone()].chunks(40).position(|row| row[8..] == right.0).unwrap();
    let at = live.start + row * 40 + 8;
    bytes[at..at + 32].copy_from_slice(&wrong.0);
    rehash(&mut bytes, live, entry(LIVE_HASHES));

    let mut identity = bytes[..80].to_vec();
    for kind in 1..MANIFEST {
        identity.push(u8::try_from(kind).unwrap());
        identity.extend_from_slice(&bytes[entry(kind) + 16..entry(kind) + 56]);
    }
    header.layer = Hash::of(&identity);
    let manifest = section(&bytes, MANIFEST);
    bytes[manifest.clone()].copy_from_slice(&header.encode());
    rehash(&mut bytes, manifest, entry(MANIFEST));
    bytes[footer + 8..footer + 40].copy_from_slice(&header.layer.0);
    bytes[88..120].copy_from_slice(&header.layer.0);
    for page in [0, footer] {
        let seal = Hash::of(&bytes[page..page + PAGE - 32]);
        bytes[page + PAGE - 32..page + PAGE].copy_from_slice(&seal.0);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Gives the base at `path`, whose disk is one run of zeros, a disk of `bytes` bytes of zeros. Its manifest stays as it is.
pub fn claim_zeros(path: &Path, bytes: u64) {
    let old = std::fs::read(path).unwrap();
    let number = |at: usize| usize::try_from(u64::from_le_bytes(old[at..at + 8].try_into().unwrap())).unwrap();
    let old_footer = number(80);
    let part = |kind: usize| {
        let entry = old_footer + 40 + (kind - 1) * 56;
        old[number(entry + 8)..number(entry + 8) + number(entry + 16)].to_vec()
    };
    // One extent: at once, all grains, zeros.
    let mut map = vec![0];
    let mut word = (bytes / 4096) << 2 | 1;
    while word >= 0x80 {
        map.push(u8::try_from(word & 0x7F).unwrap() | 0x80);
        word >>= 7;
    }
    map.push(u8::try_from(word).unwrap());
    let mut manifest = part(MANIFEST);
    manifest[16..24].copy_from_slice(&bytes.to_le_bytes());
    let mut new = old[..PAGE].to_vec();
    new[16..24].copy_from_slice(&bytes.to_le_bytes());
    let mut identity = new[..80].to_vec();
    let mut footer = old[old_footer..old_footer + 40].to_vec();
    for (kind, content) in (1_u64..).zip([part(1), map, part(3), part(LIVE_HASHES), part(5), manifest]) {
        let entry = [kind, new.len() as u64, content.len() as u64].map(u64::to_le_bytes).concat();
        let hash = Hash::of(&content);
        if kind < 6 {
            identity.push(u8::try_from(kind).unwrap());
            identity.extend([&entry[16..], &hash.0].concat());
        }
        footer.extend([&entry[..], &hash.0].concat());
        new.extend(content);
    }
    let layer = Hash::of(&identity);
    let at = new.len();
    footer.resize(PAGE, 0);
    footer[8..40].copy_from_slice(&layer.0);
    new.extend(footer);
    new[80..88].copy_from_slice(&(at as u64).to_le_bytes());
    new[88..120].copy_from_slice(&layer.0);
    for page in [0, at] {
        let seal = Hash::of(&new[page..page + PAGE - 32]);
        new[page + PAGE - 32..page + PAGE].copy_from_slice(&seal.0);
    }
    std::fs::write(path, new).unwrap();
}

fn rehash(bytes: &mut [u8], section: core::ops::Range<usize>, entry: usize) {
    let hash = Hash::of(&bytes[section]);
    bytes[entry + 24..entry + 56].copy_from_slice(&hash.0);
}
