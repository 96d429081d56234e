//! What is wrong with a file that holds a disk, or with what it asks for.

use core::fmt;
use std::io;
use std::path::PathBuf;

/// Why the disk in a file cannot be read.
#[derive(Debug)]
pub enum ImportFault {
    /// The system could not read a file.
    Io {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What the system said.
        error: io::Error,
    },
    /// The file ends before something that it says it has.
    Cut {
        /// What of the file.
        what: &'static str,
        /// Where in the file that should be.
        offset: u64,
    },
    /// Something in the file cannot be right.
    Damaged {
        /// What of the file.
        what: &'static str,
        /// Where in the file it is.
        offset: u64,
    },
    /// The format has it, and it is not read here.
    Unsupported {
        /// What the file has.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Another file that this one names.
    Named {
        /// What the other file is to this one.
        what: &'static str,
        /// Its name, as it stands in this one.
        name: String,
        /// Why it is not read.
        why: &'static str,
    },
    /// The volume group that a text is of cannot be made anew.
    Group {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// A snapshot that the file does not have.
    NoSnapshot {
        /// The name that was asked for.
        asked: String,
        /// The names of those that it has.
        has: Vec<String>,
    },
    /// A folder has the files of no program that saves disks.
    NoFolder,
    /// A folder has several disks, or none of the name that was asked for.
    Disks {
        /// What was asked for.
        asked: Option<String>,
        /// The names of those that there are.
        has: Vec<String>,
    },
    /// A disk of a folder was asked for, and this is a file.
    OneDisk,
    /// A partition table was given for something that is no partition.
    NoTable,
    /// A partition that was asked for, or none, while the image may be of several of these or fits none.
    Partition {
        /// What was asked for.
        asked: Option<u32>,
        /// The size of the partition that it was made of, in bytes.
        bytes: u64,
        /// The partitions of the table that are as large.
        fits: Vec<u32>,
    },
    /// A table of the file is larger than any that is read.
    TooLarge {
        /// Which table.
        what: &'static str,
    },
    /// Something does not have the checksum that was recorded of it.
    Differs {
        /// What it is to the file with the checksum.
        what: &'static str,
        /// Where in it that begins.
        offset: u64,
    },
    /// The file as a whole does not unpack.
    Stream {
        /// What the unpacker said.
        error: io::Error,
    },
    /// The packed bytes do not unpack.
    Unpack {
        /// What they should be.
        what: &'static str,
        /// Where in the file they begin.
        offset: u64,
    },
}

/// What to do with a file of which only `qemu-img` makes something.
pub(super) const CONVERT: &str = "convert it first: qemu-img convert -O qcow2";

impl fmt::Display for ImportFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, offset, error } => write!(f, "reading {} at {offset}: {error}", path.display()),
            Self::Cut { what, offset } => write!(f, "the file ends before its {what} at {offset}: it was cut short"),
            Self::Damaged { what, offset } => write!(f, "its {what} at {offset} cannot be right: it is damaged"),
            Self::Unsupported { what, remedy } => write!(f, "it has {what}, which is not read; {remedy}"),
            Self::Named { what, name, why } => write!(f, "its {what} {name:?} {why}"),
            Self::Group { name, why } => {
                write!(
                    f,
                    "the volume group {name:?} in it cannot be made anew: {why}; restore it with Clonezilla, and image the disk"
                )
            }
            Self::NoSnapshot { asked, has } if has.is_empty() => {
                write!(f, "it has no snapshot {asked:?}, nor any other")
            }
            Self::NoSnapshot { asked, has } => {
                write!(f, "it has no snapshot {asked:?}; it has {}", has.join(", "))
            }
            Self::NoFolder => f.write_str("it has none of the files that a folder of Clonezilla or FOG has"),
            Self::Disks { has, .. } if has.is_empty() => f.write_str("there is no partition table of any disk in it"),
            Self::Disks { asked: Some(asked), has } => {
                write!(f, "it has no disk {asked:?}; it has {}", has.join(", "))
            }
            Self::Disks { has, .. } => write!(f, "it has several disks ({}): say which, --disk NAME", has.join(", ")),
            Self::OneDisk => f.write_str("it is one disk: --disk is for a folder of Clonezilla or FOG with several"),
            Self::NoTable => f.write_str("it is no image of a partition, so that no partition table goes with it"),
            Self::Partition { asked: Some(asked), bytes, .. } => {
                write!(
                    f,
                    "it is of a partition of {bytes} bytes, and the table has no partition {asked} with so much room"
                )
            }
            Self::Partition { bytes, fits, .. } if fits.is_empty() => {
                write!(f, "it is of a partition of {bytes} bytes, and the table has none with so much room")
            }
            Self::Partition { bytes, fits, .. } => {
                let fits = fits.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "it is of a partition of {bytes} bytes and fits partitions {fits} of the table: say which, --partition N"
                )
            }
            Self::TooLarge { what } => write!(f, "its {what} is larger than any that is read"),
            Self::Differs { what, offset } => {
                write!(
                    f,
                    "{what} has another checksum at {offset} than the one recorded: one of both was changed or is damaged"
                )
            }
            Self::Stream { error } if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it ends in the middle: it was cut short, or something else was added to its end")
            }
            Self::Stream { error } => write!(f, "it does not unpack ({error}): it is damaged"),
            Self::Unpack { what, offset } => write!(f, "its packed {what} at {offset} does not unpack: it is damaged"),
        }
    }
}

impl std::error::Error for ImportFault {}

impl From<ImportFault> for io::Error {
    fn from(fault: ImportFault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}
