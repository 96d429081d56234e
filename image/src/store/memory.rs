//! Layers in memory, for tests: a store without a file descriptor and without a folder.

use super::{LayerBytes, LayerStore};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Layers by path.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    layers: BTreeMap<PathBuf, Arc<Bytes>>,
}

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl MemoryStore {
    /// Puts a layer under `path`.
    pub(crate) fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.layers.insert(path.into(), Arc::new(Bytes(bytes)));
    }
}

impl LayerStore for MemoryStore {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerBytes>> {
        let layer = self.layers.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(layer) as Arc<dyn LayerBytes>)
    }

    fn beside(&self, path: &Path) -> Vec<PathBuf> {
        self.layers.keys().filter(|other| other.parent() == path.parent()).cloned().collect()
    }
}

impl LayerBytes for Bytes {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        crate::source::ReadAt::read_at(&self.0, offset, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateOptions, Image, ImageError, create};

    #[test]
    fn a_chain_opens_and_its_blocks_are_good_in_a_store_without_files() {
        let dir = tempfile::tempdir().unwrap();
        let [disk, base, child] = ["disk", "base.slide", "child.slide"].map(|name| dir.path().join(name));
        std::fs::write(&disk, &b"monday".repeat(100_000)[..512 << 10]).unwrap();
        create(&CreateOptions::new(&disk, &base), |_| ()).unwrap();
        std::fs::write(&disk, &b"tuesday".repeat(100_000)[..512 << 10]).unwrap();
        let options = CreateOptions { parent: Some(base.clone()), ..CreateOptions::new(&disk, &child) };
        create(&options, |_| ()).unwrap();
        let from_files = Image::open(&child).unwrap().root();

        let mut store = MemoryStore::default();
        store.put("images/child.slide", std::fs::read(&child).unwrap());
        let lost = Image::open_in(&store, Path::new("images/child.slide")).unwrap_err();
        assert!(matches!(lost, ImageError::ParentMissing { .. }), "{lost}");
        // The parent is found by its id, whatever its name is.
        store.put("images/renamed.slide", std::fs::read(&base).unwrap());
        let image = Image::open_in(&store, Path::new("images/child.slide")).unwrap();
        let resolved = image.resolve().unwrap();
        assert_eq!(resolved.root(), from_files);
        for block in 0..resolved.header().blocks {
            resolved.check_block(slidecast_proto::units::BlockNo(block)).unwrap();
        }
        assert!(resolved.layer(0).descriptor(0..1).is_none());
        assert!(Image::open_in(&store, Path::new("images/none.slide")).is_err());
    }
}
