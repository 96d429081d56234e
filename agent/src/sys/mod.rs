//! The only place with unsafe code: memory maps and the system calls of block devices.
//!
//! Everything here gives a safe interface; nothing here decides anything.

mod mirror_map;

pub use mirror_map::MapError;
pub(crate) use mirror_map::Piece;
