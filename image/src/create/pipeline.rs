//! The threads: one reads the source, one decides, one writes, and as many as there are cores look at chunks and pack blocks.

use super::grain::Grain;
use super::map::{self, Mapped, Mapper};
use super::output::Output;
use super::pool::{Looked, Packed, Pool};
use super::prepare::Job;
use super::scan::{self, Segment};
use super::{CreateOptions, CreateProgress};
use crate::codec::Encoder;
use crate::error::{ImageError, Operation};
use crate::format::Row;
use core::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, available_parallelism, scope};

/// How much of the source is read at a time, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;
/// The most chunks that are on their way.
pub(super) const CHUNKS: usize = 16;

/// What the reader hands on, in the order of the disk.
enum Read {
    Unused(Range<u64>),
    Hole(Range<u64>),
    Inherited(Range<u64>),
    Chunk(u64, Receiver<Looked>),
    Failed(ImageError),
}

/// Runs all threads. Gives what was decided, the rows of the written blocks, and how many bytes were read.
pub(super) fn run(
    options: &CreateOptions,
    job: &Job<'_>,
    mut mapper: Mapper<'_>,
    output: &mut Output,
    progress: &impl Fn(CreateProgress),
) -> Result<(Mapped, Vec<Row>, u64), ImageError> {
    let workers = available_parallelism().map_or(1, usize::from);
    let pool = Pool::new(CHUNKS + 4 * workers);
    let start = |error| ImageError::io(Operation::Start, &options.output, None)(error);
    let encoders: Vec<_> = (0..workers)
        .map(|_| Encoder::new(options.codec, job.sizes.block as usize))
        .collect::<Result<_, _>>()
        .map_err(start)?;
    let stored = AtomicU64::new(0);
    let (read_sender, reads) = sync_channel(CHUNKS);
    let (slot_sender, slots) = sync_channel::<Receiver<Packed>>(2 * workers);
    let grain = job.sizes.grain as usize;
    scope(|scope| {
        let (pool, stored) = (&pool, &stored);
        // Whatever way this closure is left, the workers must end.
        let closing = Closing(pool);
        for (no, encoder) in encoders.into_iter().enumerate() {
            let name = format!("slidecast-pack{no}");
            Builder::new().name(name).spawn_scoped(scope, move || pool.work(encoder, grain)).map_err(start)?;
        }
        let reader = Builder::new().name("slidecast-read".into());
        let reader = reader.spawn_scoped(scope, move || read(job, pool, &read_sender)).map_err(start)?;
        let writer = Builder::new().name("slidecast-save".into());
        let writer = writer
            .spawn_scoped(scope, move || {
                let slots = slots;
                output.write_blocks(&slots, pool, |bytes| stored.store(bytes, Ordering::Relaxed))
            })
            .map_err(start)?;

        let decided = {
            let slot_sender = slot_sender;
            let mut store = |raw: Vec<u8>| {
                let block = job.sizes.block as usize;
                // The writer only goes away when it has failed; its own error is the one to tell.
                slot_sender.send(pool.pack(raw)).map_err(|_| ImageError::Worker)?;
                Ok(pool.buffer(block))
            };
            decide(job, pool, &reads, &mut mapper, &mut store, |done_bytes| {
                let stored_bytes = stored.load(Ordering::Relaxed);
                progress(CreateProgress::Reading { done_bytes, disk_bytes: job.source.bytes(), stored_bytes });
            })
            .and_then(|()| mapper.finish(&mut store))
        };
        drop(reads);
        let read_bytes = reader.join().map_err(|_| ImageError::Worker)?;
        let rows = writer.join().map_err(|_| ImageError::Worker)?;
        drop(closing);
        match (decided, rows) {
            (Ok(mapped), Ok(rows)) => Ok((mapped, rows, read_bytes)),
            (Err(ImageError::Worker) | Ok(_), Err(error)) | (Err(error), _) => Err(error),
        }
    })
}

struct Closing<'a>(&'a Pool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The reader: hands on all segments until there are no more or nobody takes them. Gives the bytes read.
fn read(job: &Job<'_>, pool: &Pool, reads: &SyncSender<Read>) -> u64 {
    /// Why reading ends early.
    enum Stop {
        Failed(ImageError),
        NobodyListens,
    }
    impl From<std::io::Error> for Stop {
        fn from(error: std::io::Error) -> Self {
            Self::Failed(ImageError::io(Operation::Read, PathBuf::new(), None)(error))
        }
    }
    let grain = u64::from(job.sizes.grain);
    let mut sum = 0;
    let ended = scan::scan(job.source, &job.free, grain, CHUNK_BYTES.div_ceil(grain), |segment| {
        let read = match segment {
            Segment::Unused(range) => Read::Unused(range),
            Segment::Hole(range) => Read::Hole(range),
            Segment::Inherited(range) => Read::Inherited(range),
            Segment::Read(range) => {
                let len = usize::try_from((range.end - range.start) * grain).unwrap_or(0);
                let offset = range.start * grain;
                let on_disk = usize::try_from(job.source.bytes() - offset).unwrap_or(usize::MAX).min(len);
                let mut buffer = pool.buffer(len);
                buffer.resize(len, 0);
                let result = job.source.read_at(offset, &mut buffer[..on_disk]);
                result
                    .map_err(|error| Stop::Failed(ImageError::io(Operation::Read, job.source.path(), offset)(error)))?;
                sum += on_disk as u64;
                Read::Chunk(range.start, pool.look(buffer))
            }
        };
        reads.send(read).map_err(|_| Stop::NobodyListens)
    });
    if let Err(Stop::Failed(error)) = ended {
        let _ = reads.send(Read::Failed(error));
    }
    sum
}

/// Decides about everything that was read, in order.
fn decide(
    job: &Job<'_>,
    pool: &Pool,
    reads: &Receiver<Read>,
    mapper: &mut Mapper<'_>,
    store: &mut map::Store<'_>,
    mut done: impl FnMut(u64),
) -> Result<(), ImageError> {
    let grain = job.sizes.grain as usize;
    let mut end = 0;
    while let Ok(read) = reads.recv() {
        match read {
            Read::Failed(error) => return Err(error),
            Read::Unused(range) => {
                mapper.unused(range.start, range.end, store)?;
                end = range.end;
            }
            Read::Hole(range) => {
                mapper.fill(0, range.start, range.end, store)?;
                end = range.end;
            }
            Read::Inherited(range) => {
                mapper.inherited(range.start, range.end);
                end = range.end;
            }
            Read::Chunk(first, looked) => {
                let looked = looked.recv().map_err(|_| ImageError::Worker)?;
                for (target, (kind, bytes)) in (first..).zip(looked.grains.iter().zip(looked.bytes.chunks_exact(grain)))
                {
                    match *kind {
                        Grain::Fill(pattern) => mapper.fill(pattern, target, target + 1, store)?,
                        Grain::Data(hash) => mapper.data(target, hash, bytes, store)?,
                    }
                    end = target + 1;
                }
                pool.give_back(looked.bytes);
            }
        }
        done((end * grain as u64).min(job.source.bytes()));
    }
    // The reader that was cut short has said so; one that is simply gone has not.
    if end == job.source.bytes().div_ceil(grain as u64) { Ok(()) } else { Err(ImageError::Worker) }
}
