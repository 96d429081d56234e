//! The only place with unsafe code: memory maps, and the system calls of block devices, terminals and network cards.
//!
//! Everything here gives a safe interface; nothing here decides anything.

pub(crate) mod blkdev;
mod memory;
mod mirror_map;
pub(crate) mod packet;
pub(crate) mod rtnetlink;
pub(crate) mod tty;

pub(crate) use memory::AlignedBuf;
pub(crate) use mirror_map::MapError;
pub(crate) use mirror_map::Piece;
