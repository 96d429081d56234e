//! Layers of servers, kept in a folder of this machine: for each a sparse file with the same bytes, and a map of the chunks that it has.
//!
//! The map has a hash of every chunk, and a chunk of an earlier process is compared with it before it is used for the first time: after a
//! crash the map is a hint. Once all of a layer is there and flushed the map says so, and the file is sent as any other.
//! Several processes may use one folder: a layer in use is locked, and what two of them write is the same.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use nix::fcntl::{Flock, FlockArg};
use slidecast_net::text::os_error_text;
use slidecast_proto::units::Hash;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"SLCACHE1";
/// Magic, length of the layer, whether it is complete.
const HEADER: u64 = 32;
const COMPLETE_AT: u64 = 16;
const HASH: u64 = 32;
/// How often a map that another process removes meanwhile is made again.
const MAX_TRIES: u32 = 8;

/// A folder of layers.
#[derive(Clone, Debug)]
pub struct CacheFolder {
    folder: PathBuf,
    most_bytes: u64,
}

/// The folder cannot be used.
#[derive(Debug)]
pub struct CacheError {
    folder: PathBuf,
    error: io::Error,
}

impl CacheError {
    /// What the system said of `folder`.
    #[must_use]
    pub fn new(folder: &Path, error: io::Error) -> Self {
        Self { folder: folder.to_owned(), error }
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "making the cache {}", self.folder.display())
    }
}

impl std::error::Error for CacheError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Absent,
    /// The map says that it is there.
    Claimed(Hash),
    /// It was written or compared by this process.
    Good,
}

/// What is known of all chunks of a layer.
#[derive(Debug)]
struct Known {
    chunks: Vec<Chunk>,
    /// How many of them are not known to be good.
    left: usize,
}

/// One layer in the folder.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    map: Flock<File>,
    chunk_bytes: u64,
    known: Mutex<Known>,
    complete: AtomicBool,
    /// Nothing more can be written.
    is_full: AtomicBool,
}

impl CacheFolder {
    /// The cache in `folder`, which is made if it is not there. The layers in it may take `most_bytes`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: &Path, most_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), most_bytes })
    }

    /// The place of layer `id`, which has `bytes`. Layers that are not in use make room, those not used for longest first; `None` where
    /// there is no room for it.
    pub(super) fn open(&self, id: &Hash, bytes: u64, chunk_bytes: u64) -> io::Result<Option<Kept>> {
        if bytes > self.most_bytes {
            return Ok(None);
        }
        let path = self.folder.join(format!("{id}.slide"));
        let map = self.locked(&path.with_extension("map"))?;
        if !self.make_room(&path, bytes)? {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        // Somebody may have cut it, or it is new.
        let is_whole = file.metadata()?.len() == bytes;
        file.set_len(bytes)?;
        let (chunks, complete) = read_map(&map, bytes, bytes.div_ceil(chunk_bytes))?;
        map.set_modified(SystemTime::now())?;
        Ok(Some(Kept {
            path,
            file,
            map,
            chunk_bytes,
            known: Mutex::new(Known { left: chunks.len(), chunks }),
            complete: AtomicBool::new(complete && is_whole),
            is_full: AtomicBool::new(false),
        }))
    }

    /// The map at `path`, locked together with others who use the layer.
    fn locked(&self, path: &Path) -> io::Result<Flock<File>> {
        for _ in 0..MAX_TRIES {
            let map = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let map = Flock::lock(map, FlockArg::LockShared).map_err(|(_, errno)| io::Error::from(errno))?;
            // Whoever removes a layer holds its lock until that is done.
            if map.metadata()?.nlink() > 0 {
                return Ok(map);
            }
        }
        Err(io::Error::new(ErrorKind::ResourceBusy, "another process removes this layer again and again"))
    }

    /// Removes layers until `own` with `bytes` fits beside the others.
    fn make_room(&self, own: &Path, bytes: u64) -> io::Result<bool> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "slide") && path != own {
                let taken = entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
                let used = std::fs::metadata(path.with_extension("map")).and_then(|map| map.modified()).ok();
                others.push((used, taken, path));
            }
        }
        others.sort();
        let mut taken: u64 = others.iter().map(|(_, taken, _)| taken).sum();
        for (_, freed, path) in others {
            if taken.saturating_add(bytes) <= self.most_bytes {
                break;
            }
            if remove_unless_used(&path) {
                taken -= freed;
            }
        }
        Ok(taken.saturating_add(bytes) <= self.most_bytes)
    }
}

/// Removes a layer that nobody uses.
fn remove_unless_used(path: &Path) -> bool {
    let map_path = path.with_extension("map");
    let Ok(map) = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&map_path) else {
        return false;
    };
    let Ok(_lock) = Flock::lock(map, FlockArg::LockExclusiveNonblock) else { return false };
    std::fs::remove_file(path).is_ok() && std::fs::remove_file(map_path).is_ok()
}

/// What a map says; one that is none says nothing, and is begun.
fn read_map(map: &File, bytes: u64, count: u64) -> io::Result<(Vec<Chunk>, bool)> {
    let count_in_memory = usize::try_from(count).unwrap_or(0);
    let mut header = [0; 24];
    let begun = map.read_exact_at(&mut header, 0).is_ok();
    if !begun || header[..8] != *MAGIC || header[8..16] != bytes.to_le_bytes() {
        map.set_len(0)?;
        map.write_all_at(MAGIC, 0)?;
        map.write_all_at(&bytes.to_le_bytes(), 8)?;
        map.set_len(HEADER + count * HASH)?;
        return Ok((vec![Chunk::Absent; count_in_memory], false));
    }
    let mut hashes = vec![0; count_in_memory * Hash::default().0.len()];
    if map.read_exact_at(&mut hashes, HEADER).is_err() {
        map.set_len(HEADER + count * HASH)?;
        hashes.fill(0);
    }
    let chunks = hashes.as_chunks::<32>().0.iter().map(|hash| match hash {
        [0, ..] if hash.iter().all(|byte| *byte == 0) => Chunk::Absent,
        hash => Chunk::Claimed(Hash(*hash)),
    });
    let chunks: Vec<_> = chunks.collect();
    let complete = header[16] == 1 && !chunks.contains(&Chunk::Absent);
    Ok((chunks, complete))
}

impl Kept {
    /// Chunk number `chunk` with `bytes`, if it is there and good.
    pub(super) fn read(&self, chunk: u64, bytes: u64) -> Option<Vec<u8>> {
        let at = usize::try_from(chunk).ok()?;
        let known = *self.lock().chunks.get(at)?;
        if known == Chunk::Absent {
            return None;
        }
        let mut content = vec![0; usize::try_from(bytes).ok()?];
        let read = self.file.read_exact_at(&mut content, chunk * self.chunk_bytes);
        match known {
            _ if read.is_err() => {}
            Chunk::Good => return Some(content),
            Chunk::Claimed(hash) if Hash::of(&content) == hash => {
                self.is_good(at);
                return Some(content);
            }
            _ => log::warn!("{}: chunk {chunk} is not what was written: it is fetched again", self.path.display()),
        }
        let mut known = self.lock();
        known.left += usize::from(known.chunks[at] == Chunk::Good);
        known.chunks[at] = Chunk::Absent;
        None
    }

    /// Keeps chunk number `chunk`. A folder that takes nothing more costs nothing but the traffic.
    pub(super) fn write(&self, chunk: u64, content: &[u8]) {
        let Some(at) = usize::try_from(chunk).ok().filter(|_| !self.is_full.load(Ordering::Relaxed)) else { return };
        let hash = Hash::of(content);
        let written = self.file.write_all_at(content, chunk * self.chunk_bytes);
        match written.and_then(|()| self.map.write_all_at(&hash.0, HEADER + chunk * HASH)) {
            Ok(()) => self.is_good(at),
            Err(error) => {
                self.is_full.store(true, Ordering::Relaxed);
                log::warn!("{}: nothing more is kept of this layer: {}", self.path.display(), os_error_text(&error));
            }
        }
    }

    fn is_good(&self, at: usize) {
        let mut known = self.lock();
        known.left -= usize::from(known.chunks[at] != Chunk::Good);
        known.chunks[at] = Chunk::Good;
        let goes_on = known.left > 0 || self.complete.load(Ordering::Relaxed);
        drop(known);
        if goes_on {
            return;
        }
        // The mark means that all of it outlives a loss of power, so it comes after the flush.
        let marked = self.file.sync_all().and_then(|()| self.map.write_all_at(&[1], COMPLETE_AT));
        if marked.and_then(|()| self.map.sync_all()).is_ok() {
            self.complete.store(true, Ordering::Relaxed);
        }
    }

    /// The file, once it has every byte of the layer.
    pub(super) fn whole(&self) -> Option<BorrowedFd<'_>> {
        self.complete.load(Ordering::Relaxed).then(|| self.file.as_fd())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Hash = Hash([7; 32]);

    #[test]
    fn what_was_kept_is_there_for_the_next_process_and_whole_once_every_chunk_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 1000).unwrap();
        let kept = folder.open(&ID, 250, 100).unwrap().unwrap();
        assert!(kept.read(0, 100).is_none() && kept.whole().is_none());
        kept.write(0, &[1; 100]);
        kept.write(2, &[3; 50]);
        drop(kept);
        let kept = folder.open(&ID, 250, 100).unwrap().unwrap();
        assert_eq!(kept.read(2, 50).unwrap(), [3; 50]);
        assert!(kept.read(1, 100).is_none());
        kept.write(1, &[2; 100]);
        assert!(kept.whole().is_none(), "nobody compared chunk 0 yet");
        assert_eq!(kept.read(0, 100).unwrap(), [1; 100]);
        assert!(kept.whole().is_some());
        drop(kept);
        assert!(folder.open(&ID, 250, 100).unwrap().unwrap().whole().is_some());
    }

    #[test]
    fn a_chunk_that_a_crash_damaged_is_fetched_again_and_so_is_all_of_a_damaged_map() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 1000).unwrap();
        let kept = folder.open(&ID, 200, 100).unwrap().unwrap();
        kept.write(0, &[1; 100]);
        drop(kept);
        let path = dir.path().join(format!("{ID}.slide"));
        File::options().write(true).open(&path).unwrap().write_all_at(&[9], 50).unwrap();
        let kept = folder.open(&ID, 200, 100).unwrap().unwrap();
        assert!(kept.read(0, 100).is_none());
        kept.write(0, &[1; 100]);
        assert_eq!(kept.read(0, 100).unwrap(), [1; 100]);
        drop(kept);
        std::fs::write(path.with_extension("map"), "no map").unwrap();
        assert!(folder.open(&ID, 200, 100).unwrap().unwrap().read(0, 100).is_none());
    }

    #[test]
    fn the_layer_not_used_for_longest_makes_room_unless_it_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), (3 << 20) + (64 << 10)).unwrap();
        let open = |id: u8| folder.open(&Hash([id; 32]), 1 << 20, 1 << 20).unwrap();
        let has = |id: u8| dir.path().join(format!("{}.slide", Hash([id; 32]))).exists();
        let mut kept = Vec::new();
        for id in 1..=3 {
            let layer = open(id).unwrap();
            layer.write(0, &vec![id; 1 << 20]);
            let used = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(id.into());
            layer.map.set_modified(used).unwrap();
            kept.push(layer);
        }
        assert!(open(4).is_none(), "all are in use");
        kept.remove(1);
        kept.remove(0);
        assert!(open(4).is_some());
        assert!(!has(1) && has(2) && has(3));
        assert!(folder.open(&Hash([5; 32]), 4 << 20, 1 << 20).unwrap().is_none(), "larger than the cache");
    }
}
