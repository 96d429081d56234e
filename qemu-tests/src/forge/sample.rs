//! The frames that an image comes as.

use std::path::Path;

use slidecast_image::Image;
use slidecast_proto::frame::{Header, Kind};
use slidecast_proto::units::{BlockNo, DeploymentId, Hash, PartNo};

use crate::error::{LabError, Result};

/// An image, taken apart.
#[derive(Debug)]
pub(super) struct Sample {
    /// The manifest's root.
    pub root: Hash,
    /// The manifest's header.
    pub header: Vec<u8>,
    /// Its parts.
    pub parts: Vec<Vec<u8>>,
    /// Headers and payloads of the blocks that are stored.
    pub blocks: Vec<(Header, Vec<u8>)>,
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Bytes of a block.
    pub block: u32,
    /// Bytes of a grain.
    pub grain: u32,
    /// Bytes of a sector.
    pub sector: u32,
    /// How many blocks there are.
    pub count: u32,
}

impl Sample {
    /// Reads an image.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let unable = |error: slidecast_image::ImageError| LabError::Unable { why: error.to_string() };
        let image = Image::open(path).and_then(|image| image.resolve()).map_err(unable)?;
        let shape = image.header();
        let (count, parts) = (shape.blocks, u32::try_from(shape.shape().parts.len()).expect("at most 65,536 parts"));
        let mut blocks = Vec::new();
        for block in (0..count).map(BlockNo) {
            let Some(stored) = image.stored(block) else { continue };
            let mut payload = vec![0; stored.stored_len as usize];
            let layer = image.layer(stored.layer);
            layer.read_at(stored.offset, &mut payload).map_err(LabError::io("reading", path))?;
            let header = Header {
                codec: stored.codec as u8,
                raw_len: stored.raw_len,
                ..Header::with_payload(Kind::Block, DeploymentId([0; 16]), block.0, &payload)
            };
            blocks.push((header, payload));
        }
        Ok(Self {
            root: image.root(),
            header: image.header_bytes().to_vec(),
            parts: (0..parts).map(|part| image.part_bytes(PartNo(part))).collect(),
            blocks,
            disk_bytes: shape.disk_bytes,
            block: shape.block,
            grain: shape.grain,
            sector: shape.sector,
            count,
        })
    }
}
