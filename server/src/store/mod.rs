//! Where layers lie: files of this machine, and objects on web servers, which are read piece by piece.
//!
//! Wherever a layer may stand on the command line, an address may stand, too; parents are looked for beside it. `answer` decides what an
//! answer means and when to try again, `client` makes requests, `remote` keeps what was fetched. What a server sends is never trusted: a
//! layer is checked by its hashes wherever it lies.

mod address;
mod answer;
#[cfg(test)]
mod bucket_tests;
mod cache;
mod client;
mod folder;
pub(crate) mod gc;
mod identity;
mod push;
mod redirect;
mod remote;
mod s3;
mod shown;
pub(crate) mod stage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
pub(crate) mod transfer;
mod xml;

pub use address::is_remote;
pub(crate) use address::name_of;
pub use cache::{CacheError, CacheFolder};
pub use folder::{Found, keep};
pub use stage::Hours;

use address::Address;
use client::Client;
use remote::{RemoteLayer, Shared};
use s3::{Listed, Object};
use shown::Shown;
use slidecast_image::store::{LayerBytes, LayerStore, LocalFiles};
use slidecast_image::{Image, ImageError};
use slidecast_net::text::one_line;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The most pages of a list that are read; a page has a thousand objects.
const MAX_PAGES: usize = 100;

/// All stores that this program knows.
#[derive(Debug)]
pub struct Stores {
    /// Made when the first address is opened.
    shared: Mutex<Option<Arc<Shared>>>,
    /// Where layers of servers are kept.
    cache: Mutex<Option<CacheFolder>>,
    /// What stands for addresses with secrets.
    shown: Shown,
}

/// The stores of this process: connections and what was fetched are shared by all that it opens.
pub static STORES: Stores = Stores::new();

/// What stands for the file or address that somebody names, in messages, reports and files: an address without what is secret in it.
#[must_use]
pub fn named(path: PathBuf) -> PathBuf {
    STORES.shown.hide(&path)
}

impl Stores {
    const fn new() -> Self {
        Self { shared: Mutex::new(None), cache: Mutex::new(None), shown: Shown::new() }
    }

    /// Keeps in `folder` what is read of servers from now on.
    pub fn keep_in(&self, folder: CacheFolder) {
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder);
    }

    fn shared(&self) -> io::Result<Arc<Shared>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*shared {
            return Ok(Arc::clone(shared));
        }
        let made = Shared::new(Client::new()?)?;
        Ok(Arc::clone(shared.insert(made)))
    }
}

impl Stores {
    fn cache(&self) -> Option<CacheFolder> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What lies in the folder of an object.
    fn listed(&self, folder: &Object) -> io::Result<Vec<Listed>> {
        let (shared, mut after, mut all) = (self.shared()?, None, Vec::new());
        for _ in 0..MAX_PAGES {
            let text = shared.client().text(|| folder.list_url(after.as_deref()))?;
            let page =
                s3::listed(&text).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the server sends no list"))?;
            all.extend(page.objects);
            match page.next {
                Some(token) => after = Some(token),
                None => return Ok(all),
            }
        }
        let why = format!(
            "the list has more than {MAX_PAGES} pages, {} objects: keep images in a folder of their own",
            all.len()
        );
        Err(io::Error::new(ErrorKind::FileTooLarge, why))
    }
}

impl LayerStore for Stores {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LayerBytes>> {
        match Address::of(&self.shown.real(path))? {
            None => LocalFiles.open(path),
            Some(address) => Ok(Arc::new(RemoteLayer::open(&self.shared()?, address, path, self.cache().as_ref())?)),
        }
    }

    fn beside(&self, path: &Path) -> Vec<PathBuf> {
        if !is_remote(path) {
            return LocalFiles.beside(path);
        }
        // Where the folder has no list a parent is found by its name alone.
        let listed = path.parent().map_or_else(|| Ok(Vec::new()), |folder| self.images_in(folder));
        let failed =
            |error: io::Error| log::warn!("looking for a layer beside {}: {}", path.display(), one_line(&error));
        let names = listed.map_err(failed).unwrap_or_default().into_iter();
        names.map(|found| self.shown.beside(path, &found.name)).collect()
    }

    fn named(&self, path: &Path, name: &str) -> PathBuf {
        self.shown.beside(path, name)
    }
}

/// Opens the image whose newest layer is at `path`, a file or an address.
///
/// # Errors
/// [`ImageError`] naming the layer and what is wrong with it.
pub fn open(path: &Path) -> Result<Image, ImageError> {
    Image::open_in(&STORES, path)
}
