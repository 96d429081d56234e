//! One layer: its file, opened, with superblock, footer and the sections that resolving needs, all checked.

use crate::error::{BlockFault, ImageError, Operation};
use crate::extent;
use crate::format::{
    FOOTER_BYTES, GRAIN_HASH_BYTES, MAX_EXTENT_BYTES, MAX_REPORT_BYTES, ROW_BYTES, Row, SUPERBLOCK_BYTES, Section,
    SectionEntry, Superblock, SuperblockError, parse_footer,
};
use crate::store::{LayerBytes, LayerStore};
use crate::varint::Reader;
use slidecast_proto::units::{Hash, MAX_HEADER_BYTES};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much of a section is read at a time: whole rows, whole grain hashes, about a megabyte.
const STEP: usize = ROW_BYTES * GRAIN_HASH_BYTES * 1600;
const LIVE_BYTES: usize = 40;

/// What stays in memory of a layer while its blocks are served.
#[derive(Debug)]
pub(crate) struct LayerFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Arc<dyn LayerBytes>,
    pub(crate) superblock: Superblock,
    pub(crate) rows: Vec<Row>,
}

/// The live hash of a block of an older layer that is only partly live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveHash {
    pub(crate) layer: u32,
    pub(crate) block: u32,
    pub(crate) hash: Hash,
}

impl LiveHash {
    /// What live hashes are sorted by.
    pub(crate) fn key(&self) -> (u32, u32) {
        (self.layer, self.block)
    }
}

/// A layer, open.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) core: Arc<LayerFile>,
    pub(crate) sections: Vec<SectionEntry>,
    pub(crate) extents: Vec<u8>,
}

/// Opens the layer at `path` of `store`, reads its superblock and compares its length with it.
pub(crate) fn read_superblock(
    store: &dyn LayerStore,
    path: &Path,
) -> Result<(Arc<dyn LayerBytes>, Superblock), ImageError> {
    let layer = store.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => ImageError::NotAnImage { path: path.into() },
        _ => ImageError::io(Operation::Open, path, None)(error),
    })?;
    let superblock = superblock_of(&*layer, path)?;
    Ok((layer, superblock))
}

/// The superblock of an open layer, whose length is right.
pub(crate) fn superblock_of(layer: &dyn LayerBytes, path: &Path) -> Result<Superblock, ImageError> {
    let bytes = layer.bytes();
    let mut head = vec![0; usize::try_from(bytes.min(SUPERBLOCK_BYTES)).unwrap_or(0)];
    layer.read_at(0, &mut head).map_err(ImageError::io(Operation::Read, path, 0))?;
    let superblock = Superblock::parse(&head).map_err(|error| match error {
        SuperblockError::Magic => ImageError::NotAnImage { path: path.into() },
        SuperblockError::Version(version) => ImageError::Version { path: path.into(), version },
        SuperblockError::Unfinished => ImageError::Unfinished { path: path.into() },
        SuperblockError::Damaged if bytes < SUPERBLOCK_BYTES => {
            ImageError::Truncated { path: path.into(), bytes, expected: SUPERBLOCK_BYTES }
        }
        SuperblockError::Damaged => ImageError::Damaged { path: path.into(), what: "superblock", offset: 0 },
    })?;
    let expected = superblock.file_bytes();
    if bytes < expected {
        return Err(ImageError::Truncated { path: path.into(), bytes, expected });
    }
    if bytes > expected {
        return Err(ImageError::Damaged { path: path.into(), what: "end (the file is too long)", offset: expected });
    }
    Ok(superblock)
}

impl LayerFile {
    pub(crate) fn damaged(&self, what: &'static str, offset: u64) -> ImageError {
        ImageError::Damaged { path: self.path.clone(), what, offset }
    }

    /// The error for block `block` of this file.
    pub(crate) fn block_error(&self, block: u32, fault: BlockFault) -> ImageError {
        let offset = self.rows.get(block as usize).map_or(0, |row| row.offset);
        ImageError::Block { path: self.path.clone(), block, offset, fault }
    }

    /// Fills `buffer` from `offset`.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.bytes.read_at(offset, buffer).map_err(ImageError::io(Operation::Read, &self.path, offset))
    }

    /// The length of block `block` unpacked, in bytes.
    pub(crate) fn raw_len(&self, block: u32) -> u32 {
        self.superblock.grains_of(block) * self.superblock.grain
    }

    /// Reads a section piece by piece and compares its hash; `take` gets every piece.
    pub(crate) fn read_section(
        &self,
        section: &SectionEntry,
        mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; STEP];
        let (mut at, end) = (section.offset, section.offset + section.bytes);
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            self.read_at(at, &mut buffer[..len])?;
            hasher.update(&buffer[..len]);
            take(&buffer[..len])?;
            at += len as u64;
        }
        if *hasher.finalize().as_bytes() == section.hash.0 {
            Ok(())
        } else {
            Err(self.damaged(section.kind.name(), section.offset))
        }
    }

    /// Reads a whole section of at most `limit` bytes.
    fn read_whole(&self, section: &SectionEntry, limit: u64) -> Result<Vec<u8>, ImageError> {
        if section.bytes > limit {
            return Err(self.damaged(section.kind.name(), section.offset));
        }
        let mut out = Vec::with_capacity(usize::try_from(section.bytes).unwrap_or(0));
        self.read_section(section, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(out)
    }
}

impl Layer {
    /// Opens the layer at `path` of `store`. Its extents are checked later, when the layers below are known.
    pub(crate) fn open(store: &dyn LayerStore, path: &Path) -> Result<Self, ImageError> {
        let (bytes, superblock) = read_superblock(store, path)?;
        Self::of(path, bytes, superblock)
    }

    /// The layer with these bytes and this superblock, as [`Layer::open`] opens it.
    pub(crate) fn of(path: &Path, bytes: Arc<dyn LayerBytes>, superblock: Superblock) -> Result<Self, ImageError> {
        let mut core = LayerFile { path: path.to_owned(), bytes, superblock, rows: Vec::new() };
        let mut footer = vec![0; usize::try_from(FOOTER_BYTES).unwrap_or(0)];
        let at = core.superblock.footer;
        core.read_at(at, &mut footer)?;
        let sections = parse_footer(&core.superblock, &footer).map_err(|_| core.damaged("footer", at))?;
        core.rows = read_rows(&core, &sections[0])?;
        let hashes = &sections[Section::GrainHashes as usize - 1];
        if hashes.bytes != core.superblock.stored_grains.saturating_mul(GRAIN_HASH_BYTES as u64) {
            return Err(core.damaged("footer", at));
        }
        let extents = core.read_whole(&sections[Section::ExtentMap as usize - 1], MAX_EXTENT_BYTES)?;
        Ok(Self { core: Arc::new(core), sections, extents })
    }

    pub(crate) fn section(&self, kind: Section) -> &SectionEntry {
        &self.sections[kind as usize - 1]
    }

    /// Checks the extents against the grains of the parent's disk and those stored by each layer up to this one. Gives
    /// their number.
    pub(crate) fn check_extents(&self, parent_grains: u64, stored: &[u64]) -> Result<u64, ImageError> {
        extent::check(&self.extents, self.core.superblock.disk_grains(), parent_grains, stored)
            .map_err(|_| self.core.damaged("extent map", self.section(Section::ExtentMap).offset))
    }

    /// The encoded manifest header.
    pub(crate) fn read_manifest(&self) -> Result<Vec<u8>, ImageError> {
        self.core.read_whole(self.section(Section::Manifest), u64::from(MAX_HEADER_BYTES))
    }

    /// The encoded partition report.
    pub(crate) fn read_report(&self) -> Result<Vec<u8>, ImageError> {
        self.core.read_whole(self.section(Section::Report), MAX_REPORT_BYTES)
    }

    /// The live hashes; `blocks` has the number of stored blocks of each layer below.
    pub(crate) fn read_live(&self, blocks: &[u32]) -> Result<Vec<LiveHash>, ImageError> {
        let section = self.section(Section::LiveHashes);
        let most: u64 = blocks.iter().map(|count| u64::from(*count)).sum();
        let bytes = self.core.read_whole(section, most * LIVE_BYTES as u64)?;
        parse_live(&bytes, blocks).ok_or_else(|| self.core.damaged("live hashes", section.offset))
    }
}

fn read_rows(core: &LayerFile, section: &SectionEntry) -> Result<Vec<Row>, ImageError> {
    let count = core.superblock.stored_blocks();
    if section.bytes != u64::from(count) * ROW_BYTES as u64 {
        return Err(core.damaged("footer", core.superblock.footer));
    }
    let mut rows = Vec::with_capacity(count as usize);
    let mut offset = SUPERBLOCK_BYTES;
    let mut number = 0;
    core.read_section(section, |piece| {
        for bytes in piece.chunks_exact(ROW_BYTES) {
            let row = Row::parse(bytes, core.raw_len(number), offset)
                .map_err(|_| core.damaged("block table", section.offset))?;
            offset = row.end();
            number += 1;
            rows.push(row);
        }
        Ok(())
    })?;
    if offset == section.offset { Ok(rows) } else { Err(core.damaged("block table", section.offset)) }
}

/// The bytes of the live hashes section.
pub(crate) fn encode_live(rows: &[LiveHash]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * LIVE_BYTES);
    for row in rows {
        out.extend_from_slice(&row.layer.to_le_bytes());
        out.extend_from_slice(&row.block.to_le_bytes());
        out.extend_from_slice(&row.hash.0);
    }
    out
}

fn parse_live(bytes: &[u8], blocks: &[u32]) -> Option<Vec<LiveHash>> {
    let mut rows: Vec<LiveHash> = Vec::new();
    for bytes in bytes.chunks(LIVE_BYTES) {
        let mut reader = Reader::new(bytes, "live hashes");
        let (layer, block) = (reader.fixed_u32().ok()?, reader.fixed_u32().ok()?);
        let hash = Hash(reader.array().ok()?);
        let known = blocks.get(layer as usize).is_some_and(|count| block < *count);
        let ordered = rows.last().is_none_or(|last| (last.layer, last.block) < (layer, block));
        if !known || !ordered {
            return None;
        }
        rows.push(LiveHash { layer, block, hash });
    }
    Some(rows)
}
