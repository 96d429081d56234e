//! `slidecast image list`, `pull` and `push`: layers between folders of this machine and servers.

use super::address::{Address, name_of};
use super::remote::RemoteLayer;
use super::{STORES, Stores, push};
use crate::cli::{ListImages, Pull, Push};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::image::{advance, bar};
use crate::say;
use crate::shown::{count, shown};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use serde::Serialize;
use slidecast_image::store::{LayerBytes, LayerStore, LocalFiles, layer_id};
use slidecast_image::{Image, LayerInfo, verify};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::units::Hash;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// How much of a layer is in memory while it is fetched.
const STEP: u64 = 1 << 20;
/// How far ahead of that the store is asked.
const AHEAD: u64 = 8 << 20;
const REPLACED: &str = "the image was replaced while it was pulled: pull it again when it is at rest";

/// A transfer failed.
#[derive(Debug)]
struct TransferError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.path.display())
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::not_done(TransferError { what, path, error })
}

pub(super) fn refused(what: &'static str, path: &Path, why: &str) -> Failure {
    failed(what, path)(io::Error::new(ErrorKind::InvalidInput, why))
}

/// One layer of a list.
#[derive(Serialize)]
struct Row {
    name: String,
    bytes: Option<u64>,
}

/// Lists the layers in a folder of a bucket or of a web server.
///
/// # Errors
/// The folder has no list, or the server refuses.
pub(crate) fn list(args: &ListImages) -> Result<ExitCode, Failure> {
    let listing = "listing";
    let found = STORES.images_in(&args.url).map_err(failed(listing, &args.url))?;
    let mut rows: Vec<_> = found.into_iter().map(|found| Row { name: found.name, bytes: found.bytes }).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if args.json {
        say(&serde_json::to_string_pretty(&rows).expect("it has only numbers and texts"));
    } else {
        let size = |row: &Row| row.bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string());
        rows.iter().for_each(|row| say(&format!("{:>10}  {}", size(row), shown(&row.name))));
    }
    Ok(ExitCode::Done)
}

/// Fetches an image with all its layers.
///
/// # Errors
/// A layer cannot be read, or a file of its name is here and is another one.
pub(crate) fn pull(args: &Pull) -> Result<ExitCode, Failure> {
    pull_from(&STORES, args)
}

pub(super) fn pull_from(stores: &Stores, args: &Pull) -> Result<ExitCode, Failure> {
    let image = Image::open_in(stores, &args.url)?;
    let mut newest = args.to.clone();
    let mut fetched = Vec::new();
    for layer in image.layers() {
        newest = args.to.join(file_name(&layer.path)?);
        match LocalFiles.open(&newest).map(|file| layer_id(&*file, &newest)) {
            Ok(Ok(id)) if id == layer.id => continue,
            Ok(_) => return Err(refused("pulling to", &newest, "another file of this name is there")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("pulling to", &newest)(error)),
        }
        if !fetch(stores, &layer, &args.to, &newest)? {
            remove(&fetched);
            return Err(refused("pulling", &layer.path, REPLACED));
        }
        fetched.push(newest.clone());
    }
    // What came is looked at in full, whatever the server is: the file here is used in its place from now on. It must be the image that was
    // opened: what lies on a server may have been replaced since.
    let checked = verify(&newest, |_| ()).map_err(Failure::from).and_then(|checked| {
        let is_same = checked.root == image.root();
        is_same.then_some(()).ok_or_else(|| refused("pulling", &args.url, REPLACED))
    });
    if let Err(error) = checked {
        remove(&fetched);
        return Err(error);
    }
    let layers = count(fetched.len(), "layer");
    say(&format!("{}: {layers} fetched; manifest root {}", newest.display(), image.root()));
    Ok(ExitCode::Done)
}

/// The name that a layer gets here: the last piece of its address.
fn file_name(path: &Path) -> Result<String, Failure> {
    let name = name_of(path).unwrap_or_default();
    let good = name.ends_with(".slide") && name.len() <= 220 && !name.contains(['/', '\0']);
    if good { Ok(name) } else { Err(refused("pulling", path, "its name does not end in .slide")) }
}

/// Removes layers that turned out to be none of the image.
fn remove(fetched: &[PathBuf]) {
    fetched.iter().for_each(|path| drop(std::fs::remove_file(path)));
}

/// Fetches one layer; `false` if another one is there by now.
fn fetch(stores: &Stores, layer: &LayerInfo, folder: &Path, to: &Path) -> Result<bool, Failure> {
    let from = stores.open(&layer.path).map_err(failed("opening", &layer.path))?;
    if layer_id(&*from, &layer.path)? != layer.id {
        return Ok(false);
    }
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("creating a file in", folder))?;
    let bar = bar("pulling");
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < from.bytes() {
        let len = STEP.min(from.bytes() - at);
        from.prefetch(at..(at + AHEAD).min(from.bytes()));
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        from.read_at(at, &mut buffer).map_err(failed("reading", &layer.path))?;
        file.write_all(&buffer).map_err(failed("writing", to))?;
        at += len;
        advance(&bar, at, from.bytes());
    }
    bar.finish_and_clear();
    file.as_file().sync_all().map_err(failed("flushing", to))?;
    let kept = file.persist_noclobber(to).map_err(|error| failed("naming", to)(error.error))?;
    // A temporary file is its owner's alone, an image is like any other file here.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    kept.set_permissions(mode).map_err(failed("naming", to))?;
    Ok(true)
}

/// Puts an image with all its layers into a folder of a bucket.
///
/// # Errors
/// The image is not good, or the server refuses, or has another layer of that name.
pub(crate) fn push(args: &Push) -> Result<ExitCode, Failure> {
    let image = Image::open(&args.file)?;
    let mut sent = 0_usize;
    tell_of_conditions(&args.url)?;
    for layer in image.layers() {
        let to = destination(&args.url, &layer.path, layer.id == image.header().layer);
        sent += usize::from(send(&layer, &to)?);
    }
    let layers = count(sent, "layer");
    say(&format!("{}: {layers} sent; manifest root {}", args.url.display(), image.root()));
    Ok(ExitCode::Done)
}

/// Says so if the server would overwrite what somebody else pushes at the same time.
fn tell_of_conditions(url: &Path) -> Result<(), Failure> {
    let Some(Address::S3(object)) = Address::of(url).map_err(failed("pushing to", url))? else { return Ok(()) };
    let shared = STORES.shared().map_err(failed("pushing to", url))?;
    match push::heeds_conditions(shared.client(), &object) {
        Ok(true) => {}
        Ok(false) => crate::complain(
            "note: this server ignores If-None-Match: two pushes to one name at the same time overwrite each other",
        ),
        // Pushing itself says what is wrong.
        Err(error) => log::info!("whether {} heeds If-None-Match is not known: {error}", url.display()),
    }
    Ok(())
}

/// Where a layer goes: the newest one to the address itself unless that is a folder, its parents beside it under their names.
fn destination(url: &Path, layer: &Path, is_newest: bool) -> PathBuf {
    let name = layer.file_name().unwrap_or_default();
    let is_folder = url.as_os_str().as_encoded_bytes().ends_with(b"/");
    match (is_folder, is_newest) {
        (true, _) => url.join(name),
        (false, true) => url.to_owned(),
        (false, false) => url.with_file_name(name),
    }
}

/// Sends one layer; `false` if it is there already.
fn send(layer: &LayerInfo, to: &Path) -> Result<bool, Failure> {
    let Some(Address::S3(object)) = Address::of(to).map_err(failed("pushing to", to))? else {
        return Err(refused("pushing to", to, "expected s3://BUCKET/KEY"));
    };
    if is_there(layer, to)? {
        return Ok(false);
    }
    let shared = STORES.shared().map_err(failed("pushing to", to))?;
    let file = File::open(&layer.path).map_err(failed("opening", &layer.path))?;
    let (bar, there) = (bar("pushing"), AtomicU64::new(0));
    let done = |bytes| {
        let all = there.fetch_add(bytes, Ordering::Relaxed) + bytes;
        advance(&bar, all, layer.file_bytes);
    };
    let note = note(layer, to);
    let (client, object, file) = (shared.client(), &object, &file);
    let pushed = push::Pushed { client, object, file, bytes: layer.file_bytes, note: note.as_deref() };
    let sent = pushed.send(&done);
    bar.finish_and_clear();
    match sent {
        // Somebody else was faster, or the answer to what succeeded was lost.
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
            if is_there(layer, to)? { Ok(true) } else { Err(failed("pushing to", to)(error)) }
        }
        Err(error) => Err(failed("pushing to", to)(error)),
        Ok(()) if is_there(layer, to)? => Ok(true),
        Ok(()) => Err(refused("pushing to", to, "what was sent is not there")),
    }
}

/// Where the upload of a layer to this address is noted; `None` where this machine has no folder for it.
fn note(layer: &LayerInfo, to: &Path) -> Option<PathBuf> {
    let folder = crate::key::state_folder(None).ok()?.join("pushes");
    std::fs::create_dir_all(&folder).ok()?;
    let what = [&layer.id.0[..], &layer.file_bytes.to_le_bytes(), to.as_os_str().as_encoded_bytes()].concat();
    Some(folder.join(Hash::of(&what).to_string()))
}

/// Whether this very layer is at `to`; an error if it is another one.
fn is_there(layer: &LayerInfo, to: &Path) -> Result<bool, Failure> {
    let Some(address) = Address::of(to).map_err(failed("opening", to))? else { return Ok(false) };
    let shared = STORES.shared().map_err(failed("opening", to))?;
    match RemoteLayer::open(&shared, address, to, None) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("opening", to)(error)),
        Ok(found) => match layer_id(&found, to) {
            Ok(id) if id == layer.id && found.bytes() == layer.file_bytes => Ok(true),
            _ => {
                Err(refused("pushing to", to, "another object of this name is there: remove it, or take another name"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_pushed_under_its_name_or_the_one_that_was_given() {
        let to = |url: &str, newest| destination(Path::new(url), Path::new("/srv/a.slide"), newest);
        assert_eq!(to("s3://b/d/", true), Path::new("s3://b/d/a.slide"));
        assert_eq!(to("s3://b/d/new.slide", true), Path::new("s3://b/d/new.slide"));
        assert_eq!(to("s3://b/d/new.slide", false), Path::new("s3://b/d/a.slide"));
        assert_eq!(file_name(Path::new("https://h/d/x.slide?sig=a")).unwrap(), "x.slide");
        assert!(file_name(Path::new("https://h/d/..")).is_err() && file_name(Path::new("https://h/d/x")).is_err());
    }
}
