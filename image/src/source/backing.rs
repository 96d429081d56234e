//! The file below a file: where it may be, and that a chain of them ends.

use super::{DiskSource, ImportFault, Opening, RawDisk, formats};
use crate::error::ImageError;
use std::path::Path;

/// The most files on top of each other.
const MAX_CHAIN: usize = 64;

/// Opens the file that `child` of format `called` names as the one below it, of which it says that the format is `format`.
///
/// The name comes from whoever made the child, so only a file in the child's folder or below it is read.
pub(super) fn open_backing(
    child: &RawDisk,
    called: &'static str,
    name: &str,
    format: Option<&str>,
    opening: &Opening<'_>,
) -> Result<Box<dyn DiskSource>, ImageError> {
    let refused = |why| {
        let fault = ImportFault::Named { what: "backing file", name: name.to_owned(), why };
        ImageError::Import { path: child.path().to_owned(), format: called, fault }
    };
    let plain = name.strip_prefix("file:").unwrap_or(name);
    if plain.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err(refused("is no local file; merge both first: qemu-img convert -O qcow2"));
    }
    let format = match format {
        Some("vpc") => "vhd",
        Some(format) => format,
        None => {
            return Err(refused(
                "has no format in this file, and guessing it is not safe; say it first: qemu-img rebase -u -F FORMAT -b NAME",
            ));
        }
    };
    let folder = child.path().parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let path = folder.join(plain);
    let real = path.canonicalize().map_err(|_| refused("is not there"))?;
    let home = child.path().canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()));
    if !home.is_some_and(|home| real.starts_with(home)) {
        return Err(refused(
            "lies outside the folder of this file; put both into one folder, or merge them: qemu-img convert -O qcow2",
        ));
    }
    if opening.chain.contains(&real) {
        return Err(refused("is a file above it: the chain has no end"));
    }
    if opening.chain.len() >= MAX_CHAIN {
        return Err(refused("is below more than 64 files; merge them first: qemu-img convert -O qcow2"));
    }
    let mut chain = opening.chain.clone();
    chain.push(real);
    let below = Opening { snapshot: None, chain, ..*opening };
    formats::open_as(&path, format, &below).unwrap_or_else(|| Err(refused("has a format that is not read")))
}
