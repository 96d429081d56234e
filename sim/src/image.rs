//! An image without bytes: a block's content is one number, which stands for its hash and its CRC alike.

use crate::rng::spread;
use slidecast_proto::feed::{BlockFrame, Source};
use slidecast_proto::node::{PartShape, Shape};
use slidecast_proto::units::{BlockNo, Hash, PartNo};
use std::ops::Range;
use std::sync::Arc;

/// What a place of a disk holds before anything was written there.
pub(crate) const OLD: u64 = 0;

/// What stands for the bytes of a block.
pub(crate) type Content = u64;

/// The CRC of a payload. Two contents may share it: bits 32 and up are seen by the hash alone.
pub(crate) fn crc(content: Content) -> u32 {
    u32::try_from(content & u64::from(u32::MAX)).unwrap_or(0)
}

#[derive(Debug)]
pub(crate) struct Image {
    seed: u64,
    block: u32,
    fill_every: u32,
    stored: Range<u32>,
    parts: Vec<Arc<[u8]>>,
    manifest: Arc<[u8]>,
    /// How the manifest is cut.
    pub(crate) shape: Arc<Shape>,
    /// A block whose stored bytes are not what the image's own table says.
    pub(crate) rotten: Option<u32>,
}

/// What an image is made from.
#[derive(Clone, Debug)]
pub(crate) struct ImagePlan {
    pub(crate) blocks: u32,
    /// The size of a block in bytes.
    pub(crate) block: u32,
    /// How many blocks a part of the manifest has.
    pub(crate) per_part: u32,
    /// Every such block is a fill; 0 for none.
    pub(crate) fill_every: u32,
    /// How long stored blocks are, in bytes.
    pub(crate) stored: Range<u32>,
    /// The length of an encoded part, in bytes.
    pub(crate) part_bytes: usize,
    /// See [`Image::rotten`].
    pub(crate) rotten: Option<u32>,
}

impl Image {
    /// The image of a seed.
    pub(crate) fn new(plan: &ImagePlan, seed: u64) -> Self {
        let firsts: Vec<u32> = (0..plan.blocks).step_by(plan.per_part.max(1) as usize).collect();
        let part = |no: usize| {
            let mut bytes = vec![0xA5; plan.part_bytes.max(8)];
            bytes[..8].copy_from_slice(&spread(seed ^ no as u64).to_le_bytes());
            bytes.into()
        };
        let parts: Vec<Arc<[u8]>> = (0..firsts.len()).map(part).collect();
        let shape = |(first, bytes): (u32, &Arc<[u8]>)| PartShape { first, hash: Hash::of(bytes) };
        let shapes = firsts.into_iter().zip(&parts).map(shape).collect();
        Self {
            seed,
            block: plan.block,
            fill_every: plan.fill_every,
            stored: plan.stored.clone(),
            parts,
            manifest: spread(seed).to_le_bytes()[..].into(),
            shape: Arc::new(Shape { blocks: plan.blocks, parts: shapes }),
            rotten: plan.rotten,
        }
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.shape.blocks
    }

    pub(crate) fn content(&self, block: u32) -> Content {
        spread(self.seed ^ (u64::from(block) << 32 | 0xB10C)) | 1
    }

    /// What the server sends for `block`.
    pub(crate) fn sent(&self, block: u32) -> Content {
        if self.rotten == Some(block) { self.content(block) ^ 0xFF00 } else { self.content(block) }
    }

    /// Whether `block` has no payload.
    pub(crate) fn is_fill(&self, block: u32) -> bool {
        self.fill_every != 0 && block % self.fill_every == self.fill_every - 1
    }

    /// The size of a block in bytes.
    pub(crate) fn block_bytes(&self) -> u32 {
        self.block
    }

    /// The memory that a part of so many blocks takes. In one seed of four it is so much that few parts can wait for read-back.
    pub(crate) fn part_heap(&self, blocks: u32) -> usize {
        if self.seed.is_multiple_of(4) { 1 << 20 } else { blocks as usize * 48 }
    }

    pub(crate) fn root(&self) -> Hash {
        Hash::of(&self.manifest)
    }

    /// The fill blocks of a part.
    pub(crate) fn fills(&self, part: PartNo) -> impl Iterator<Item = BlockNo> + '_ {
        self.shape.blocks_of(part).filter(|block| self.is_fill(*block)).map(BlockNo)
    }
}

impl Source for Image {
    type Payload = Content;

    fn manifest(&self) -> Arc<[u8]> {
        self.manifest.clone()
    }

    fn part(&self, part: PartNo) -> Arc<[u8]> {
        self.parts[part.0 as usize].clone()
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame<Content>> {
        if self.is_fill(block.0) {
            return None;
        }
        let span = u64::from(self.stored.end.saturating_sub(self.stored.start).max(1));
        let extra = spread(self.seed ^ u64::from(block.0)) % span;
        let stored_len = self.stored.start + u32::try_from(extra).unwrap_or(0);
        let (crc, payload) = (crc(self.content(block.0)), self.sent(block.0));
        Some(BlockFrame { codec: 0, raw_len: self.block, stored_len, crc, payload })
    }
}
