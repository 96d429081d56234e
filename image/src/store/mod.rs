//! Where layers lie. A store opens a layer by its path and names the layers beside it; what it opens is read at any place.
//!
//! Local files ([`LocalFiles`]) are one store. Another one is a type with the two traits below, given to
//! [`Image::open_in`](crate::Image::open_in).

mod local;
#[cfg(test)]
mod memory;

pub(crate) use local::LocalFile;
pub use local::LocalFiles;

use crate::error::ImageError;
use crate::layer::superblock_of;
use core::fmt::Debug;
use core::ops::Range;
use slidecast_proto::units::Hash;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The id of the layer with these bytes, whose beginning and length are right. `path` is named in errors.
///
/// # Errors
/// [`ImageError`] if they are no layer.
pub fn layer_id(layer: &dyn LayerBytes, path: &Path) -> Result<Hash, ImageError> {
    superblock_of(layer, path).map(|superblock| superblock.layer)
}

/// Where a layer is among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerLink {
    /// Its id.
    pub id: Hash,
    /// The id of the layer that it is an increment of.
    pub parent: Option<Hash>,
    /// How many layers are below it.
    pub depth: u32,
}

/// Which layer these bytes are, and which one it is an increment of. `path` is named in errors.
///
/// # Errors
/// [`ImageError`] if they are no layer.
pub fn layer_link(layer: &dyn LayerBytes, path: &Path) -> Result<LayerLink, ImageError> {
    let superblock = superblock_of(layer, path)?;
    let (id, depth) = (superblock.layer, superblock.depth);
    Ok(LayerLink { id, depth, parent: (depth > 0).then_some(superblock.parent) })
}

/// A place that has layers, each under a path.
pub trait LayerStore: Debug {
    /// Opens the layer at `path`.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::InvalidInput`] for what cannot be a layer, such as a folder.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerBytes>>;

    /// The paths of the layers that lie beside `path`, in a fixed order. A parent that has another name now is looked for
    /// among them.
    fn beside(&self, path: &Path) -> Vec<PathBuf>;

    /// The path of the layer that is called `name` and lies beside `path`.
    fn named(&self, path: &Path, name: &str) -> PathBuf {
        path.with_file_name(name)
    }
}

/// An open layer: bytes that several threads read at any place.
pub trait LayerBytes: Debug + Send + Sync {
    /// The length in bytes when it was opened.
    fn bytes(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The error of the store; [`io::ErrorKind::UnexpectedEof`] beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Says that `range` will be read soon. Only advice: a store may do nothing.
    fn prefetch(&self, _range: Range<u64>) {}

    /// A file descriptor that has the bytes of `range` at the same offsets, for sendfile(2). Where there is none they are read and sent.
    fn descriptor(&self, _range: Range<u64>) -> Option<BorrowedFd<'_>> {
        None
    }
}
