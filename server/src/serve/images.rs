//! The images in the image folder. Opening one reads its maps, so what was read is remembered until the file changes.

use super::api::Api;
use super::commands::blocking;
use super::problem::Problem;
use crate::failure::one_line;
use crate::store::{self, Found, STORES};
use axum::http::StatusCode;
use std::collections::HashMap;
use std::path::Path;
use std::sync::PoisonError;

/// What is remembered of each image, by the name of its file.
pub(super) type Listed = HashMap<String, ((Option<u64>, String), ImageRow)>;

/// An image.
#[derive(Clone, Debug)]
pub(super) struct ImageRow {
    pub(super) name: String,
    pub(super) file_bytes: u64,
    /// What its layers say, or why they can't be read.
    pub(super) layers: Result<Layers, String>,
}

/// What is known of an image without reading its blocks.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    /// The size of the disk.
    pub(super) disk_bytes: u64,
    /// What one machine gets.
    pub(super) raw_bytes: u64,
    /// The file of the layer below.
    pub(super) parent: Option<String>,
}

/// All images by name.
pub(super) async fn list(api: &std::sync::Arc<Api>) -> Result<Vec<ImageRow>, Problem> {
    let api = api.clone();
    blocking(move || {
        let folder = &api.place.images;
        let found = STORES.images_in(folder).map_err(|error| {
            let detail = format!("reading the image folder {}: {}", folder.display(), one_line(&error));
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "images", detail)
        })?;
        let known = std::mem::take(&mut *api.listed.lock().unwrap_or_else(PoisonError::into_inner));
        let listed: Listed = found
            .into_iter()
            .map(|Found { name, bytes, version }| {
                let version = (bytes, version);
                let same = known.get(&name).filter(|(was, _)| *was == version);
                // A layer that could not be read may lack its parent, which may have come since.
                let same = same.filter(|(_, row)| row.layers.is_ok());
                let row = same.map_or_else(|| read(folder, &name, bytes), |(_, row)| row.clone());
                (name, (version, row))
            })
            .collect();
        let mut rows: Vec<ImageRow> = listed.values().map(|(_, row)| row.clone()).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        *api.listed.lock().unwrap_or_else(PoisonError::into_inner) = listed;
        Ok(rows)
    })
    .await
}

fn read(folder: &Path, name: &str, bytes: Option<u64>) -> ImageRow {
    let mut file_bytes = bytes.unwrap_or(0);
    let layers = store::open(&STORES.inside(folder, name)).map_err(|error| one_line(&error)).map(|image| {
        let files: Vec<_> = image.layers().collect();
        file_bytes = files.last().map_or(file_bytes, |newest| newest.file_bytes);
        let parent = files.len().checked_sub(2).and_then(|below| store::name_of(&files[below].path));
        Layers { disk_bytes: image.header().disk_bytes, raw_bytes: image.header().raw_bytes, parent }
    });
    ImageRow { name: name.to_owned(), file_bytes, layers }
}
