//! An image: the newest layer and all its parents, opened and checked.

use crate::error::{ImageError, Operation};
use crate::format::Section;
use crate::layer::{Layer, LiveHash, read_superblock, superblock_of};
use crate::manifest::ManifestHeader;
use crate::report::Report;
use crate::resolved::Resolved;
use crate::store::{LayerStore, LocalFiles};
use slidecast_proto::units::Hash;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// An image, open: a layer with the whole chain of its parents.
#[derive(Debug)]
pub struct Image {
    /// The base first.
    layers: Vec<Layer>,
    live: Vec<LiveHash>,
    manifest: Vec<u8>,
    header: ManifestHeader,
    extents: u64,
}

/// One layer of an image, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its file.
    pub path: PathBuf,
    /// Its id.
    pub id: Hash,
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// The size of the disk in bytes when the layer was made.
    pub disk_bytes: u64,
    /// How many blocks the file holds.
    pub blocks: u32,
    /// The bytes of its payloads.
    pub stored_bytes: u64,
    /// The bytes of its blocks, unpacked.
    pub raw_bytes: u64,
}

impl Image {
    /// Opens the image whose newest layer is at `path`. Parents are found in the same folder: under the name they had
    /// when the child was made, or else by their id among all `.slide` files.
    ///
    /// Every byte that is needed before the first block is served is checked; the blocks themselves are not read.
    ///
    /// # Errors
    /// [`ImageError`] naming the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::open_in(&LocalFiles, path)
    }

    /// Opens the image whose newest layer is at `path` of `store`, as [`Image::open`] does among local files.
    ///
    /// # Errors
    /// [`ImageError`] naming the layer and what is wrong with it.
    pub fn open_in(store: &dyn LayerStore, path: &Path) -> Result<Self, ImageError> {
        let mut layers = vec![Layer::open(store, path)?];
        while let Some(child) = layers.last().filter(|layer| layer.core.superblock.depth > 0) {
            let parent = find_parent(store, child)?;
            let (young, old) = (&child.core.superblock, &parent.core.superblock);
            let agree = [
                (old.depth + 1 == young.depth, "depth"),
                (old.sector == young.sector, "sector"),
                (old.grain == young.grain, "grain"),
                (old.block == young.block, "block size"),
            ];
            if let Some((_, what)) = agree.into_iter().find(|(same, _)| !same) {
                return Err(ImageError::Chain { path: child.core.path.clone(), what });
            }
            layers.push(parent);
        }
        layers.reverse();
        let stored: Vec<_> = layers.iter().map(|layer| layer.core.superblock.stored_grains).collect();
        let blocks: Vec<_> = layers.iter().map(|layer| layer.core.superblock.stored_blocks()).collect();
        let (mut extents, mut parent_grains) = (0, 0);
        for (depth, layer) in layers.iter().enumerate() {
            extents += layer.check_extents(parent_grains, &stored[..=depth])?;
            parent_grains = layer.core.superblock.disk_grains();
        }
        let Some(newest) = layers.last() else { return Err(ImageError::NotAnImage { path: path.into() }) };
        let live = newest.read_live(&blocks[..blocks.len() - 1])?;
        let manifest = newest.read_manifest()?;
        let header = ManifestHeader::parse(&manifest)
            .map_err(|error| ImageError::Manifest { path: newest.core.path.clone(), error })?;
        Ok(Self { layers, live, manifest, header, extents })
    }

    /// Merges the layers newest first into the numbered blocks of the disk. The manifest is computed anew and must be
    /// the one that the newest layer carries.
    ///
    /// # Errors
    /// [`ImageError::ManifestDiffers`] if it is not; [`ImageError::TooMany`] beyond the limits of a manifest.
    pub fn resolve(&self) -> Result<Resolved, ImageError> {
        let newest = self.newest();
        let live = |layer, block, _: &mut dyn Iterator<Item = _>| {
            let found = self.live.binary_search_by_key(&(layer, block), LiveHash::key);
            found.map(|at| self.live[at].hash).map_err(|_| newest.core.damaged("live hashes", 0))
        };
        let resolved = Resolved::merge(&self.layers, live)?;
        if resolved.header_bytes() != self.manifest {
            return Err(ImageError::ManifestDiffers {
                path: newest.core.path.clone(),
                stored: ManifestHeader::root(&self.manifest),
                computed: resolved.root(),
            });
        }
        Ok(resolved)
    }

    /// The manifest header that the newest layer carries.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The manifest root that the newest layer carries; [`Image::resolve`] proves it.
    #[must_use]
    pub fn root(&self) -> Hash {
        ManifestHeader::root(&self.manifest)
    }

    /// The layers, the base first.
    pub fn layers(&self) -> impl Iterator<Item = LayerInfo> + '_ {
        self.layers.iter().map(|layer| {
            let superblock = &layer.core.superblock;
            LayerInfo {
                path: layer.core.path.clone(),
                id: superblock.layer,
                file_bytes: superblock.file_bytes(),
                disk_bytes: superblock.disk_bytes,
                blocks: superblock.stored_blocks(),
                stored_bytes: layer.core.rows.iter().map(|row| u64::from(row.stored_len())).sum(),
                raw_bytes: superblock.stored_grains * u64::from(superblock.grain),
            }
        })
    }

    /// How many extents the maps of all layers have.
    #[must_use]
    pub fn extents(&self) -> u64 {
        self.extents
    }

    pub(crate) fn chain(&self) -> &[Layer] {
        &self.layers
    }

    pub(crate) fn into_chain(self) -> Vec<Layer> {
        self.layers
    }

    pub(crate) fn live(&self) -> &[LiveHash] {
        &self.live
    }

    /// What `create` found on the disk when the newest layer was made.
    pub(crate) fn report(&self) -> Result<Report, ImageError> {
        let newest = self.newest();
        let offset = newest.section(Section::Report).offset;
        Report::parse(&newest.read_report()?).map_err(|_| newest.core.damaged(Section::Report.name(), offset))
    }

    pub(crate) fn newest(&self) -> &Layer {
        &self.layers[self.layers.len() - 1]
    }
}

/// Finds and opens the parent of `child` beside it.
fn find_parent(store: &dyn LayerStore, child: &Layer) -> Result<Layer, ImageError> {
    let (superblock, path) = (&child.core.superblock, &child.core.path);
    let wanted = superblock.parent;
    let plain_name = Path::new(&superblock.parent_name).components().count() == 1;
    let named = store.named(path, &superblock.parent_name);
    let mut replaced = None;
    if plain_name {
        let found = match store.open(&named) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => None,
            Err(error) => Some(Err(ImageError::io(Operation::Open, &named, None)(error))),
            Ok(layer) => Some(superblock_of(&*layer, &named).map(|superblock| (layer, superblock))),
        };
        match found {
            None => {}
            Some(Ok((layer, found))) if found.layer == wanted => return Layer::of(&named, layer, found),
            Some(other) => replaced = Some(other.map(|(_, found)| found.layer)),
        }
    }
    let found = store.beside(path).into_iter().find_map(|path| {
        let (layer, superblock) = read_superblock(store, &path).ok()?;
        (superblock.layer == wanted).then_some((path, layer, superblock))
    });
    match (found, replaced) {
        (Some((path, layer, superblock)), _) => Layer::of(&path, layer, superblock),
        (None, Some(Ok(found))) => {
            Err(ImageError::ParentReplaced { path: path.clone(), parent_path: named, wanted, found })
        }
        // The parent may be there and be damaged: that says more than that it is missing.
        (None, Some(Err(error))) => Err(error),
        (None, None) => {
            Err(ImageError::ParentMissing { path: path.clone(), parent: wanted, name: superblock.parent_name.clone() })
        }
    }
}
