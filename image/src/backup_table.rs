//! The backup GPT, which an image leaves out because it belongs at the end of whatever disk the image is written to.

use crate::error::ImageError;
use crate::fit::{Geometry, HEAD_BYTES, Outcome, fit, tail_area};
use core::ops::Range;
use std::path::Path;

/// What a disk of the image's own size gets at its end.
pub(crate) struct BackupTable {
    /// Where the backup GPT begins, and its bytes; `None` where the disk has no GPT, or one that does not fit.
    pub(crate) at: Option<(u64, Vec<u8>)>,
    /// What an operator should know about a table that does not fit.
    pub(crate) warning: Option<String>,
}

impl BackupTable {
    /// Makes the backup GPT of a disk of `bytes`, that `read` reads. `path` is named in errors.
    pub(crate) fn of_disk(
        path: &Path,
        sector: u32,
        bytes: u64,
        read: impl Fn(Range<u64>) -> Result<Vec<u8>, ImageError>,
    ) -> Result<Self, ImageError> {
        let geometry = Geometry::new(sector, bytes, bytes);
        let geometry = geometry.map_err(|error| ImageError::Table { path: path.into(), error })?;
        let tail = tail_area(bytes, sector);
        let head_end = if tail.is_empty() { bytes } else { HEAD_BYTES.min(tail.start) };
        let (mut head, mut back) = (read(0..head_end)?, read(tail.clone())?);
        let outcome = fit(&mut head, &mut back, geometry);
        let mut at = None;
        if let Outcome::Fitted(area) = &outcome {
            let start = area.start - if back.is_empty() { 0 } else { tail.start };
            let from = usize::try_from(start).unwrap_or(usize::MAX);
            let backup = if back.is_empty() { &head[from..] } else { &back[from..] };
            at = Some((area.start, backup.to_vec()));
        }
        Ok(Self { at, warning: outcome.warning() })
    }
}
