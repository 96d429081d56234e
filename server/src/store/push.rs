//! Putting layers into a bucket: whole files under the names that they have here, made only where nothing of that name is.

use super::client::Client;
use super::s3::Object;
use core::sync::atomic::{AtomicU16, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// How much is sent with one request.
const LEAST_PART: u64 = 16 << 20;
/// S3 takes 10,000 parts.
const MAX_PARTS: u64 = 9_000;
/// How many requests are under way.
const THREADS: usize = 3;
/// The longest that one part may take.
pub(super) const PART_TIME: Duration = Duration::from_secs(900);

/// Sends `bytes` of `file` to `object`. `done` is told how many more bytes are there, from several threads.
pub(super) fn push(
    client: &Client,
    object: &Object,
    file: &File,
    bytes: u64,
    done: &(impl Fn(u64) + Sync),
) -> io::Result<()> {
    if bytes <= LEAST_PART {
        let content = piece(file, 0, bytes)?;
        client.put(|| object.put_url(), &content, true)?;
        done(bytes);
        return Ok(());
    }
    let upload = client.post(|| object.begin_url(), "", false)?;
    let upload = super::s3::upload_id(&upload)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the server began no upload of several parts"))?;
    let sent = send_parts(client, object, &upload, file, bytes, done);
    let ended = sent.and_then(|tags| {
        let (url, body) = object.complete(&upload, &tags);
        client.post(|| url.clone(), &body, true)
    });
    if ended.is_err() {
        // Parts that stay cost money; that they are removed is no more than tried.
        let _ = client.delete(|| object.abort_url(&upload));
    }
    ended.map(drop)
}

fn piece(file: &File, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut content, at).map(|()| content)
}

/// Sends all parts, and gives their entity tags.
fn send_parts(
    client: &Client,
    object: &Object,
    upload: &str,
    file: &File,
    bytes: u64,
    done: &(impl Fn(u64) + Sync),
) -> io::Result<Vec<String>> {
    let part = LEAST_PART.max(bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20));
    let count = u16::try_from(bytes.div_ceil(part)).unwrap_or(u16::MAX);
    let (next, tags) = (AtomicU16::new(0), Mutex::new(vec![None; usize::from(count)]));
    let send = || -> io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let at = u64::from(number) * part;
            let content = piece(file, at, part.min(bytes - at))?;
            let tag = client.put(|| object.part_url(number + 1, upload), &content, false);
            // The others need not go on.
            let tag = tag.inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            let tag = tag.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the server gives a part no tag"))?;
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
