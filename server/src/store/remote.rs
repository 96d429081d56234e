//! A layer on a web server, read in chunks. Chunks used last stay in memory; those that will be wanted are fetched ahead.

use super::address::Address;
use super::answer::Identity;
use super::cache::{CacheFolder, Kept};
use super::client::Client;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use slidecast_image::recent::Recent;
use slidecast_image::store::{LayerBytes, layer_id};
use slidecast_net::text::os_error_text;
use slidecast_proto::units::Hash;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How much one request asks for.
const CHUNK: u64 = 1 << 20;
/// How much is fetched to know which layer it is.
const HEAD: u64 = 4 << 10;
/// How much memory the chunks of all layers may take.
const CACHE_BYTES: usize = 40 << 20;
/// How many requests are under way ahead of those who read.
const AHEAD_THREADS: usize = 4;
/// How many chunks may wait to be fetched ahead.
const AHEAD_CHUNKS: usize = 32;
/// How many chunks behind one that is read in order are fetched ahead.
const NEXT_CHUNKS: u64 = 4;
/// Bits of the number of a chunk that count within its layer; 2^60 bytes is the largest disk.
const CHUNK_BITS: u32 = 40;

/// What all layers share.
#[derive(Debug)]
pub(super) struct Shared {
    client: Client,
    chunks: Recent<io::Error>,
    layers: AtomicU64,
    ahead: SyncSender<(Arc<Remote>, u64)>,
}

impl Shared {
    pub(super) fn new(client: Client) -> io::Result<Arc<Self>> {
        let (ahead, wanted) = sync_channel(AHEAD_CHUNKS);
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..AHEAD_THREADS {
            let wanted = Arc::clone(&wanted);
            std::thread::Builder::new().name("fetch".into()).spawn(move || fetch_ahead(&wanted))?;
        }
        Ok(Arc::new(Self { client, chunks: Recent::new(CACHE_BYTES), layers: AtomicU64::new(0), ahead }))
    }
}

impl Shared {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

fn fetch_ahead(wanted: &Mutex<Receiver<(Arc<Remote>, u64)>>) {
    loop {
        let next = wanted.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((layer, chunk)) = next else { return };
        // Whoever reads it is told why it cannot be had.
        let _ = layer.chunk(chunk);
    }
}

/// One layer.
#[derive(Debug)]
pub(super) struct Remote {
    shared: Arc<Shared>,
    address: Address,
    identity: Identity,
    /// Its first bytes, which say which layer it is: whoever wants no more fetches no more.
    head: Arc<[u8]>,
    number: u64,
    /// Where it may be kept on this machine.
    folder: Option<CacheFolder>,
    /// What is kept of it there, looked for when its first chunk is wanted: who only wants to know which layer it is takes no room.
    kept: OnceLock<Option<Kept>>,
    /// What it is called in messages.
    path: PathBuf,
    /// The chunk that was read last.
    last: AtomicU64,
}

impl Remote {
    fn key(&self, chunk: u64) -> u64 {
        self.number << CHUNK_BITS | chunk
    }

    fn chunk(&self, chunk: u64) -> io::Result<Arc<[u8]>> {
        let got = self.shared.chunks.get(self.key(chunk), || {
            let start = chunk * CHUNK;
            let range = start..(start + CHUNK).min(self.identity.bytes);
            let want = range.end - range.start;
            if let Some(bytes) = self.kept().and_then(|kept| kept.read(chunk, want)) {
                return Ok(self.shared.chunks.piece(&bytes));
            }
            let (_, bytes) = self.shared.client.fetch(|| self.address.url(), range, Some(&self.identity))?;
            if bytes.len() as u64 != want {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(kept) = self.kept() {
                kept.write(chunk, &bytes);
            }
            Ok(self.shared.chunks.piece(&bytes))
        });
        got.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(|error| io::Error::new(error.kind(), error)))
    }

    fn kept(&self) -> Option<&Kept> {
        self.kept.get_or_init(|| self.folder.as_ref().and_then(|folder| self.keep_in(folder))).as_ref()
    }

    /// Its place in `folder`; `None`, and a line in the log, where it cannot be kept.
    fn keep_in(&self, folder: &CacheFolder) -> Option<Kept> {
        let beginning = Beginning { bytes: Arc::clone(&self.head), all: self.identity.bytes };
        // What is no layer is refused by whoever opened it.
        let id = layer_id(&beginning, &self.path).ok()?;
        let opened = cache_name(&id, &self.identity).map(|name| folder.open(&name, self.identity.bytes, CHUNK));
        let why = match opened {
            Some(Ok(Some(kept))) => return Some(kept),
            Some(Ok(None)) => "there is no room for it".to_owned(),
            Some(Err(error)) => os_error_text(&error),
            None => "the server gives it neither an entity tag nor a time".to_owned(),
        };
        log::warn!("{}: it is not kept in the cache: {why}", self.path.display());
        None
    }

    fn want(self: &Arc<Self>, chunks: Range<u64>) {
        let end = chunks.end.min(self.identity.bytes.div_ceil(CHUNK));
        for chunk in chunks.start..end {
            // With all places taken it is fetched when its turn comes.
            if !self.shared.chunks.has(self.key(chunk))
                && self.shared.ahead.try_send((Arc::clone(self), chunk)).is_err()
            {
                return;
            }
        }
    }
}

/// An open layer on a web server.
#[derive(Debug)]
pub(super) struct RemoteLayer(Arc<Remote>);

impl RemoteLayer {
    /// Opens the object at `address`, which fetches its beginning. What is read of it is kept in `folder`, and what is there is not
    /// fetched again. `path` is named in messages.
    pub(super) fn open(
        shared: &Arc<Shared>,
        address: Address,
        path: &Path,
        folder: Option<&CacheFolder>,
    ) -> io::Result<Self> {
        let (identity, first) = shared.client.fetch(|| address.url(), 0..HEAD, None)?;
        if identity.bytes.div_ceil(CHUNK) >> CHUNK_BITS > 0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "the server says that it is larger than any disk"));
        }
        Ok(Self(Arc::new(Remote {
            shared: Arc::clone(shared),
            address,
            identity,
            head: first.into(),
            number: shared.layers.fetch_add(1, Ordering::Relaxed),
            folder: folder.cloned(),
            kept: OnceLock::new(),
            path: path.to_owned(),
            last: AtomicU64::new(u64::MAX),
        })))
    }
}

/// What became of a chunk that should be in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staged {
    /// It was there, with so many bytes.
    There(u64),
    /// It was fetched, with so many bytes.
    Fetched(u64),
    /// The cache does not take it.
    NotKept,
}

impl RemoteLayer {
    /// How many chunks it has.
    pub(super) fn chunks(&self) -> u64 {
        self.0.identity.bytes.div_ceil(CHUNK)
    }

    /// Sees to it that a chunk is in the cache; with `ahead` those behind it are fetched meanwhile.
    pub(super) fn stage(&self, chunk: u64, ahead: bool) -> io::Result<Staged> {
        let Some(kept) = self.0.kept() else { return Ok(Staged::NotKept) };
        let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(self.0.identity.bytes);
        let bytes = range.end - range.start;
        if kept.descriptor(&range).is_none() && kept.read(chunk, bytes).is_some() {
            return Ok(Staged::There(bytes));
        }
        if ahead {
            self.0.want(chunk + 1..chunk + 1 + NEXT_CHUNKS);
        }
        self.0.chunk(chunk)?;
        Ok(if kept.descriptor(&range).is_some() { Staged::Fetched(bytes) } else { Staged::NotKept })
    }

    /// What the cache has of it is not used any more.
    pub(super) fn forget(&self) {
        if let Some(kept) = self.0.kept() {
            kept.forget();
        }
    }
}

/// What a layer is called in a cache. The id is what the object says of itself, so length and tag count, too: an object that only claims
/// to be the same layer has a file of its own.
fn cache_name(id: &Hash, identity: &Identity) -> Option<Hash> {
    let tag = identity.tag.as_ref()?;
    Some(Hash::of(&[&id.0[..], &identity.bytes.to_le_bytes(), tag.as_bytes()].concat()))
}

/// The beginning of a layer.
#[derive(Debug)]
struct Beginning {
    bytes: Arc<[u8]>,
    all: u64,
}

impl LayerBytes for Beginning {
    fn bytes(&self) -> u64 {
        self.all
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.bytes.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl LayerBytes for RemoteLayer {
    fn bytes(&self) -> u64 {
        self.0.identity.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.bytes());
        let end = end.ok_or(ErrorKind::UnexpectedEof)?;
        let start = usize::try_from(offset).ok();
        if let Some(bytes) = start.and_then(|start| self.0.head.get(start..start + buffer.len())) {
            buffer.copy_from_slice(bytes);
            return Ok(());
        }
        let (mut at, mut rest) = (offset, buffer);
        while at < end {
            let (chunk, from) = (at / CHUNK, at % CHUNK);
            if self.0.last.swap(chunk, Ordering::Relaxed).checked_add(1) == Some(chunk) {
                self.0.want(chunk + 1..chunk + 1 + NEXT_CHUNKS);
            }
            let bytes = self.0.chunk(chunk)?;
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            let len = rest.len().min(bytes.len().saturating_sub(from));
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let (out, behind) = rest.split_at_mut(len);
            out.copy_from_slice(&bytes[from..from + len]);
            (at, rest) = (at + len as u64, behind);
        }
        Ok(())
    }

    fn descriptor(&self, range: Range<u64>) -> Option<BorrowedFd<'_>> {
        self.0.kept.get()?.as_ref()?.descriptor(&range)
    }

    fn prefetch(&self, range: Range<u64>) {
        if self.descriptor(range.clone()).is_some() {
            return;
        }
        self.0.want(range.start / CHUNK..range.end.div_ceil(CHUNK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_claims_to_be_another_layer_has_a_file_of_its_own() {
        let identity = |bytes, tag: Option<&str>| Identity { bytes, tag: tag.map(str::to_owned) };
        let name = |id: u8, bytes, tag| cache_name(&Hash([id; 32]), &identity(bytes, tag));
        let good = name(1, 5000, Some("\"a\""));
        assert!(good.is_some() && good == name(1, 5000, Some("\"a\"")));
        for other in [name(2, 5000, Some("\"a\"")), name(1, 5001, Some("\"a\"")), name(1, 5000, Some("\"b\""))] {
            assert!(other.is_some() && other != good);
        }
        assert!(name(1, 5000, None).is_none());
    }
}
