//! The only place with unsafe code: memory maps and the system calls of block devices.
//!
//! Everything here gives a safe interface; nothing here decides anything.

pub(crate) mod blkdev;
mod memory;
mod mirror_map;
mod socket;

pub(crate) use memory::AlignedBuf;
pub use mirror_map::MapError;
pub(crate) use mirror_map::Piece;
pub(crate) use socket::bound_unsent;
