//! Made-up images: every kind of block at random, with the disk that must come out.

use crate::disk::Event;
use slidecast_image::codec::Codec;
use slidecast_image::fit::{Geometry, HEAD_BYTES, fit, tail_area};
use slidecast_image::manifest::{Content, ManifestHeader, Part, PartEntry, PartWriter, Place, TableKind};
use slidecast_image::signatures;
use slidecast_proto::units::{BlockNo, Hash, PartNo};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const GRAIN: u32 = 4096;
const BLOCK: u32 = 64 << 10;
const BLOCK_GRAINS: u32 = BLOCK / GRAIN;
/// Blocks in one part, few so that there are many parts.
const PART: usize = 7;

/// A small generator of numbers: the same seed gives the same image.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.next_multiple_of(8)];
        bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&self.roll(u64::MAX).to_le_bytes()));
        bytes.truncate(len);
        bytes
    }

    /// A grain that packs well, and never all zero.
    fn grain(&mut self) -> Vec<u8> {
        let mut grain = self.bytes(64).repeat(GRAIN as usize / 64);
        grain[0] |= 1;
        grain
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, usize::try_from(self.roll(end as u64 + 1)).unwrap());
        }
    }
}

/// A stored block as it travels.
#[derive(Clone)]
pub(super) struct Packed {
    pub(super) codec: Codec,
    pub(super) raw_len: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) struct TestImage {
    pub(super) header: Arc<ManifestHeader>,
    pub(super) parts: Vec<Arc<Part>>,
    pub(super) packed: BTreeMap<BlockNo, Packed>,
    /// What the image says of each grain; `None`: nothing.
    grains: Vec<Option<Vec<u8>>>,
}

/// One block while an image is made.
struct Draft {
    raw: Option<Vec<u8>>,
    pattern: u64,
    places: Vec<Place>,
}

impl TestImage {
    /// A disk of `disk_bytes` with data, copies of data, blocks partly live, fills and unused space, by the dice. The front may be
    /// given, for example with a partition table.
    pub(super) fn random(disk_bytes: u64, sector: u32, seed: u64, front: Option<&[u8]>) -> Self {
        let mut dice = Dice::new(seed);
        let count = disk_bytes.div_ceil(u64::from(GRAIN));
        let mut grains: Vec<Option<Vec<u8>>> = vec![];
        let mut drafts: Vec<Draft> = vec![];
        if let Some(front) = front {
            for grain in front.chunks(GRAIN as usize) {
                drafts.push(Draft {
                    raw: Some(grain.to_vec()),
                    pattern: 0,
                    places: vec![Place { source: 0, grains: 1, target: grains.len() as u64 }],
                });
                grains.push(Some(grain.to_vec()));
            }
        }
        // As `create` does it: the place of the backup table is unused.
        let (all, count) = (count, if front.is_some() { count - 6 } else { count });
        while (grains.len() as u64) < count {
            let at = grains.len() as u64;
            let run = (1 + dice.roll(60)).min(count - at);
            match dice.roll(8) {
                0 => grains.extend((0..run).map(|_| None)),
                1 | 2 => {
                    let pattern = if dice.roll(2) == 0 { 0 } else { dice.roll(u64::MAX) };
                    let grain = pattern.to_le_bytes().repeat(GRAIN as usize / 8);
                    grains.extend((0..run).map(|_| Some(grain.clone())));
                    let place = Place { source: 0, grains: u32::try_from(run).unwrap(), target: at };
                    drafts.push(Draft { raw: None, pattern, places: vec![place] });
                }
                3 if drafts.iter().any(|draft| draft.raw.is_some()) => {
                    // A run of grains that occurs before.
                    let stored: Vec<usize> = (0..drafts.len()).filter(|no| drafts[*no].raw.is_some()).collect();
                    let no = stored[usize::try_from(dice.roll(stored.len() as u64)).unwrap()];
                    let raw = drafts[no].raw.clone().unwrap();
                    let len = raw.len() as u64 / u64::from(GRAIN);
                    let source = dice.roll(len);
                    let run = (1 + dice.roll(len - source)).min(count - at);
                    for grain in source..source + run {
                        let start = usize::try_from(grain).unwrap() * GRAIN as usize;
                        grains.push(Some(raw[start..start + GRAIN as usize].to_vec()));
                    }
                    let source = u32::try_from(source).unwrap();
                    let place = Place { source, grains: u32::try_from(run).unwrap(), target: at };
                    drafts[no].places.push(place);
                }
                _ => {
                    let run = run.min(u64::from(BLOCK_GRAINS));
                    let data: Vec<Vec<u8>> = (0..run).map(|_| dice.grain()).collect();
                    let mut raw = data.concat();
                    let (mut source, len) = (0, u32::try_from(run).unwrap());
                    // Sometimes grains of the block are dead: in front, behind, or between.
                    if dice.roll(3) == 0 && run < u64::from(BLOCK_GRAINS) {
                        let dead = dice.grain();
                        if dice.roll(2) == 0 {
                            raw = [dead, raw].concat();
                            source = 1;
                        } else {
                            raw.extend(dead);
                        }
                    }
                    grains.extend(data.into_iter().map(Some));
                    let places = vec![Place { source, grains: len, target: at }];
                    drafts.push(Draft { raw: Some(raw), pattern: 0, places });
                }
            }
        }
        grains.resize(to_usize(all), None);
        Self::build(disk_bytes, sector, &mut dice, drafts, grains)
    }

    fn build(
        disk_bytes: u64,
        sector: u32,
        dice: &mut Dice,
        mut drafts: Vec<Draft>,
        mut grains: Vec<Option<Vec<u8>>>,
    ) -> Self {
        // A disk that ends within a grain: what is beyond must be zero.
        let tail = usize::try_from(disk_bytes % u64::from(GRAIN)).unwrap();
        let last = u64::try_from(grains.len()).unwrap() - 1;
        if tail > 0 {
            for draft in &mut drafts {
                draft.places.retain(|place| place.target + u64::from(place.grains) <= last);
            }
            drafts.retain(|draft| !draft.places.is_empty());
            for grain in grains.iter_mut().skip(usize::try_from(last).unwrap()) {
                *grain = None;
            }
            let mut raw = dice.grain();
            raw[tail..].fill(0);
            let covered: Vec<bool> = (0..grains.len() as u64)
                .map(|at| {
                    drafts
                        .iter()
                        .flat_map(|draft| &draft.places)
                        .any(|place| (place.target..place.target + u64::from(place.grains)).contains(&at))
                })
                .collect();
            grains.iter_mut().zip(covered).for_each(|(grain, covered)| *grain = grain.take().filter(|_| covered));
            *grains.last_mut().unwrap() = Some(raw.clone());
            drafts.push(Draft {
                raw: Some(raw),
                pattern: 0,
                places: vec![Place { source: 0, grains: 1, target: last }],
            });
        }
        for draft in &mut drafts {
            draft.places.sort_unstable_by_key(|place| (place.source, place.target));
        }
        drafts.sort_by_key(|draft| draft.places.iter().map(|place| place.target).min());
        let mut parts = vec![];
        let mut packed = BTreeMap::new();
        let mut first = 0;
        for group in drafts.chunks(PART) {
            let mut writer = PartWriter::new(BlockNo(first));
            for (no, draft) in (first..).zip(group) {
                let content = draft.content();
                writer.push(content, draft.places.len(), draft.places.iter().copied());
                if let Some(raw) = &draft.raw {
                    packed.insert(BlockNo(no), pack(raw, no));
                }
            }
            parts.push((BlockNo(first), writer.finish()));
            first += u32::try_from(group.len()).unwrap();
        }
        let entries = parts.iter().map(|(first, bytes)| PartEntry { first: *first, hash: Hash::of(bytes) });
        let header = ManifestHeader {
            layer: Hash([3; 32]),
            disk_bytes,
            sector,
            grain: GRAIN,
            block: BLOCK,
            blocks: first,
            stored_blocks: u32::try_from(packed.len()).unwrap(),
            raw_bytes: 0,
            table: TableKind::None,
            parts: entries.collect(),
        };
        let parse = |(no, (_, bytes)): (u32, &(BlockNo, Vec<u8>))| Part::parse(&header, PartNo(no), bytes).unwrap();
        let parts = (0..).zip(&parts).map(parse).map(Arc::new).collect();
        Self { header: Arc::new(header), parts, packed, grains }
    }

    pub(super) fn part_of(&self, block: BlockNo) -> Arc<Part> {
        Arc::clone(&self.parts[self.header.part_of(block).0 as usize])
    }

    /// The disk after a deployment to a target that held `old`: head and backup table are wiped, and what the image says nothing
    /// of stays zero there.
    pub(super) fn expected(&self, old: &[u8]) -> Vec<u8> {
        let mut disk = old.to_vec();
        let target = old.len() as u64;
        let backup = tail_area(target, self.header.sector);
        disk[..to_usize(HEAD_BYTES.min(target))].fill(0);
        disk[to_usize(backup.start)..to_usize(backup.end)].fill(0);
        self.expected_on(disk)
    }

    /// The disk with all that the image says, without old signatures behind it, and all else as it is.
    pub(super) fn expected_on(&self, mut disk: Vec<u8>) -> Vec<u8> {
        let target = disk.len() as u64;
        for range in signatures::behind(self.header.disk_bytes, target) {
            disk[to_usize(range.start)..to_usize(range.end)].fill(0);
        }
        let backup = tail_area(target, self.header.sector);
        for (at, grain) in self.used() {
            disk[at..at + grain.len()].copy_from_slice(grain);
        }
        let geometry = Geometry::new(self.header.sector, self.header.disk_bytes, target).unwrap();
        let (head, tail) = disk.split_at_mut(to_usize(backup.start));
        let head = if tail.is_empty() { head } else { &mut head[..to_usize(HEAD_BYTES.min(backup.start))] };
        fit(head, tail, geometry);
        disk
    }

    /// The same with a wrong hash over the live grains of a block, and everything else right; and that block.
    /// `None` where no block is partly live.
    pub(super) fn with_wrong_live_hash(mut self) -> Option<(Self, BlockNo)> {
        let mut header = (*self.header).clone();
        for (no, part) in self.parts.iter_mut().enumerate() {
            let blocks: Vec<BlockNo> = (part.first().0..part.first().0 + part.len()).map(BlockNo).collect();
            let content = |block: BlockNo| part.block(block).unwrap().content;
            let partly =
                |block: &BlockNo| matches!(content(*block), Content::Stored { hash, live, .. } if hash != live);
            let Some(chosen) = blocks.iter().copied().find(partly) else { continue };
            let mut writer = PartWriter::new(part.first());
            for block in blocks {
                let info = part.block(block).unwrap();
                let content = match info.content {
                    Content::Stored { grains, hash, .. } if block == chosen => {
                        Content::Stored { grains, hash, live: Hash([9; 32]) }
                    }
                    content => content,
                };
                writer.push(content, info.places.len(), info.places.iter().copied());
            }
            let bytes = writer.finish();
            header.parts[no].hash = Hash::of(&bytes);
            *part = Arc::new(Part::parse(&header, PartNo(u32::try_from(no).unwrap()), &bytes).unwrap());
            self.header = Arc::new(header);
            return Some((self, chosen));
        }
        None
    }

    /// What the image says: offset and bytes, the last one cut at the end of the disk.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let end = to_usize(self.header.disk_bytes);
        self.grains.iter().enumerate().filter_map(move |(no, grain)| {
            let (at, grain) = (no * GRAIN as usize, grain.as_ref()?);
            Some((at, &grain[..grain.len().min(end - at)]))
        })
    }

    /// All blocks, fills included.
    pub(super) fn blocks(&self) -> u32 {
        self.header.blocks
    }
}

impl Draft {
    fn content(&self) -> Content {
        let Some(raw) = &self.raw else { return Content::Fill { pattern: self.pattern } };
        let grains = u32::try_from(raw.len()).unwrap() / GRAIN;
        let live: Vec<u8> = (0..grains)
            .filter(|grain| self.places.iter().any(|place| (place.source..place.source + place.grains).contains(grain)))
            .flat_map(|grain| raw[(grain * GRAIN) as usize..((grain + 1) * GRAIN) as usize].to_vec())
            .collect();
        Content::Stored { grains, hash: Hash::of(raw), live: Hash::of(&live) }
    }
}

fn pack(raw: &[u8], no: u32) -> Packed {
    let raw_len = u32::try_from(raw.len()).unwrap();
    if no.is_multiple_of(2) {
        Packed { codec: Codec::Stored, raw_len, payload: raw.to_vec() }
    } else {
        Packed { codec: Codec::Lz4, raw_len, payload: lz4_flex::block::compress(raw) }
    }
}

/// The front of a disk with a GPT of one partition (UEFI specification 5.3): 64 KiB.
pub(super) fn gpt_front(disk_bytes: u64, sector: u32) -> Vec<u8> {
    let sectors = disk_bytes / u64::from(sector);
    let (sector, array) = (sector as usize, 16384 / u64::from(sector));
    let mut front = vec![0; 64 << 10];
    let mut put = |at: usize, bytes: &[u8]| front[at..at + bytes.len()].copy_from_slice(bytes);
    // The end once more as cylinder, head and sector, of a disk so small that the cylinder is 0.
    let end = [(sectors - 1) / 63, (sectors - 1) % 63 + 1].map(|number| u8::try_from(number).unwrap());
    put(446, &[0, 0, 2, 0, 0xee, end[0], end[1], 0, 1, 0, 0, 0]);
    put(458, &u32::try_from(sectors - 1).unwrap().to_le_bytes());
    put(510, &[0x55, 0xaa]);
    // One partition, a Linux file system.
    let entry = 2 * sector;
    put(entry, &[0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4]);
    put(entry + 16, &[7; 16]);
    put(entry + 32, &((2 << 20) / sector as u64).to_le_bytes());
    put(entry + 40, &((3 << 20) / sector as u64 - 1).to_le_bytes());
    put(sector, b"EFI PART\0\0\x01\0\x5c\0\0\0");
    let numbers = [1, sectors - 1, 2 + array, sectors - array - 2];
    numbers.iter().enumerate().for_each(|(no, number)| put(sector + 24 + 8 * no, &number.to_le_bytes()));
    put(sector + 56, &[9; 16]);
    put(sector + 72, &2u64.to_le_bytes());
    put(sector + 80, &128u32.to_le_bytes());
    put(sector + 84, &128u32.to_le_bytes());
    let crc = crc32fast::hash(&front[entry..entry + 16384]);
    front[sector + 88..sector + 92].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&front[sector..sector + 92]);
    front[sector + 16..sector + 20].copy_from_slice(&crc.to_le_bytes());
    front
}

pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// The numbers of all blocks in events of one kind.
pub(super) fn blocks_in(events: &[Event], pick: impl Fn(&Event) -> Vec<BlockNo>) -> Vec<u32> {
    let mut blocks: Vec<u32> = events.iter().flat_map(pick).map(|block| block.0).collect();
    blocks.sort_unstable();
    blocks
}
