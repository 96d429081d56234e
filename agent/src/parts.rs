//! The parts of the manifest that blocks on their way to the disk belong to.
//!
//! A part is kept while any of its blocks is not settled (read back, or flushed where nothing is read back), because such a
//! block may have to be fetched again; after that only as long as there is room for it.

use slidecast_image::manifest::{ManifestHeader, Part};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, PartNo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much memory settled parts may take, in bytes.
const ROOM: usize = 16 << 20;

#[derive(Debug)]
struct Kept {
    part: Arc<Part>,
    unsettled: u32,
}

/// Parsed parts by number.
#[derive(Debug)]
pub(crate) struct Parts {
    header: Arc<ManifestHeader>,
    kept: BTreeMap<PartNo, Kept>,
    bytes: usize,
    settled: BlockSet,
}

impl Parts {
    /// None of the parts of this manifest.
    #[must_use]
    pub(crate) fn new(header: Arc<ManifestHeader>) -> Self {
        let settled = BlockSet::empty(header.blocks);
        Self { header, kept: BTreeMap::new(), bytes: 0, settled }
    }

    /// The manifest header that parts are checked against.
    #[must_use]
    pub(crate) fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The same, for the engine.
    #[must_use]
    pub(crate) fn shared_header(&self) -> Arc<ManifestHeader> {
        Arc::clone(&self.header)
    }

    pub(crate) fn insert(&mut self, no: PartNo, part: Arc<Part>) {
        let first = part.first().0;
        let blocks = (first..first.saturating_add(part.len())).map(BlockNo);
        let unsettled = blocks.filter(|block| !self.settled.contains(*block)).count();
        let kept = Kept { part, unsettled: u32::try_from(unsettled).unwrap_or(u32::MAX) };
        self.bytes += kept.part.heap_bytes();
        if let Some(old) = self.kept.insert(no, kept) {
            self.bytes -= old.part.heap_bytes();
        }
        self.trim();
    }

    /// The part of this block, if it is kept.
    #[must_use]
    pub(crate) fn of(&self, block: BlockNo) -> Option<&Arc<Part>> {
        self.kept.get(&self.header.part_of(block)).map(|kept| &kept.part)
    }

    /// This block has to come again: its part is kept until it has.
    pub(crate) fn unsettle(&mut self, block: BlockNo, part: Arc<Part>) {
        let no = self.header.part_of(block);
        let was_settled = self.settled.remove(block);
        match self.kept.get_mut(&no) {
            Some(kept) => kept.unsettled += u32::from(was_settled),
            None => self.insert(no, part),
        }
    }

    /// These blocks are where they belong.
    pub(crate) fn settle(&mut self, blocks: &[BlockNo]) {
        for block in blocks {
            if self.settled.insert(*block)
                && let Some(kept) = self.kept.get_mut(&self.header.part_of(*block))
            {
                kept.unsettled = kept.unsettled.saturating_sub(1);
            }
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.bytes > ROOM {
            let idle = self.kept.iter().find(|(_, kept)| kept.unsettled == 0).map(|(no, _)| *no);
            let Some(gone) = idle.and_then(|no| self.kept.remove(&no)) else { return };
            self.bytes -= gone.part.heap_bytes();
        }
    }
}
