//! Folders of images: of this machine, of a bucket, or of a web server that lists its files on a page.

use super::address::{Address, unescaped};
use super::{STORES, Stores};
use crate::cli::CacheFlags;
use crate::failure::Failure;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The most links that are looked at on the page of a web server.
const MAX_LINKS: usize = 100_000;

/// A layer in a folder.
#[derive(Debug)]
pub struct Found {
    /// Its name there.
    pub name: String,
    /// Its length; `None` where the folder does not say it.
    pub bytes: Option<u64>,
    /// What differs once another layer has this name, where the folder says it.
    pub version: String,
}

/// Keeps what is read of layers on servers, as these flags say.
///
/// # Errors
/// The folder of the cache cannot be made.
pub fn keep(flags: &CacheFlags) -> Result<(), Failure> {
    if let Some(folder) = &flags.cache {
        let kept = super::CacheFolder::new(folder, flags.cache_size);
        STORES.keep_in(kept.map_err(|error| Failure::not_done(super::CacheError::new(folder, error)))?);
    }
    Ok(())
}

impl Stores {
    /// Whether `folder` can have images: it is a folder of this machine, or an address.
    ///
    /// # Errors
    /// It is an address that cannot be asked.
    pub fn is_folder(&self, folder: &Path) -> io::Result<bool> {
        Ok(Address::of(&self.shown.real(folder))?.is_some() || folder.is_dir())
    }

    /// The path of the layer called `name` in `folder`.
    #[must_use]
    pub fn inside(&self, folder: &Path, name: &str) -> PathBuf {
        self.shown.inside(folder, name)
    }

    /// The layers in `folder`, in no order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn images_in(&self, folder: &Path) -> io::Result<Vec<Found>> {
        let any = self.shown.inside(folder, "-");
        let mut found = match Address::of(&self.shown.real(&any))? {
            None => local(folder)?,
            Some(Address::S3(object)) => {
                let listed = self.listed(&object)?.into_iter();
                let found = listed.map(|object| {
                    let name = object.key.rsplit('/').next().unwrap_or_default().to_owned();
                    Found { name, bytes: Some(object.bytes), version: object.tag }
                });
                found.collect()
            }
            Some(Address::Web(url)) => {
                let folder = url[..=url.rfind('/').unwrap_or(0)].to_owned();
                let page = self.shared()?.client().text(|| folder.clone())?;
                let found = linked(&page).into_iter();
                found.map(|name| Found { name, bytes: None, version: String::new() }).collect()
            }
        };
        found.retain(|layer| layer.name.ends_with(".slide") && !layer.name.starts_with('.'));
        Ok(found)
    }
}

fn local(folder: &Path) -> io::Result<Vec<Found>> {
    let files = std::fs::read_dir(folder)?.flatten();
    let files = files.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?)));
    let files = files.filter(|(_, meta)| meta.is_file());
    let found = files.map(|(name, meta)| Found {
        name,
        bytes: Some(meta.len()),
        version: format!("{:?}", meta.modified().ok()),
    });
    Ok(found.collect())
}

/// The names in the folder of a page that it links to, as the lists of nginx, Apache, Caddy and Python have them.
fn linked(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in page.split("href=").skip(1).take(MAX_LINKS) {
        let Some(quote) = part.chars().next().filter(|first| matches!(first, '"' | '\'')) else { continue };
        let Some((link, _)) = part[1..].split_once(quote) else { continue };
        let link = link.strip_prefix("./").unwrap_or(link).replace("&amp;", "&");
        let name = Some(link).filter(|link| !link.contains(['/', '?', '#'])).and_then(|link| unescaped(&link));
        names.extend(name.filter(|name| !name.contains(['/', '\0'])));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_that_a_page_links_to_are_those_in_its_folder() {
        let page = "<a href=\"../\">../</a> <a href=\"a%20base.slide\">a</a> <a href='./b&amp;c.slide'>b</a> <A HREF=x>\
                    <a href=\"/other/d.slide\">d</a> <a href=\"?C=M;O=A\">by time</a> <a href=\"a%20base.slide\">again</a>\
                    <a href=\"%2e%2e%2fe.slide\">e</a> <a href=\"f.slide";
        assert_eq!(linked(page), ["a base.slide", "b&c.slide"].map(str::to_owned).into());
    }
}
