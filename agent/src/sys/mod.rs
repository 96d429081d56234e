//! The only place with unsafe code: memory maps and the system calls of block devices.
//!
//! Everything here gives a safe interface; nothing here decides anything.

mod mirror_map;
mod socket;

pub use mirror_map::MapError;
pub(crate) use mirror_map::Piece;
pub(crate) use socket::bound_unsent;
