//! Layers of servers, kept in a folder of this machine: for each a sparse file with the same bytes, and a map of the chunks that it has.
//!
//! The map has a hash of every chunk, and a chunk of an earlier process is compared with it before it is used for the first time: after a
//! crash the map is a hint. What this process has written or compared is sent from the file as that of any other layer is.
//! Several processes may use one folder: a layer in use is locked, and what two of them write is the same.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use nix::fcntl::{Flock, FlockArg};
use slidecast_net::text::os_error_text;
use slidecast_proto::units::Hash;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"SLCACHE2";
/// Magic, length of the layer.
const HEADER: u64 = 16;
const HASH: u64 = 32;
/// Locked by whoever makes room: it goes by what lies in the folder.
const LOCK: &str = "lock";

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

/// One layer in the folder.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: File,
    map: Flock<File>,
    chunk_bytes: u64,
    /// Which chunks were written or compared by this process.
    good: Mutex<Vec<bool>>,
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

    /// The place of the layer with this `name`, which has `bytes`. Layers that are not in use make room, those not used for longest first;
    /// `None` where there is no room for it.
    pub(super) fn open(&self, name: &Hash, bytes: u64, chunk_bytes: u64) -> io::Result<Option<Kept>> {
        let count = bytes.div_ceil(chunk_bytes);
        let both = bytes.saturating_add(map_bytes(count));
        if both > self.most_bytes {
            return Ok(None);
        }
        let path = self.folder.join(format!("{name}.slide"));
        let alone = lock(&self.folder.join(LOCK), FlockArg::LockExclusive)?;
        if !self.make_room(&path, both)? {
            return Ok(None);
        }
        let map = lock(&path.with_extension("map"), FlockArg::LockShared)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        // Its whole length counts from now on, whoever makes room.
        file.set_len(bytes)?;
        begin_map(&map, bytes, count)?;
        map.set_modified(SystemTime::now())?;
        drop(alone);
        let good = Mutex::new(vec![false; usize::try_from(count).unwrap_or(0)]);
        Ok(Some(Kept { path, file, map, chunk_bytes, good, is_full: AtomicBool::new(false) }))
    }

    /// Removes layers until `own`, which takes `bytes` with its map, fits beside the others. Each counts with its length, because one in use
    /// grows until all of it is there.
    fn make_room(&self, own: &Path, bytes: u64) -> io::Result<bool> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "slide") && path != own {
                let map = std::fs::metadata(path.with_extension("map")).ok();
                let len = entry.metadata().map_or(0, |layer| layer.len());
                let taken = len.saturating_add(map.as_ref().map_or(0, std::fs::Metadata::len));
                others.push((map.and_then(|map| map.modified().ok()), taken, path));
            }
        }
        others.sort();
        let mut taken = others.iter().fold(bytes, |sum, (_, taken, _)| sum.saturating_add(*taken));
        for (_, freed, path) in others {
            if taken <= self.most_bytes {
                break;
            }
            if remove_unless_used(&path) {
                taken = taken.saturating_sub(freed);
            }
        }
        Ok(taken <= self.most_bytes)
    }
}

/// How long the map of a layer with `count` chunks is.
fn map_bytes(count: u64) -> u64 {
    HEADER.saturating_add(count.saturating_mul(HASH))
}

/// The file at `path`, which is made if it is not there, locked.
fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}

/// Removes a layer that nobody uses.
fn remove_unless_used(path: &Path) -> bool {
    let map_path = path.with_extension("map");
    let Ok(map) = lock(&map_path, FlockArg::LockExclusiveNonblock) else { return false };
    // Without a name it is not the map that others lock.
    let is_named = map.metadata().is_ok_and(|map| map.nlink() > 0);
    // The map first: a layer without one is empty for whoever opens it, a map without its layer would claim what is not there.
    is_named && std::fs::remove_file(map_path).is_ok() && std::fs::remove_file(path).is_ok()
}

/// Begins the map anew if it is none of a layer with `bytes` in `count` chunks.
fn begin_map(map: &File, bytes: u64, count: u64) -> io::Result<()> {
    let mut header = [0; 16];
    let begun = map.read_exact_at(&mut header, 0).is_ok();
    if !begun || header[..8] != *MAGIC || header[8..] != bytes.to_le_bytes() {
        map.set_len(0)?;
        map.write_all_at(MAGIC, 0)?;
        map.write_all_at(&bytes.to_le_bytes(), 8)?;
    }
    map.set_len(map_bytes(count))
}

impl Kept {
    /// Chunk number `chunk` with `bytes`, if it is there and good.
    pub(super) fn read(&self, chunk: u64, bytes: u64) -> Option<Vec<u8>> {
        let at = usize::try_from(chunk).ok()?;
        let is_good = *self.lock().get(at)?;
        // Another process may have fetched it since.
        let claimed = if is_good { None } else { Some(self.claimed(chunk)?) };
        let mut content = vec![0; usize::try_from(bytes).ok()?];
        let read = self.file.read_exact_at(&mut content, chunk * self.chunk_bytes);
        if read.is_ok() && claimed.is_none_or(|hash| Hash::of(&content) == hash) {
            self.lock()[at] = true;
            return Some(content);
        }
        log::warn!("{}: chunk {chunk} is not what was written: it is fetched again", self.path.display());
        self.lock()[at] = false;
        None
    }

    /// The hash that the map has of a chunk; `None` if it is not there.
    fn claimed(&self, chunk: u64) -> Option<Hash> {
        let mut hash = [0; 32];
        self.map.read_exact_at(&mut hash, HEADER + chunk * HASH).ok()?;
        (hash != [0; 32]).then_some(Hash(hash))
    }

    /// Keeps chunk number `chunk`. A folder that takes nothing more costs nothing but the traffic.
    pub(super) fn write(&self, chunk: u64, content: &[u8]) {
        let Some(at) = usize::try_from(chunk).ok().filter(|_| !self.is_full.load(Ordering::Relaxed)) else { return };
        let hash = Hash::of(content);
        let written = self.file.write_all_at(content, chunk * self.chunk_bytes);
        match written.and_then(|()| self.map.write_all_at(&hash.0, HEADER + chunk * HASH)) {
            Ok(()) => self.lock()[at] = true,
            Err(error) => {
                self.is_full.store(true, Ordering::Relaxed);
                log::warn!("{}: nothing more is kept of this layer: {}", self.path.display(), os_error_text(&error));
            }
        }
    }

    /// Takes nothing of what is there for the layer any more, here and in later processes.
    pub(super) fn forget(&self) {
        self.lock().fill(false);
        // A map that cannot be cut says what it said: its chunks are compared as before.
        let _ = self.map.set_len(0);
    }

    /// The file, if it has every byte of `range`.
    pub(super) fn descriptor(&self, range: &Range<u64>) -> Option<BorrowedFd<'_>> {
        let first = usize::try_from(range.start / self.chunk_bytes).ok()?;
        let end = usize::try_from(range.end.div_ceil(self.chunk_bytes)).ok()?;
        let good = self.lock();
        good.get(first..end)?.iter().all(|good| *good).then(|| self.file.as_fd())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Hash = Hash([7; 32]);

    #[test]
    fn what_was_kept_is_there_for_the_next_process_and_is_sent_from_the_file_once_it_was_compared() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 1000).unwrap();
        let kept = folder.open(&ID, 250, 100).unwrap().unwrap();
        assert!(kept.read(0, 100).is_none() && kept.descriptor(&(0..1)).is_none());
        kept.write(0, &[1; 100]);
        kept.write(2, &[3; 50]);
        assert!(kept.descriptor(&(0..100)).is_some() && kept.descriptor(&(99..101)).is_none());
        drop(kept);
        let kept = folder.open(&ID, 250, 100).unwrap().unwrap();
        assert!(kept.descriptor(&(200..250)).is_none(), "nobody compared it yet");
        assert_eq!(kept.read(2, 50).unwrap(), [3; 50]);
        assert!(kept.descriptor(&(200..250)).is_some() && kept.descriptor(&(200..251)).is_some());
        assert!(kept.descriptor(&(200..301)).is_none() && kept.descriptor(&(0..u64::MAX)).is_none());
        assert!(kept.read(1, 100).is_none());
        kept.write(1, &[2; 100]);
        assert!(kept.descriptor(&(100..250)).is_some() && kept.descriptor(&(0..250)).is_none());
        assert_eq!(kept.read(0, 100).unwrap(), [1; 100]);
        assert!(kept.descriptor(&(0..250)).is_some());
        kept.forget();
        assert!(kept.read(0, 100).is_none() && kept.descriptor(&(0..1)).is_none());
        drop(kept);
        assert!(folder.open(&ID, 250, 100).unwrap().unwrap().read(0, 100).is_none());
    }

    #[test]
    fn what_another_process_fetches_meanwhile_is_not_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 1000).unwrap();
        let [ours, theirs] = [(); 2].map(|()| folder.open(&ID, 200, 100).unwrap().unwrap());
        assert!(ours.read(1, 100).is_none());
        theirs.write(1, &[2; 100]);
        assert!(ours.descriptor(&(100..200)).is_none(), "it is compared first");
        assert_eq!(ours.read(1, 100).unwrap(), [2; 100]);
        assert!(ours.descriptor(&(100..200)).is_some());
    }

    #[test]
    fn chunks_that_are_gone_are_neither_read_nor_sent_whatever_the_map_says() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 1000).unwrap();
        let fill = || {
            let kept = folder.open(&ID, 200, 100).unwrap().unwrap();
            kept.write(0, &[1; 100]);
            kept.write(1, &[1; 100]);
            assert!(kept.descriptor(&(0..200)).is_some());
        };
        fill();
        let path = dir.path().join(format!("{ID}.slide"));
        // Somebody empties the file, and it has its length again: zeros.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let kept = folder.open(&ID, 200, 100).unwrap().unwrap();
        assert!(kept.descriptor(&(0..100)).is_none() && kept.read(0, 100).is_none());
        assert!(kept.descriptor(&(0..100)).is_none());
        drop(kept);
        fill();
        std::fs::remove_file(&path).unwrap();
        let kept = folder.open(&ID, 200, 100).unwrap().unwrap();
        assert!(kept.descriptor(&(0..100)).is_none() && kept.read(0, 100).is_none());
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
        let folder = CacheFolder::new(dir.path(), 3 * ((1 << 20) + map_bytes(1))).unwrap();
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
        assert!(open(4).is_none() && !has(4), "all are in use");
        kept.remove(1);
        kept.remove(0);
        assert!(open(4).is_some());
        assert!(!has(1) && has(2) && has(3));
        assert!(folder.open(&Hash([5; 32]), 4 << 20, 1 << 20).unwrap().is_none(), "larger than the cache");
    }

    #[test]
    fn a_layer_counts_with_its_whole_length_from_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 10_000).unwrap();
        let open = |id: u8| folder.open(&Hash([id; 32]), 6000, 1000).unwrap();
        let first = open(1).unwrap();
        // Nothing of the first one is there yet, but all of it may come.
        assert!(open(2).is_none());
        drop(first);
        assert!(open(2).is_some());
    }

    #[test]
    fn a_layer_whose_removal_was_cut_short_claims_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::new(dir.path(), 10_000).unwrap();
        folder.open(&ID, 100, 100).unwrap().unwrap().write(0, &[1; 100]);
        let path = dir.path().join(format!("{ID}.slide"));
        std::fs::remove_file(path.with_extension("map")).unwrap();
        assert!(folder.open(&ID, 100, 100).unwrap().unwrap().read(0, 100).is_none());
        // It is removed as any other.
        std::fs::remove_file(path.with_extension("map")).unwrap();
        assert!(remove_unless_used(&path) && !path.exists() && !path.with_extension("map").exists());
    }
}
