//! What an image is, for people and for programs.

use crate::chain::Image;
use crate::error::ImageError;
use crate::report::PartitionInfo;
use core::fmt;
use serde::Serialize;
use std::path::Path;

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Its file.
    pub file: String,
    /// Its id.
    pub id: String,
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// The size of the disk when it was made.
    pub disk_bytes: u64,
    /// How many blocks it stores.
    pub blocks: u32,
    /// The bytes of its payloads.
    pub stored_bytes: u64,
    /// The bytes of its blocks, unpacked.
    pub raw_bytes: u64,
    /// `raw_bytes / stored_bytes`.
    pub ratio: f64,
}

/// What an image is. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageInfo {
    /// The file of the newest layer.
    pub image: String,
    /// The id of the newest layer.
    pub layer: String,
    /// The manifest root.
    pub root: String,
    /// The size of the disk.
    pub disk_bytes: u64,
    /// The logical sector of the disk.
    pub sector: u32,
    /// The grain.
    pub grain: u32,
    /// The block size.
    pub block: u32,
    /// How many blocks one target gets, fills included.
    pub blocks: u32,
    /// How many of them have a payload.
    pub stored_blocks: u32,
    /// The runs of grains that these blocks are cut into.
    pub places: u64,
    /// What is written to one target, fills included.
    pub raw_bytes: u64,
    /// What is sent for one target.
    pub stored_bytes: u64,
    /// `raw_bytes / stored_bytes`.
    pub ratio: f64,
    /// The kind of partition table.
    pub table: String,
    /// The layers, the base first.
    pub layers: Vec<LayerRow>,
    /// What the disk is partitioned into.
    pub partitions: Vec<PartitionInfo>,
    /// What somebody should know about the disk.
    pub notes: Vec<String>,
}

/// Opens and resolves the image at `path` and says what it is.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it.
pub fn info(path: &Path) -> Result<ImageInfo, ImageError> {
    info_of(&Image::open(path)?)
}

/// Resolves `image` and says what it is.
///
/// # Errors
/// [`ImageError`] naming the file and what is wrong with it.
pub fn info_of(image: &Image) -> Result<ImageInfo, ImageError> {
    let resolved = image.resolve()?;
    let header = resolved.header();
    let report = image.report()?;
    let layers = image.layers().map(|layer| LayerRow {
        file: layer.path.display().to_string(),
        id: layer.id.to_string(),
        file_bytes: layer.file_bytes,
        disk_bytes: layer.disk_bytes,
        blocks: layer.blocks,
        stored_bytes: layer.stored_bytes,
        raw_bytes: layer.raw_bytes,
        ratio: ratio(layer.raw_bytes, layer.stored_bytes),
    });
    Ok(ImageInfo {
        image: image.newest().core.path.display().to_string(),
        layer: header.layer.to_string(),
        root: resolved.root().to_string(),
        disk_bytes: header.disk_bytes,
        sector: header.sector,
        grain: header.grain,
        block: header.block,
        blocks: header.blocks,
        stored_blocks: header.stored_blocks,
        places: resolved.pieces(),
        raw_bytes: header.raw_bytes,
        stored_bytes: resolved.stored_bytes(),
        ratio: ratio(header.raw_bytes, resolved.stored_bytes()),
        table: header.table.to_string(),
        layers: layers.collect(),
        partitions: report.partitions,
        notes: report.notes,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(raw: u64, stored: u64) -> f64 {
    if stored == 0 { 0.0 } else { raw as f64 / stored as f64 }
}

/// A number of bytes with three digits and a unit.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    #[expect(clippy::cast_precision_loss, reason = "three digits for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
        let mut unit = units.next().unwrap_or("B");
        while value >= 1000.0
            && let Some(next) = units.next()
        {
            (value, unit) = (value / 1024.0, next);
        }
        let digits = usize::from(unit != "B" && value < 100.0) + usize::from(unit != "B" && value < 10.0);
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

/// How much smaller something became, where there was something.
struct Ratio(f64);

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0.0 { write!(f, " ({:.2} to 1)", self.0) } else { Ok(()) }
    }
}

/// A text from a file in one line: characters that act on a terminal, line ends above all, are shown as escapes.
pub(crate) fn one_line(text: &str) -> String {
    let acts = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    text.chars().map(|c| if acts(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

impl fmt::Display for ImageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "image     {}", one_line(&self.image))?;
        writeln!(f, "disk      {} ({} bytes), sectors of {}", Size(self.disk_bytes), self.disk_bytes, self.sector)?;
        writeln!(f, "table     {}", self.table)?;
        writeln!(f, "written   {} to each target", Size(self.raw_bytes))?;
        writeln!(f, "sent      {}{}", Size(self.stored_bytes), Ratio(self.ratio))?;
        let (block, grain) = (Size(self.block.into()), Size(self.grain.into()));
        writeln!(f, "blocks    {} of {block}, {} of them fills", self.blocks, self.blocks - self.stored_blocks)?;
        writeln!(f, "places    {} runs of {grain} grains", self.places)?;
        writeln!(f, "manifest  {}", self.root)?;
        writeln!(f, "layers, the base first:")?;
        for layer in &self.layers {
            let (stored, raw) = (Size(layer.stored_bytes), Size(layer.raw_bytes));
            let id = layer.id.get(..16).unwrap_or(&layer.id);
            write!(f, "  {id}  {stored:>9} holding {raw:>9}{}  {}", Ratio(layer.ratio), one_line(&layer.file))?;
            if layer.disk_bytes != self.disk_bytes {
                write!(f, " (of a disk of {} bytes)", layer.disk_bytes)?;
            }
            writeln!(f)?;
        }
        if !self.partitions.is_empty() {
            writeln!(f, "partitions:")?;
        }
        for partition in &self.partitions {
            let PartitionInfo { index, start, bytes, fs, name, kind, used_bytes, note, .. } = partition;
            let label = one_line(if name.is_empty() { kind } else { name });
            let fs = one_line(fs);
            write!(f, "  {index:>3}  {:>9} at {:>9}  {fs:<8} {label}", Size(*bytes), Size(*start))?;
            write!(f, "  {} used", Size(*used_bytes))?;
            if !note.is_empty() {
                write!(f, " ({})", one_line(note))?;
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {}", one_line(note)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_an_image_makes_a_line_of_its_own() {
        assert_eq!(one_line("a\nsent 1 B\r\u{1b}[2J\u{2028}é"), "a\\nsent 1 B\\r\\u{1b}[2J\\u{2028}é");
    }

    #[test]
    fn sizes_have_three_digits() {
        let shown = |bytes| Size(bytes).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(999), "999 B");
        assert_eq!(shown(4096), "4.00 KiB");
        assert_eq!(shown(1 << 40), "1.00 TiB");
        assert_eq!(shown(325_400_000), "310 MiB");
    }
}
