//! The layered, deduplicated image file: making it, resolving its layers, checking it, writing it out.
//!
//! A layer is one `.slide` file (`docs/IMAGE.md` has its bytes). A chain of layers, resolved newest first, gives a
//! [`manifest`]: the numbered blocks of the disk, each with every place it belongs to.
#![forbid(unsafe_code)]

mod backup_table;
mod be;
mod chain;
pub mod codec;
mod container;
pub mod create;
pub mod diff;
pub mod disk;
pub mod error;
pub mod export;
mod extent;
pub mod fit;
mod format;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod info;
mod layer;
mod le;
pub mod manifest;
mod part;
mod passing;
pub mod recent;
mod report;
mod resolve;
mod resolved;
mod room;
mod sector;
pub mod signatures;
pub mod source;
pub mod store;
mod table;
#[cfg(test)]
mod testing;
pub mod used;
mod varint;
pub mod verify;
mod work;

pub use chain::{Image, LayerInfo};
pub use create::{CreateOptions, CreateProgress, CreateReport, create, create_from, create_layers};
pub use error::ImageError;
pub use export::{ExportOptions, ExportProgress, ExportReport, export, export_image};
pub use info::{ImageInfo, LayerRow, info, info_of};
pub use report::PartitionInfo;
pub use resolved::{Resolved, StoredRef};
pub use verify::{VerifyProgress, VerifyReport, verify, verify_image, verify_quick};
