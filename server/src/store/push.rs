//! Putting layers into a bucket: whole files under the names that they have here, made only where nothing of that name is.

use super::client::Client;
use super::s3::Object;
use super::xml::{field, parts};
use core::sync::atomic::{AtomicU16, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// How much is sent with one request.
pub(super) const LEAST_PART: u64 = 16 << 20;
/// S3 takes 10,000 parts.
const MAX_PARTS: u64 = 9_000;
/// The longest id of an upload.
const MAX_ID_BYTES: usize = 4096;
/// How many requests are under way.
const THREADS: usize = 3;
/// The longest that one part may take.
pub(super) const PART_TIME: Duration = Duration::from_secs(900);

/// A file that goes to an object.
#[derive(Debug)]
pub(super) struct Pushed<'a> {
    pub(super) client: &'a Client,
    pub(super) object: &'a Object,
    pub(super) file: &'a File,
    /// Its length.
    pub(super) bytes: u64,
    /// Where an upload of several parts is noted until it ends, so that another push goes on with it.
    pub(super) note: Option<&'a Path>,
}

/// An upload of several parts.
struct Upload {
    id: String,
    /// The entity tags of the parts that are there.
    tags: Vec<Option<String>>,
}

impl Pushed<'_> {
    /// Sends it. `done` is told how many more bytes are there, from several threads.
    pub(super) fn send(&self, done: &(impl Fn(u64) + Sync)) -> io::Result<()> {
        if self.bytes <= LEAST_PART {
            let content = piece(self.file, 0, self.bytes)?;
            self.client.put(|| self.object.put_url(), &content, true)?;
            done(self.bytes);
            return Ok(());
        }
        let upload = match self.unfinished()? {
            Some(upload) => upload,
            None => self.begin()?,
        };
        let parts = upload.tags.iter().enumerate().filter(|(_, tag)| tag.is_some());
        parts.for_each(|(at, _)| done(self.len_of(at as u64)));
        let ended = self.send_parts(&upload, done).and_then(|tags| {
            let (url, body) = self.object.complete(&upload.id, &tags);
            self.client.post(|| url.clone(), &body, true)
        });
        // The server may be back later, or take other credentials; what else is wrong stays wrong.
        let goes_on =
            matches!(&ended, Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::PermissionDenied));
        if self.note.is_some() && goes_on {
            return ended.map(drop);
        }
        if ended.is_err() {
            // Parts that stay cost money; that they are removed is no more than tried.
            let _ = self.client.delete(|| self.object.abort_url(&upload.id));
        }
        self.note.map(std::fs::remove_file);
        ended.map(drop)
    }

    /// How many bytes a part has, but the last one.
    fn part_bytes(&self) -> u64 {
        LEAST_PART.max(self.bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20))
    }

    /// The length of the part at place `at`, counted from 0.
    fn len_of(&self, at: u64) -> u64 {
        self.part_bytes().min(self.bytes.saturating_sub(at.saturating_mul(self.part_bytes())))
    }

    fn count(&self) -> u16 {
        u16::try_from(self.bytes.div_ceil(self.part_bytes())).unwrap_or(u16::MAX)
    }

    fn begin(&self) -> io::Result<Upload> {
        let answer = self.client.post(|| self.object.begin_url(), "", false)?;
        let id = field(&answer, "UploadId")
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the server began no upload of several parts"))?;
        if let Some(note) = self.note
            && let Err(error) = std::fs::write(note, &id)
        {
            log::warn!("{}: the upload cannot be continued if it is interrupted: {error}", note.display());
        }
        Ok(Upload { id, tags: vec![None; usize::from(self.count())] })
    }

    /// What an earlier push has left. What nobody can go on with is given up.
    fn unfinished(&self) -> io::Result<Option<Upload>> {
        let id = self.note.and_then(|note| std::fs::read_to_string(note).ok());
        let Some(id) = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES) else { return Ok(None) };
        match self.noted(&id) {
            // The server does not know it any more.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let _ = self.client.delete(|| self.object.abort_url(&id));
                Ok(None)
            }
            noted => noted.map(Some),
        }
    }

    /// The upload with this id, as the server has it.
    fn noted(&self, id: &str) -> io::Result<Upload> {
        let wrong = || io::Error::new(ErrorKind::InvalidData, "the server sends no list of parts");
        let mut tags = vec![None; usize::from(self.count())];
        let mut after = None;
        for _ in 0..MAX_PARTS {
            let text = self.client.text(|| self.object.parts_url(id, after))?;
            let (parts, next) = parts(&text).ok_or_else(wrong)?;
            for part in parts {
                let at = usize::from(part.number).wrapping_sub(1);
                let tag = tags.get_mut(at).ok_or_else(wrong)?;
                *tag = Some(part.tag).filter(|_| part.bytes == self.len_of(at as u64));
            }
            match next {
                Some(next) if after < Some(next) => after = Some(next),
                _ => return Ok(Upload { id: id.to_owned(), tags }),
            }
        }
        Err(wrong())
    }

    /// Sends the parts that are not there yet, and gives the entity tags of all.
    fn send_parts(&self, upload: &Upload, done: &(impl Fn(u64) + Sync)) -> io::Result<Vec<String>> {
        let (count, part) = (self.count(), self.part_bytes());
        let (next, tags) = (AtomicU16::new(0), Mutex::new(upload.tags.clone()));
        let send = || -> io::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                if upload.tags[usize::from(number)].is_some() {
                    continue;
                }
                let content = piece(self.file, u64::from(number) * part, self.len_of(number.into()))?;
                let tag = self.client.put(|| self.object.part_url(number + 1, &upload.id), &content, false);
                // The others need not go on.
                let tag = tag.inspect_err(|_| next.store(count, Ordering::Relaxed))?;
                let tag =
                    tag.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the server gives a part no tag"))?;
                tags.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(number)] = Some(tag);
                done(content.len() as u64);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..THREADS).map(|_| scope.spawn(send)).collect();
            let own = send();
            let others = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(ErrorKind::Other.into())));
            others.fold(own, Result::and)
        })?;
        let tags = tags.into_inner().unwrap_or_else(PoisonError::into_inner);
        tags.into_iter().collect::<Option<_>>().ok_or_else(|| ErrorKind::Other.into())
    }
}

/// Whether the server of `object` makes an object only where none is, if it is asked to: found out with an object beside it, which is removed.
pub(super) fn heeds_conditions(client: &Client, object: &Object) -> io::Result<bool> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let probe = object.beside(&format!(".slidecast-probe-{:016x}", u64::from_le_bytes(random)));
    client.put(|| probe.put_url(), b"slidecast looks whether this server heeds If-None-Match", true)?;
    let again = client.put(|| probe.put_url(), b"it does not", true);
    client.delete(|| probe.delete_url())?;
    match again {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
        Err(error) => Err(error),
    }
}

fn piece(file: &File, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut content, at).map(|()| content)
}
