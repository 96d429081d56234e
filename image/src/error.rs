//! Why an image could not be made, opened, checked or written out.

use crate::fit::FitError;
use crate::manifest::ManifestError;
use crate::source::ImportFault;
use core::fmt;
use slidecast_proto::units::Hash;
use std::io;
use std::path::PathBuf;

/// What was being done when the system reported an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening.
    Open,
    /// Creating.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Waiting until everything is on the disk.
    Flush,
    /// Giving the finished file its name.
    Rename,
    /// Starting a thread or a compressor.
    Start,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "opening",
            Self::Create => "creating",
            Self::Read => "reading",
            Self::Write => "writing",
            Self::Flush => "flushing",
            Self::Rename => "renaming",
            Self::Start => "starting work on",
        })
    }
}

/// What is wrong with a stored block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockFault {
    /// The header in front of the payload is not what the block table says.
    Header,
    /// The checksum of the payload.
    Crc,
    /// The payload does not unpack to the block's length.
    Unpack,
    /// The unpacked bytes are not those that were packed.
    Hash,
    /// The hash over the live grains.
    LiveHash,
    /// The hash of a grain.
    GrainHash,
}

impl fmt::Display for BlockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "its header is damaged",
            Self::Crc => "the checksum of the payload is wrong",
            Self::Unpack => "the payload does not unpack",
            Self::Hash => "the content is not what was stored",
            Self::LiveHash => "the newest layer has a wrong hash over its live grains",
            Self::GrainHash => "a grain is not what its hash says",
        })
    }
}

/// Why an image could not be made, opened, checked or written out.
#[derive(Debug)]
pub enum ImageError {
    /// The system refused an operation on a file or device.
    Io {
        /// The operation.
        operation: Operation,
        /// On which file or device.
        path: PathBuf,
        /// Where in it, where that means something.
        offset: Option<u64>,
        /// What the system said.
        error: io::Error,
    },
    /// The file is no SlideCast image.
    NotAnImage {
        /// Which file.
        path: PathBuf,
    },
    /// The file is an image of a version that this program does not read.
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The file was begun and never completed.
    Unfinished {
        /// Which file.
        path: PathBuf,
    },
    /// The file is shorter than it was made.
    Truncated {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length it was made with.
        expected: u64,
    },
    /// Some part of the file is not what was written.
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// Where it is.
        offset: u64,
    },
    /// A stored block is not what was written.
    Block {
        /// Which file.
        path: PathBuf,
        /// The number of the block in that file.
        block: u32,
        /// Where its header is.
        offset: u64,
        /// What is wrong.
        fault: BlockFault,
    },
    /// The manifest in the image cannot be one.
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: ManifestError,
    },
    /// The layers do not give the manifest that the newest one carries.
    ManifestDiffers {
        /// The newest layer.
        path: PathBuf,
        /// The root it carries.
        stored: Hash,
        /// The root its layers give.
        computed: Hash,
    },
    /// The parent of a layer is not beside it.
    ParentMissing {
        /// The layer.
        path: PathBuf,
        /// The id of its parent.
        parent: Hash,
        /// The name that the parent once had.
        name: String,
    },
    /// Under the name of the parent there is another layer, and the parent is nowhere beside the child.
    ParentReplaced {
        /// The layer.
        path: PathBuf,
        /// The file that has the name of its parent.
        parent_path: PathBuf,
        /// The id of its parent.
        wanted: Hash,
        /// The id of the layer in that file.
        found: Hash,
    },
    /// Layer and parent do not fit together.
    Chain {
        /// The layer.
        path: PathBuf,
        /// In what.
        what: &'static str,
    },
    /// A source of which no image can be made.
    Source {
        /// The source.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// Its logical sector in bytes.
        sector: u32,
        /// The rule that is broken.
        what: &'static str,
    },
    /// Two images that cannot be compared.
    Incomparable {
        /// The newer one.
        path: PathBuf,
        /// The older one.
        other: PathBuf,
        /// In what they differ.
        what: &'static str,
    },
    /// A disk that is not the parent's some time later.
    Unlike {
        /// The source.
        path: PathBuf,
        /// In what they differ.
        what: &'static str,
        /// The source's, in bytes.
        source: u64,
        /// The parent's, in bytes.
        parent: u64,
    },
    /// A file that cannot be the parent of an image.
    Parent {
        /// Which file.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A size that was asked for and that no image can have.
    Size {
        /// The rule that is broken.
        what: &'static str,
    },
    /// A child keeps the sizes of its parent.
    Inherited {
        /// Which size.
        what: &'static str,
        /// The parent's, in bytes.
        parent: u64,
        /// The one asked for, in bytes.
        asked: u64,
    },
    /// The output cannot be that file.
    Output {
        /// Which file.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// The image would have more blocks, layers or extents than a file may have.
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// The destination cannot take the disk.
    Destination {
        /// Which device.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// Its logical sector in bytes.
        sector: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// The partition table does not fit the destination.
    Table {
        /// The destination.
        path: PathBuf,
        /// Why not.
        error: FitError,
    },
    /// There is surely no room for a new file.
    NoRoom {
        /// Which file.
        path: PathBuf,
        /// The room on its file system, in bytes.
        free: u64,
        /// The least that is needed, in bytes.
        least: u64,
    },
    /// The source was written to while it was read.
    Changed {
        /// Which file or device.
        path: PathBuf,
        /// What of it changed: its size or its content.
        what: &'static str,
    },
    /// A file that holds a disk in another format, where a raw one was expected.
    Container {
        /// Which file.
        path: PathBuf,
        /// The format.
        format: &'static str,
    },
    /// A disk in another format that cannot be read.
    Import {
        /// Which file.
        path: PathBuf,
        /// What it is.
        format: &'static str,
        /// What is wrong with it, or not read here.
        fault: ImportFault,
    },
    /// What was written reads back as something else.
    ReadBack {
        /// From which file or device.
        path: PathBuf,
        /// Where it begins to differ, to a megabyte.
        offset: u64,
    },
    /// A worker thread ended without a result: a bug.
    Worker,
}

impl ImageError {
    /// Whether the call was wrong, rather than a file or the system.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::Inherited { .. } | Self::Output { .. })
    }

    /// Turns an error of the system into ours.
    pub(crate) fn io(
        operation: Operation,
        path: impl Into<PathBuf>,
        offset: impl Into<Option<u64>>,
    ) -> impl FnOnce(io::Error) -> Self {
        let (path, offset) = (path.into(), offset.into());
        move |error| Self::Io { operation, path, offset, error }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, path, offset, error } => {
                write!(f, "{operation} {}", path.display())?;
                if let Some(offset) = offset {
                    write!(f, " at {offset}")?;
                }
                // The standard library tells of its own buffer here.
                let ended = error.kind() == io::ErrorKind::UnexpectedEof;
                if ended { f.write_str(": it ends there") } else { write!(f, ": {error}") }
            }
            Self::NotAnImage { path } => write!(f, "{}: not a SlideCast image", path.display()),
            Self::Version { path, version } => {
                write!(f, "{}: an image of version {version}, which this program does not read", path.display())
            }
            Self::Unfinished { path } => write!(f, "{}: the image was begun but never completed", path.display()),
            Self::Truncated { path, bytes, expected } => {
                write!(f, "{}: truncated: {bytes} of {expected} bytes", path.display())
            }
            Self::Damaged { path, what, offset } => write!(f, "{}: damaged {what} at {offset}", path.display()),
            Self::Block { path, block, offset, fault } => {
                write!(f, "{}: block {block} at {offset}: {fault}", path.display())
            }
            Self::Manifest { path, error } => write!(f, "{}: {error}", path.display()),
            Self::ManifestDiffers { path, stored, computed } => {
                write!(f, "{}: the layers give manifest {computed}, the image carries {stored}", path.display())
            }
            Self::ParentMissing { path, parent, name } => {
                write!(f, "{}: its parent {name:?} ({parent}) is not beside it", path.display())
            }
            Self::ParentReplaced { path, parent_path, wanted, found } => {
                let (path, parent_path) = (path.display(), parent_path.display());
                write!(f, "{path}: its parent is layer {wanted}, but {parent_path} is layer {found}")
            }
            Self::Chain { path, what } => write!(f, "{}: layer and parent differ in {what}", path.display()),
            Self::Source { path, bytes, sector, what } => {
                write!(f, "{} ({bytes} bytes, sectors of {sector}): {what}", path.display())
            }
            Self::Incomparable { path, other, what } => {
                write!(f, "{} and {} cannot be compared: they differ in {what}", path.display(), other.display())
            }
            Self::Unlike { path, what, source, parent } => {
                let path = path.display();
                write!(f, "{path}: its {what} is {source} bytes, that of the disk of the parent is {parent}")
            }
            Self::Parent { path, what } => write!(f, "{} cannot be a parent: {what}", path.display()),
            Self::Size { what } => f.write_str(what),
            Self::Inherited { what, parent, asked } => {
                write!(f, "the {what} of a parent is kept: {parent} bytes, not {asked}")
            }
            Self::Output { path, what } => write!(f, "{} cannot be the output: {what}", path.display()),
            Self::TooMany { what } => write!(f, "the image would have too many {what}"),
            Self::Destination { path, bytes, sector, what } => {
                write!(f, "{} ({bytes} bytes, sectors of {sector}): {what}", path.display())
            }
            Self::Table { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NoRoom { path, free, least } => write!(
                f,
                "{}: there is no room for it: its file system has {free} bytes left, and at least {least} are needed; \
                 nothing was written",
                path.display()
            ),
            Self::Changed { path, what: "size" } => write!(
                f,
                "{}: its size changed while it was read, and no image was made; try again when it is at rest",
                path.display()
            ),
            Self::Changed { path, what } => write!(
                f,
                "{}: its {what} changed while it was read, and no image was made; try again when it is at rest, or \
                 give --allow-changes for a mixture of older and newer content",
                path.display()
            ),
            Self::Container { path, format } => {
                let first = match *format {
                    crate::container::OURS => "write its disk to a file first (slidecast image export)",
                    _ => "unpack or convert it first (qemu-img convert -O raw)",
                };
                let path = path.display();
                write!(
                    f,
                    "{path}: it is a {format} file and no raw disk; {first}, or give --format raw to image the file's own bytes"
                )
            }
            Self::Import { path, format, fault } => write!(f, "{} ({format}): {fault}", path.display()),
            Self::ReadBack { path, offset } => {
                write!(f, "{}: what was written at {offset} reads back as something else", path.display())
            }
            Self::Worker => f.write_str("a worker thread ended without a result"),
        }
    }
}

impl std::error::Error for ImageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } if error.kind() != io::ErrorKind::UnexpectedEof => Some(error),
            Self::Manifest { error, .. } => Some(error),
            Self::Import { fault, .. } => Some(fault),
            _ => None,
        }
    }
}
