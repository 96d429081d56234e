//! The resolved image: all blocks of the disk by number, where each lies in which file, and the manifest made from it.
//!
//! Memory: 48 bytes for each block of the files and 12 for each block of the disk, 16 for each piece of an extent that
//! lies in one block. Parts of the manifest are made when asked for. Few bytes of a file can claim many blocks and pieces,
//! as fills of a huge disk and as long runs that are repeated; both are bounded before memory is taken for them.

mod cut;

use crate::codec::{Codec, Decoder};
use crate::create::live_hash;
use crate::error::{BlockFault, ImageError};
use crate::format::Row;
use crate::layer::{Layer, LayerFile, LiveHash};
use crate::manifest::{Content, MAX_BLOCK_PLACES, ManifestHeader, PartEntry, PartWriter, Place, TableKind};
use crate::part::live_runs;
use crate::store::LayerBytes;
use core::ops::Range;
use slidecast_proto::units::{BlockNo, Hash, MAX_PARTS, PartNo};
use std::path::Path;
use std::sync::Arc;

/// Where the payload of a stored block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRef {
    /// In which layer; 0 is the base.
    pub layer: u16,
    /// How it is packed.
    pub codec: Codec,
    /// Where the payload begins in the file.
    pub offset: u64,
    /// The length of the payload.
    pub stored_len: u32,
    /// The length of the block unpacked.
    pub raw_len: u32,
    /// CRC-32 of the payload.
    pub crc: u32,
}

/// Bits of [`Piece::run`] that count grains; the others are the first grain within the block. A block has at most 2^12
/// grains, a fill at most 2^18.
const RUN_BITS: u32 = 19;

/// A run of grains of the disk that one block gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    block: u32,
    run: u32,
    target: u64,
}

impl Piece {
    fn place(self) -> Place {
        Place { source: self.run >> RUN_BITS, grains: self.run & ((1 << RUN_BITS) - 1), target: self.target }
    }

    /// What sorts places: their source (runs of one source differ in length only), then their target.
    fn key(&self) -> (u32, u32, u64) {
        (self.block, self.run >> RUN_BITS, self.target)
    }
}

/// What a block of the disk is.
#[derive(Clone, Copy, Debug)]
enum What {
    Stored { layer: u16, block: u32 },
    Fill { pattern: u64 },
}

/// A block of the disk in memory: a stored block counted through all layers, or, with the top bit, a fill.
const FILL: u32 = 1 << 31;

/// All layers of an image merged: the blocks of the disk.
#[derive(Debug)]
pub struct Resolved {
    layers: Vec<Arc<LayerFile>>,
    /// The number of stored blocks in all layers before each.
    before: Vec<u32>,
    /// What each block of the disk is, and where its pieces begin; one entry more marks the end.
    blocks: Vec<(u32, u32)>,
    patterns: Vec<u64>,
    pieces: Vec<Piece>,
    live: Vec<LiveHash>,
    header: ManifestHeader,
    header_bytes: Vec<u8>,
    stored_bytes: u64,
}

impl Resolved {
    /// Merges `layers`, the base first. `live` gives the live hash of a block, by layer and number, of which only some
    /// runs of grains are live.
    pub(crate) fn merge(
        layers: &[Layer],
        live: impl FnMut(u32, u32, &mut dyn Iterator<Item = Range<u32>>) -> Result<Hash, ImageError>,
    ) -> Result<Self, ImageError> {
        let mut resolved = Self::empty(layers.iter().map(|layer| Arc::clone(&layer.core)).collect())?;
        resolved.cut(layers)?;
        resolved.live_hashes(live)?;
        resolved.write_header()?;
        Ok(resolved)
    }

    fn empty(layers: Vec<Arc<LayerFile>>) -> Result<Self, ImageError> {
        let mut before = Vec::new();
        let mut total = 0u32;
        for layer in &layers {
            before.push(total);
            let sum = total.checked_add(layer.superblock.stored_blocks());
            total = sum.filter(|sum| *sum < FILL).ok_or(ImageError::TooMany { what: "blocks" })?;
        }
        let Some(newest) = layers.last() else { return Err(ImageError::TooMany { what: "layers" }) };
        let superblock = &newest.superblock;
        let header = ManifestHeader {
            layer: superblock.layer,
            disk_bytes: superblock.disk_bytes,
            sector: superblock.sector,
            grain: superblock.grain,
            block: superblock.block,
            blocks: 0,
            stored_blocks: 0,
            raw_bytes: 0,
            table: superblock.table,
            parts: Vec::new(),
        };
        Ok(Self {
            before,
            blocks: Vec::new(),
            patterns: Vec::new(),
            pieces: Vec::new(),
            live: Vec::new(),
            header,
            header_bytes: Vec::new(),
            stored_bytes: 0,
            layers,
        })
    }

    fn live_hashes(
        &mut self,
        mut live: impl FnMut(u32, u32, &mut dyn Iterator<Item = Range<u32>>) -> Result<Hash, ImageError>,
    ) -> Result<(), ImageError> {
        let mut found = Vec::new();
        for number in 0..self.header.blocks {
            let What::Stored { layer, block } = self.what(number) else { continue };
            let file = &self.layers[usize::from(layer)];
            let whole = live_runs(self.places(number)).eq(core::iter::once(0..file.superblock.grains_of(block)));
            if !whole {
                let layer = u32::from(layer);
                let hash = live(layer, block, &mut live_runs(self.places(number)))?;
                found.push(LiveHash { layer, block, hash });
            }
            self.stored_bytes += u64::from(file.rows[block as usize].stored_len());
        }
        found.sort_unstable_by_key(LiveHash::key);
        self.live = found;
        Ok(())
    }

    /// Makes all parts once, for their hashes.
    fn write_header(&mut self) -> Result<(), ImageError> {
        let mut first = 0;
        while first < self.header.blocks {
            let part = self.write_part(first, u32::MAX)?;
            let end = part.end().0;
            self.header.parts.push(PartEntry { first: BlockNo(first), hash: Hash::of(&part.finish()) });
            first = end;
            if self.header.parts.len() > MAX_PARTS as usize {
                return Err(ImageError::TooMany { what: "extents" });
            }
        }
        self.header_bytes = self.header.encode();
        Ok(())
    }

    /// Names the layer that the newest file got, once that is known.
    pub(crate) fn set_layer(&mut self, layer: Hash) {
        self.header.layer = layer;
        self.header_bytes = self.header.encode();
    }

    fn write_part(&self, first: u32, end: u32) -> Result<PartWriter, ImageError> {
        let mut part = PartWriter::new(BlockNo(first));
        for number in first..end.min(self.header.blocks) {
            let count = self.pieces_of(number).len();
            if count > MAX_BLOCK_PLACES as usize {
                return Err(ImageError::TooMany { what: "places of one block" });
            }
            part.push(self.content(BlockNo(number)), count, self.places(number));
            if part.is_full() {
                break;
            }
        }
        Ok(part)
    }

    fn what(&self, number: u32) -> What {
        let (block, _) = self.blocks[number as usize];
        if block & FILL != 0 {
            return What::Fill { pattern: self.patterns[(block & !FILL) as usize] };
        }
        let layer = self.before.partition_point(|before| *before <= block) - 1;
        What::Stored { layer: u16::try_from(layer).unwrap_or(u16::MAX), block: block - self.before[layer] }
    }

    fn pieces_of(&self, number: u32) -> &[Piece] {
        let begin = self.blocks[number as usize].1 as usize;
        let end = self.blocks.get(number as usize + 1).map_or(self.pieces.len(), |next| next.1 as usize);
        &self.pieces[begin..end]
    }

    fn places(&self, number: u32) -> impl Iterator<Item = Place> {
        self.pieces_of(number).iter().map(|piece| piece.place())
    }

    /// What `block` holds. The block must exist.
    #[must_use]
    pub fn content(&self, block: BlockNo) -> Content {
        match self.what(block.0) {
            What::Fill { pattern } => Content::Fill { pattern },
            What::Stored { layer, block } => {
                let file = &self.layers[usize::from(layer)];
                let hash = file.rows[block as usize].hash;
                let at = self.live.binary_search_by_key(&(u32::from(layer), block), LiveHash::key);
                let live = at.map_or(hash, |at| self.live[at].hash);
                Content::Stored { grains: file.superblock.grains_of(block), hash, live }
            }
        }
    }

    /// Everywhere `block` belongs, sorted by source, then target. The block must exist.
    pub fn block_places(&self, block: BlockNo) -> impl Iterator<Item = Place> {
        self.places(block.0)
    }

    /// The manifest header.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The manifest header, encoded.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8] {
        &self.header_bytes
    }

    /// The manifest root.
    #[must_use]
    pub fn root(&self) -> Hash {
        ManifestHeader::root(&self.header_bytes)
    }

    /// The encoding of `part`, made on demand. The part must exist.
    #[must_use]
    pub fn part_bytes(&self, part: PartNo) -> Vec<u8> {
        let range = self.header.part_blocks(part);
        self.write_part(range.start, range.end).map(PartWriter::finish).unwrap_or_default()
    }

    /// Where the payload of `block` is; `None` for a fill and for a block that does not exist.
    #[must_use]
    pub fn stored(&self, block: BlockNo) -> Option<StoredRef> {
        if block.0 >= self.header.blocks {
            return None;
        }
        let What::Stored { layer, block } = self.what(block.0) else { return None };
        let file = &self.layers[usize::from(layer)];
        let row = &file.rows[block as usize];
        Some(StoredRef {
            layer,
            codec: row.codec(),
            offset: row.payload(),
            stored_len: row.stored_len(),
            raw_len: file.raw_len(block),
            crc: row.crc,
        })
    }

    /// The bytes of a layer. The layer must exist.
    #[must_use]
    pub fn layer(&self, layer: u16) -> &dyn LayerBytes {
        &*self.layers[usize::from(layer)].bytes
    }

    /// The number of the newest layer.
    pub(crate) fn newest(&self) -> u16 {
        u16::try_from(self.layers.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }

    /// The path of a layer. The layer must exist.
    #[must_use]
    pub fn path(&self, layer: u16) -> &Path {
        &self.layers[usize::from(layer)].path
    }

    /// The payload bytes of one image: of every stored block of the disk once.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// How many runs of grains all places are.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces.len() as u64
    }

    /// The live hashes of partly live blocks, by layer and number.
    pub(crate) fn live(&self) -> &[LiveHash] {
        &self.live
    }

    /// The partition table on the disk.
    #[must_use]
    pub fn table(&self) -> TableKind {
        self.header.table
    }

    /// Layer and number in that layer of a stored block.
    pub(crate) fn origin(&self, block: BlockNo) -> Option<(u32, u32)> {
        match self.what(block.0) {
            What::Stored { layer, block } => Some((u32::from(layer), block)),
            What::Fill { .. } => None,
        }
    }

    /// Reads `block` from its file and checks it: checksum, unpacking, BLAKE3, and the hash over its live grains, which the
    /// manifest has where only some are live. Fills are always good.
    ///
    /// # Errors
    /// [`ImageError::Block`] naming the file and what is wrong, or the error of the system.
    pub fn check_block(&self, number: BlockNo) -> Result<(), ImageError> {
        let What::Stored { layer, block } = self.what(number.0) else { return Ok(()) };
        let file = &self.layers[usize::from(layer)];
        let mut reader = BlockReader::default();
        let raw = reader.read(file, block)?;
        match self.content(number) {
            Content::Stored { hash, live, .. }
                if live != hash && live != live_hash(raw, self.header.grain, live_runs(self.places(number.0))) =>
            {
                Err(file.block_error(block, BlockFault::LiveHash))
            }
            _ => Ok(()),
        }
    }

    /// Unpacks `block`, if it is stored.
    pub(crate) fn unpack<'a>(&self, block: BlockNo, reader: &'a mut BlockReader) -> Result<&'a [u8], ImageError> {
        match self.what(block.0) {
            What::Fill { .. } => Ok(&[]),
            What::Stored { layer, block } => reader.read(&self.layers[usize::from(layer)], block),
        }
    }
}

/// Numbers that the limits of the format keep below 2^32.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Reads and checks stored blocks, reusing its buffers.
#[derive(Debug, Default)]
pub(crate) struct BlockReader {
    decoder: Decoder,
    payload: Vec<u8>,
    raw: Vec<u8>,
}

impl BlockReader {
    /// Block `block` of `file`, unpacked: its checksum, length and BLAKE3 are right.
    pub(crate) fn read(&mut self, file: &LayerFile, block: u32) -> Result<&[u8], ImageError> {
        let row: &Row = &file.rows[block as usize];
        self.payload.resize(row.stored_len() as usize, 0);
        file.read_at(row.payload(), &mut self.payload)?;
        if crc32fast::hash(&self.payload) != row.crc {
            return Err(file.block_error(block, BlockFault::Crc));
        }
        self.raw.resize(file.raw_len(block) as usize, 0);
        let unpacked = self.decoder.decode(row.codec(), &self.payload, &mut self.raw);
        unpacked.map_err(|_| file.block_error(block, BlockFault::Unpack))?;
        if Hash::of(&self.raw) != row.hash {
            return Err(file.block_error(block, BlockFault::Hash));
        }
        Ok(&self.raw)
    }
}
