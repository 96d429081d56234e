//! The second phase of a connection: requests and replies.
//!
//! Several threads serve one connection. Each reads a request while it holds the reading end, carries it out on its own, and
//! writes the reply while it holds the writing end; so a client with several requests under way has several blocks unpacked
//! at once. Nothing is queued: a client that reads no replies gets no further request read.

use super::listen::Stream;
use super::negotiate::Chosen;
use super::wire::{
    CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, EINVAL, EIO,
    EOVERFLOW, EPERM, FLAG_DF, FLAG_REQ_ONE, MAX_PAYLOAD, REQUEST_BYTES, Request, STATE_HOLE, STATE_ZERO, data_chunk,
    error_chunk, hole_chunk, none_chunk, simple_reply, status_chunk,
};
use core::ops::Range;
use slidecast_image::disk::{Allocation, DiskView};
use slidecast_net::text::one_line;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Mutex, PoisonError};

/// How many threads serve one connection.
const THREADS: usize = 2;
/// How many bytes of a read are in memory at once, for each thread.
const PIECE_BYTES: u32 = 256 << 10;
/// Zeros of at least this length are sent as a hole.
const MIN_HOLE_BYTES: u64 = 32 << 10;
/// The most runs of one block status; a client asks again behind them.
const MAX_RUNS: usize = 4096;
/// How far ahead a cache request reaches.
const MAX_CACHE_BYTES: u64 = 32 << 20;

/// A client, and what it gets.
#[derive(Debug)]
struct Client<'a> {
    reading: Mutex<&'a Stream>,
    writing: Mutex<&'a Stream>,
    view: &'a DiskView,
    chosen: Chosen,
}

/// How a request ended.
enum Outcome {
    /// All went well, and there is nothing to say about it.
    Done,
    /// It failed with an error of the protocol.
    Refused(u32),
    /// The reply is on its way already.
    Replied,
}

/// Serves `stream` until the client leaves or breaks the protocol.
pub(super) fn serve(stream: &Stream, view: &DiskView, chosen: Chosen) {
    let client = Client { reading: Mutex::new(stream), writing: Mutex::new(stream), view, chosen };
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            // Without a second thread the first one serves alone.
            let _ = std::thread::Builder::new().name("nbd".into()).spawn_scoped(scope, || client.work(stream));
        }
        client.work(stream);
    });
}

impl Client<'_> {
    fn work(&self, stream: &Stream) {
        let mut buffer = Vec::new();
        let ended = loop {
            match self.next_request() {
                Ok(Some(request)) => {
                    if let Err(error) = self.carry_out(request, &mut buffer) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match ended {
            // What other threads still answer is written.
            Ok(()) => stream.shutdown_reading(),
            Err(error) => {
                log::debug!("an NBD connection ended: {}", one_line(&error));
                stream.shutdown();
            }
        }
    }

    /// The next request; `None` once the client leaves.
    fn next_request(&self) -> io::Result<Option<Request>> {
        let stream = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stream: &Stream = &stream;
        let mut bytes = [0; REQUEST_BYTES];
        match stream.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let broken = |what| io::Error::new(ErrorKind::InvalidData, what);
        let request = Request::parse(&bytes).ok_or_else(|| broken("the client sent something that is no request"))?;
        if request.command == CMD_WRITE {
            if request.len > MAX_PAYLOAD {
                return Err(broken("the client sends a longer write than any server takes"));
            }
            let len = u64::from(request.len);
            if io::copy(&mut stream.take(len), &mut io::sink())? < len {
                return Ok(None);
            }
        }
        Ok((request.command != CMD_DISC).then_some(request))
    }

    fn carry_out(&self, request: Request, buffer: &mut Vec<u8>) -> io::Result<()> {
        let range = request.offset..request.offset.saturating_add(request.len.into());
        let within = request.len > 0 && range.end <= self.view.bytes();
        let known = match request.command {
            CMD_READ if self.chosen.structured => FLAG_DF,
            CMD_BLOCK_STATUS => FLAG_REQ_ONE,
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES => u16::MAX,
            _ => 0,
        };
        let outcome = match request.command {
            _ if request.flags & !known != 0 => Outcome::Refused(EINVAL),
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES => Outcome::Refused(EPERM),
            CMD_FLUSH => Outcome::Done,
            CMD_READ | CMD_CACHE | CMD_BLOCK_STATUS if !within => Outcome::Refused(EINVAL),
            CMD_READ if request.len > MAX_PAYLOAD => Outcome::Refused(EINVAL),
            CMD_READ if request.flags & FLAG_DF != 0 && request.len > PIECE_BYTES => Outcome::Refused(EOVERFLOW),
            CMD_READ if self.chosen.structured => self.read_structured(&request, range, buffer)?,
            CMD_READ => self.read_simple(&request, range, buffer)?,
            CMD_CACHE => {
                self.view.prefetch(range.start..range.end.min(range.start + MAX_CACHE_BYTES));
                Outcome::Done
            }
            CMD_BLOCK_STATUS if self.chosen.status => self.status(&request, range)?,
            _ => Outcome::Refused(EINVAL),
        };
        match (outcome, self.chosen.structured) {
            (Outcome::Replied, _) => Ok(()),
            (Outcome::Done, true) => self.write(&none_chunk(request.cookie), &[]),
            (Outcome::Refused(error), true) => self.write(&error_chunk(request.cookie, error), &[]),
            (Outcome::Done, false) => self.write(&simple_reply(request.cookie, 0), &[]),
            (Outcome::Refused(error), false) => self.write(&simple_reply(request.cookie, error), &[]),
        }
    }

    fn write(&self, head: &[u8], content: &[u8]) -> io::Result<()> {
        let stream = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        write_both(&stream, head, content)
    }

    /// Reads `range`, which is at most [`PIECE_BYTES`] long, into `buffer`. `false` if it cannot be read, which is logged.
    fn fetch(&self, range: &Range<u64>, buffer: &mut Vec<u8>) -> bool {
        buffer.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
        let read = self.view.read_at(range.start, buffer);
        read.inspect_err(|error| log::warn!("an NBD read at {} failed: {}", range.start, one_line(error))).is_ok()
    }

    /// A read with one chunk for each piece; long zeros are not sent.
    fn read_structured(&self, request: &Request, range: Range<u64>, buffer: &mut Vec<u8>) -> io::Result<Outcome> {
        let mut at = range.start;
        if request.flags & FLAG_DF == 0 {
            for (run, kind) in self.view.allocations(range.clone()) {
                let len = run.end - run.start;
                if kind == Allocation::Data || len < MIN_HOLE_BYTES && len < range.end - range.start {
                    continue;
                }
                if !self.send_data(request, at..run.start, false, buffer)? {
                    return Ok(Outcome::Refused(EIO));
                }
                let done = run.end == range.end;
                let hole = hole_chunk(request.cookie, done, run.start, u32::try_from(len).unwrap_or(u32::MAX));
                self.write(&hole, &[])?;
                at = run.end;
            }
        }
        let good = self.send_data(request, at..range.end, true, buffer)?;
        Ok(if good { Outcome::Replied } else { Outcome::Refused(EIO) })
    }

    /// Sends `range` piece by piece; the last piece ends the reply if it is the `last` of it.
    fn send_data(&self, request: &Request, range: Range<u64>, last: bool, buffer: &mut Vec<u8>) -> io::Result<bool> {
        for piece in pieces(range.clone()) {
            if !self.fetch(&piece, buffer) {
                return Ok(false);
            }
            let done = last && piece.end == range.end;
            self.write(&data_chunk(request.cookie, done, piece.start, buffer.len()), buffer)?;
        }
        Ok(true)
    }

    /// A read in one reply. What follows its head cannot be taken back: if a later piece cannot be read, the connection ends.
    fn read_simple(&self, request: &Request, range: Range<u64>, buffer: &mut Vec<u8>) -> io::Result<Outcome> {
        let mut pieces = pieces(range);
        let Some(first) = pieces.next().filter(|first| self.fetch(first, buffer)) else {
            return Ok(Outcome::Refused(EIO));
        };
        let stream = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert_eq!(first.start, request.offset);
        write_both(&stream, &simple_reply(request.cookie, 0), buffer)?;
        for piece in pieces {
            if !self.fetch(&piece, buffer) {
                return Err(io::Error::other("a block cannot be read, and the head of the reply is sent"));
            }
            write_both(&stream, buffer, &[])?;
        }
        Ok(Outcome::Replied)
    }

    fn status(&self, request: &Request, range: Range<u64>) -> io::Result<Outcome> {
        let most = if request.flags & FLAG_REQ_ONE == 0 { MAX_RUNS } else { 1 };
        let runs = self.view.allocations(range).take(most).map(|(run, kind)| {
            let state = match kind {
                Allocation::Data => 0,
                Allocation::Zero => STATE_ZERO,
                Allocation::Unused => STATE_HOLE | STATE_ZERO,
            };
            (u32::try_from(run.end - run.start).unwrap_or(u32::MAX), state)
        });
        self.write(&status_chunk(request.cookie, &runs.collect::<Vec<_>>()), &[])?;
        Ok(Outcome::Replied)
    }
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let starts = range.clone().step_by(PIECE_BYTES as usize);
    starts.map(move |start| start..range.end.min(start + u64::from(PIECE_BYTES)))
}

fn write_both(mut stream: &Stream, head: &[u8], content: &[u8]) -> io::Result<()> {
    let mut slices = [io::IoSlice::new(head), io::IoSlice::new(content)];
    let mut rest = &mut slices[..];
    while rest.iter().any(|slice| !slice.is_empty()) {
        match stream.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => io::IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
