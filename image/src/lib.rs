//! The layered, deduplicated image file: making it, resolving its layers, checking it, writing it out.
//!
//! A layer is one `.slide` file (`docs/IMAGE.md` has its bytes). A chain of layers, resolved newest first, gives a
//! [`manifest`]: the numbered blocks of the disk, each with every place it belongs to.
#![forbid(unsafe_code)]

mod chain;
pub mod codec;
pub mod error;
mod extent;
pub mod fit;
mod format;
mod layer;
mod le;
pub mod manifest;
mod part;
mod resolve;
mod resolved;
pub mod source;
mod table;
#[cfg(test)]
mod testing;
mod varint;

pub use chain::{Image, LayerInfo};
pub use error::ImageError;
pub use resolved::{Resolved, StoredRef};
