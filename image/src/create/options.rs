//! What is asked for, and what came of it.

use super::DEFAULT_DEDUP_RUN;
use crate::codec::Packing;
use crate::store::{LayerStore, LocalFiles};
use slidecast_proto::units::Hash;
use std::path::{Path, PathBuf};

/// What to make an image of, and how.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// A block device, or a file or folder with a disk in one of the formats of [`names`](crate::source::names).
    pub source: PathBuf,
    /// The file to make.
    pub output: PathBuf,
    /// The layer to build on.
    pub parent: Option<PathBuf>,
    /// Where layers lie.
    pub store: &'static (dyn LayerStore + Sync),
    /// The block size in bytes; a child keeps its parent's.
    pub block: Option<u32>,
    /// The grain in bytes; a child keeps its parent's.
    pub grain: Option<u32>,
    /// How blocks are packed.
    pub codec: Packing,
    /// Shorter runs of repeated grains, in bytes, are stored again.
    pub dedup_run: u64,
    /// The sector in bytes of the disk in a file, 512 or 4096; what its table proves, its parent's, or 512 where none is given.
    pub sector: Option<u32>,
    /// What the source is, whatever its content says: one of [`names`](crate::source::names).
    pub format: Option<String>,
    /// The snapshot inside the source that is imaged, instead of the disk as it is now.
    pub snapshot: Option<String>,
    /// A file with the partition table of the disk that the source, an image of partclone, is a partition of.
    pub table: Option<PathBuf>,
    /// The number of that partition, where its size does not tell.
    pub partition: Option<u32>,
    /// Which disk of a folder with several.
    pub disk: Option<String>,
    /// A source whose content changes meanwhile is no error.
    pub allow_changes: bool,
}

impl CreateOptions {
    /// A base of `source` in `output` with the usual sizes.
    #[must_use]
    pub fn new(source: &Path, output: &Path) -> Self {
        Self {
            source: source.to_owned(),
            output: output.to_owned(),
            parent: None,
            store: &LocalFiles,
            block: None,
            grain: None,
            codec: Packing::default(),
            dedup_run: DEFAULT_DEDUP_RUN,
            sector: None,
            format: None,
            snapshot: None,
            table: None,
            partition: None,
            disk: None,
            allow_changes: false,
        }
    }
}

/// How far making an image has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateProgress {
    /// A source that is packed as a whole is unpacked first, and one with a block map is compared with it.
    Preparing {
        /// How much of the file is read for that, in bytes.
        done_bytes: u64,
        /// How much there is to read, in bytes.
        all_bytes: u64,
    },
    /// The disk is read and the image written.
    Reading {
        /// How much of the disk is decided, in bytes.
        done_bytes: u64,
        /// The size of the disk in bytes.
        disk_bytes: u64,
        /// The bytes of the payloads written so far.
        stored_bytes: u64,
    },
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReport {
    /// The id of the layer.
    pub layer: Hash,
    /// The manifest root of the image.
    pub root: Hash,
    /// The size of the disk in bytes.
    pub disk_bytes: u64,
    /// The grain in bytes.
    pub grain: u32,
    /// The block size in bytes.
    pub block: u32,
    /// How many blocks the layer has.
    pub blocks: u32,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Bytes of the disk that the parent already has there.
    pub absent_bytes: u64,
    /// Bytes of the disk whose content does not matter.
    pub unused_bytes: u64,
    /// Bytes of the disk that are fills, zeros above all.
    pub fill_bytes: u64,
    /// Bytes of the disk that repeat what is stored elsewhere.
    pub repeated_bytes: u64,
    /// Bytes that the layer stores, before packing.
    pub new_bytes: u64,
    /// The bytes of the layer's payloads.
    pub stored_bytes: u64,
    /// The length of the file.
    pub file_bytes: u64,
    /// What somebody should know: doubts about used space, sizes that were raised.
    pub notes: Vec<String>,
}
