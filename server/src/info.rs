//! `slidecast image info`: what an image holds, for people and for programs.

use crate::shown::shown;
use serde::Serialize;
use slidecast_image::{Image, ImageError};
use slidecast_proto::quantity::Bytes;
use std::io::{self, Write};
use std::path::Path;

/// What an image holds. The keys of `--json` are these, and only ever grow in number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageInfo {
    /// The file, as it was given.
    pub file: String,
    /// The manifest root: what is signed, and what agents check against.
    pub root: String,
    /// The size of the disk in bytes.
    pub disk_bytes: u64,
    /// The logical sector of the disk in bytes.
    pub sector: u32,
    /// The grain in bytes.
    pub grain: u32,
    /// The most bytes of a block.
    pub block: u32,
    /// The partition table: none, MBR or GPT.
    pub table: String,
    /// How many blocks a node gets, fills included.
    pub blocks: u32,
    /// How many of them have a payload.
    pub stored_blocks: u32,
    /// Bytes of all places of one target, fills included.
    pub raw_bytes: u64,
    /// Bytes of the payloads that a node gets.
    pub stored_bytes: u64,
    /// `raw_bytes` for each of `stored_bytes`; 0 if nothing is stored.
    pub ratio: f64,
    /// How many extents the maps of all layers have.
    pub extents: u64,
    /// The layers, the base first.
    pub layers: Vec<LayerInfo>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// Its file.
    pub file: String,
    /// Its id.
    pub id: String,
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// How many blocks it stores.
    pub blocks: u32,
    /// Bytes of its payloads.
    pub stored_bytes: u64,
    /// Bytes of its blocks, unpacked.
    pub raw_bytes: u64,
}

impl ImageInfo {
    /// Looks at the image whose newest layer is at `path`.
    ///
    /// # Errors
    /// [`ImageError`]: it is no image, or not a good one.
    pub fn of(path: &Path) -> Result<Self, ImageError> {
        let image = Image::open(path)?;
        let resolved = image.resolve()?;
        let header = resolved.header();
        let layers = image.layers().map(|layer| LayerInfo {
            file: layer.path.display().to_string(),
            id: layer.id.to_string(),
            file_bytes: layer.file_bytes,
            blocks: layer.blocks,
            stored_bytes: layer.stored_bytes,
            raw_bytes: layer.raw_bytes,
        });
        Ok(Self {
            file: path.display().to_string(),
            root: resolved.root().to_string(),
            disk_bytes: header.disk_bytes,
            sector: header.sector,
            grain: header.grain,
            block: header.block,
            table: header.table.to_string(),
            blocks: header.blocks,
            stored_blocks: header.stored_blocks,
            raw_bytes: header.raw_bytes,
            stored_bytes: resolved.stored_bytes(),
            ratio: ratio(header.raw_bytes, resolved.stored_bytes()),
            extents: image.extents(),
            layers: layers.collect(),
        })
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// What the system says of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (disk, raw, stored) = (Bytes(self.disk_bytes), Bytes(self.raw_bytes), Bytes(self.stored_bytes));
        writeln!(out, "{}", shown(&self.file))?;
        writeln!(
            out,
            "  disk     {disk} ({} bytes), sectors of {} bytes, table: {}",
            self.disk_bytes, self.sector, self.table
        )?;
        writeln!(out, "  used     {raw}, fills included; sent as {stored} ({:.2} to 1)", self.ratio)?;
        let (blocks, fills) = (self.blocks, self.blocks - self.stored_blocks);
        let (block, grain) = (Bytes(self.block.into()), Bytes(self.grain.into()));
        writeln!(out, "  blocks   {blocks} of at most {block} in grains of {grain}; {fills} of them fills")?;
        writeln!(out, "  extents  {}", self.extents)?;
        writeln!(out, "  root     {}", self.root)?;
        for (number, layer) in (1..).zip(&self.layers) {
            let (file, stored, raw) = (Bytes(layer.file_bytes), Bytes(layer.stored_bytes), Bytes(layer.raw_bytes));
            let name = shown(&layer.file);
            writeln!(
                out,
                "  layer {number}  {name}: {} blocks, {raw} stored in {stored}; the file has {file}",
                layer.blocks
            )?;
            writeln!(out, "           id {}", layer.id)?;
        }
        Ok(())
    }
}

fn ratio(raw: u64, stored: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "two decimals for people")]
    let ratio = raw as f64 / stored.max(1) as f64;
    if stored == 0 { 0.0 } else { (ratio * 100.0).round() / 100.0 }
}
