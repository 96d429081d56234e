//! The readers against the programs that made the file systems.

mod ext;
mod fat;
mod flips;
mod ntfs;
mod oracle;
mod swap;
mod whole_disk;
