//! The manifest as one node has it: its header, and the parts that are kept, each for those that still need it.

use super::Shape;
use crate::bug::{self, Bug};
use crate::link::LinkFault;
use crate::set::BlockSet;
use crate::units::{BlockNo, Hash, PartNo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many bytes of manifest parts a node keeps for its downstream beyond those that the ring needs.
pub const PART_CACHE: usize = 16 << 20;

/// How much of the manifest header is known.
#[derive(Debug)]
enum HeaderState {
    Unknown,
    /// It came and is being read.
    Came(Arc<[u8]>),
    Read {
        bytes: Arc<[u8]>,
        shape: Arc<Shape>,
    },
}

/// A part that is kept.
#[derive(Debug)]
struct Kept {
    bytes: Arc<[u8]>,
    /// How many entries of the ring belong to it.
    pins: u32,
    /// What it costs of the credit while it waits to be passed on.
    charge: u64,
    /// What it costs while it waits to be compared with the disk.
    compare: u64,
}

impl Kept {
    fn is_idle(&self) -> bool {
        (self.pins, self.charge, self.compare) == (0, 0, 0)
    }

    /// What it costs of the credit to hold it.
    fn cost(&self) -> u64 {
        (self.bytes.len() as u64).next_multiple_of(4096)
    }
}

/// The manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    header: HeaderState,
    kept: BTreeMap<PartNo, Kept>,
    kept_bytes: usize,
    charge: u64,
    /// Parts that were read.
    known: BlockSet,
}

impl Manifest {
    pub(super) fn new() -> Self {
        let known = BlockSet::empty(0);
        Self { header: HeaderState::Unknown, kept: BTreeMap::new(), kept_bytes: 0, charge: 0, known }
    }

    /// Takes the header, if it has the root that the server named: what is kept is passed on. Gives what is to be read.
    pub(super) fn take_header(&mut self, payload: Vec<u8>, root: Hash) -> Result<Option<Arc<[u8]>>, LinkFault> {
        if self.has_header() {
            return Ok(None);
        }
        if Hash::of(&payload) != root {
            return Err(LinkFault::ManifestHash);
        }
        let bytes: Arc<[u8]> = payload.into();
        self.header = HeaderState::Came(bytes.clone());
        Ok(Some(bytes))
    }

    /// The header was read; gives whether that is new.
    pub(super) fn on_shape(&mut self, shape: Shape) -> bool {
        let HeaderState::Came(bytes) = &self.header else { return false };
        self.known = BlockSet::empty(u32::try_from(shape.parts.len()).unwrap_or(0));
        self.header = HeaderState::Read { bytes: bytes.clone(), shape: Arc::new(shape) };
        true
    }

    pub(super) fn has_header(&self) -> bool {
        !matches!(self.header, HeaderState::Unknown)
    }

    /// The header for those below, once it was read here.
    pub(super) fn header(&self) -> Option<&Arc<[u8]>> {
        match &self.header {
            HeaderState::Read { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn shape(&self) -> Option<&Arc<Shape>> {
        match &self.header {
            HeaderState::Read { shape, .. } => Some(shape),
            _ => None,
        }
    }

    pub(super) fn part_of(&self, block: BlockNo) -> Option<PartNo> {
        self.shape().map(|shape| shape.part_of(block))
    }

    /// Keeps a part, if it has the hash that the header names: what is kept is passed on. Gives what is to be read.
    pub(super) fn take_part(&mut self, number: u32, payload: Vec<u8>) -> Result<Arc<[u8]>, LinkFault> {
        let part = PartNo(number);
        let Some(named) = self.shape().and_then(|shape| shape.parts.get(number as usize)) else {
            return Err(LinkFault::Malformed("part number"));
        };
        if Hash::of(&payload) != named.hash && !bug::is(Bug::PartUnchecked) {
            return Err(LinkFault::PartHash(part));
        }
        let bytes: Arc<[u8]> = payload.into();
        if !self.kept.contains_key(&part) {
            self.kept_bytes += bytes.len();
            self.kept.insert(part, Kept { bytes: bytes.clone(), pins: 0, charge: 0, compare: 0 });
        }
        Ok(bytes)
    }

    /// A part was read.
    pub(super) fn learn(&mut self, part: PartNo) {
        self.known.insert(BlockNo(part.0));
    }

    pub(super) fn knows(&self, part: PartNo) -> bool {
        self.known.contains(BlockNo(part.0))
    }

    /// The bytes of a part, as long as they are kept.
    pub(super) fn part(&self, part: PartNo) -> Option<&Arc<[u8]>> {
        self.kept.get(&part).map(|kept| &kept.bytes)
    }

    /// The parts that were read and are kept.
    pub(super) fn at_hand(&self) -> Vec<PartNo> {
        self.kept.keys().copied().filter(|part| self.knows(*part)).collect()
    }

    /// What kept parts cost of the credit.
    pub(super) fn charge(&self) -> u64 {
        self.charge
    }

    /// A block of the ring needs its part.
    pub(super) fn pin(&mut self, block: BlockNo) {
        if let Some(kept) = self.part_of(block).and_then(|part| self.kept.get_mut(&part)) {
            kept.pins += 1;
        }
    }

    /// A block left the ring.
    pub(super) fn unpin(&mut self, block: BlockNo) {
        if let Some(kept) = self.part_of(block).and_then(|part| self.kept.get_mut(&part)) {
            kept.pins = kept.pins.saturating_sub(1);
        }
        self.trim();
    }

    /// A part is held until the disk was compared with it.
    pub(super) fn hold(&mut self, part: PartNo) {
        if let Some(kept) = self.kept.get_mut(&part).filter(|kept| kept.compare == 0) {
            kept.compare = kept.cost();
            self.charge += kept.compare;
        }
    }

    /// The disk was compared with a part.
    pub(super) fn on_compared(&mut self, part: PartNo) {
        if let Some(kept) = self.kept.get_mut(&part) {
            self.charge = self.charge.saturating_sub(kept.compare);
            kept.compare = 0;
        }
        self.trim();
    }

    /// Whether a part came that the disk was not compared with yet.
    pub(super) fn holds_any(&self) -> bool {
        self.kept.values().any(|kept| kept.compare != 0)
    }

    /// A part is held until it went out, unless it goes to a follower.
    pub(super) fn queue(&mut self, part: PartNo, followed: bool) {
        if let Some(kept) = self.kept.get_mut(&part).filter(|_| !followed) {
            kept.charge = kept.cost();
            self.charge += kept.charge;
        }
    }

    /// A part went out whole: it costs no credit any more, and its fill blocks need nothing else.
    pub(super) fn on_sent(&mut self, part: PartNo) {
        if let Some(kept) = self.kept.get_mut(&part) {
            self.charge = self.charge.saturating_sub(kept.charge);
            kept.charge = 0;
        }
        self.trim();
    }

    /// Nothing waits to be passed on any more.
    pub(super) fn unqueue_all(&mut self) {
        self.charge = self.kept.values().map(|kept| kept.compare).sum();
        self.kept.values_mut().for_each(|kept| kept.charge = 0);
    }

    /// Drops the oldest parts that nothing needs while the cache is over its size.
    pub(super) fn trim(&mut self) {
        while self.kept_bytes > PART_CACHE {
            let idle = self.kept.iter().find(|(_, kept)| kept.is_idle()).map(|(no, _)| *no);
            let Some(kept) = idle.and_then(|no| self.kept.remove(&no)) else { return };
            self.kept_bytes -= kept.bytes.len();
        }
    }

    /// Forgets all parts: the main pass brings them again, to those that lack blocks of them.
    pub(super) fn forget_parts(&mut self) {
        self.known = BlockSet::empty(self.known.universe());
        self.kept.clear();
        (self.kept_bytes, self.charge) = (0, 0);
    }
}
