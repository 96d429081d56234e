//! A target in memory that keeps a log of everything done to it, and breaks where it is told to.

use crate::target::{TargetFacts, TargetIo};
use core::ops::Range;
use nix::errno::Errno;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Write { at: u64, bytes: Vec<u8> },
    Flush,
    Read(Range<u64>),
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Writes that touch this byte fail.
    pub(super) write_at: Option<u64>,
    /// Reads that touch this byte fail.
    pub(super) read_at: Option<u64>,
    /// This flush fails (the first is 0); later ones would go well.
    pub(super) flush_no: Option<usize>,
    /// Writes that touch this byte go nowhere, so many times.
    pub(super) lost_at: Option<(u64, usize)>,
    /// The first write of at least a grain in this range lands so many bytes lower, once.
    pub(super) misdirect: Option<(Range<u64>, u64)>,
    /// This byte changes when it has been read once.
    pub(super) rots_once_read: Option<u64>,
    /// The disk has so many bytes: what is beyond is what is below once more.
    pub(super) wraps_at: Option<u64>,
    /// Calls to make zeros leave what was there.
    pub(super) zero_lies: bool,
    /// There is no call to make zeros.
    pub(super) no_zero_call: bool,
    /// The size changes after the target was opened.
    pub(super) bytes_now: Option<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) disk: Vec<u8>,
    pub(super) log: Vec<Step>,
    pub(super) faults: Faults,
    pub(super) zero_calls: usize,
    flushes: usize,
}

/// Handles on the same target: one for the engine, one for the test.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    facts: TargetFacts,
    state: Arc<Mutex<State>>,
}

impl Recorder {
    pub(super) fn new(disk: Vec<u8>, sector: u32, rotational: bool) -> Self {
        let facts = TargetFacts {
            path: "/dev/test".into(),
            bytes: disk.len() as u64,
            sector,
            rotational,
            direct: true,
            file: false,
        };
        let state = State { disk, log: vec![], faults: Faults::default(), zero_calls: 0, flushes: 0 };
        Self { facts, state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A regular file: its size is true, and nothing of it is probed.
    pub(super) fn file(mut self) -> Self {
        self.facts.file = true;
        self
    }

    pub(super) fn cached(mut self) -> Self {
        self.facts.direct = false;
        self
    }

    /// A fresh target that holds `disk`, as if the machine had been started again.
    pub(super) fn restarted(&self, disk: Vec<u8>) -> Self {
        Self::new(disk, self.facts.sector, self.facts.rotational)
    }

    fn check(&self, at: u64, len: usize, memory: *const u8) {
        let sector = u64::from(self.facts.sector);
        assert_eq!((at % sector, len as u64 % sector), (0, 0), "whole sectors");
        assert_eq!(memory as usize % 512, 0, "memory for direct I/O");
        assert!(at + len as u64 <= self.facts.bytes, "inside the target");
    }
}

fn range(bytes: &Range<u64>) -> Range<usize> {
    usize::try_from(bytes.start).unwrap()..usize::try_from(bytes.end).unwrap()
}

fn touches(fault: Option<u64>, bytes: &Range<u64>) -> bool {
    fault.is_some_and(|at| bytes.contains(&at))
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(Errno::EIO as i32)
}

impl TargetIo for Recorder {
    fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn bytes_now(&self) -> io::Result<u64> {
        Ok(self.state().faults.bytes_now.unwrap_or(self.facts.bytes))
    }

    fn write(&self, offset: u64, pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces.iter() {
            self.check(at, piece.len(), piece.as_ptr());
            at += piece.len() as u64;
        }
        let bytes = pieces.iter().map(|piece| &piece[..]).collect::<Vec<_>>().concat();
        let mut state = self.state();
        if touches(state.faults.write_at, &(offset..at)) {
            return Err(broken());
        }
        if let Some(wraps_at) = state.faults.wraps_at {
            for (no, byte) in (offset..).zip(&bytes) {
                state.disk[usize::try_from(no % wraps_at).unwrap()] = *byte;
            }
            state.log.push(Step::Write { at: offset, bytes });
            return Ok(());
        }
        let lower = state.faults.misdirect.take_if(|(within, _)| within.contains(&offset) && at - offset >= 4096);
        let lands = offset - lower.map_or(0, |(_, lower)| lower);
        match &mut state.faults.lost_at {
            Some((byte, times)) if *times > 0 && (offset..at).contains(byte) => *times -= 1,
            _ => state.disk[range(&(lands..lands + (at - offset)))].copy_from_slice(&bytes),
        }
        state.log.push(Step::Write { at: offset, bytes });
        Ok(())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.check(offset, into.len(), into.as_ptr());
        let bytes = offset..offset + into.len() as u64;
        let mut state = self.state();
        if touches(state.faults.read_at, &bytes) {
            return Err(broken());
        }
        if let Some(wraps_at) = state.faults.wraps_at {
            for (no, byte) in (offset..).zip(into.iter_mut()) {
                *byte = state.disk[usize::try_from(no % wraps_at).unwrap()];
            }
        } else {
            into.copy_from_slice(&state.disk[range(&bytes)]);
        }
        if let Some(byte) = state.faults.rots_once_read.take_if(|byte| bytes.contains(byte)) {
            state.disk[usize::try_from(byte).unwrap()] ^= 1;
        }
        state.log.push(Step::Read(bytes));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        state.flushes += 1;
        if state.faults.flush_no == Some(state.flushes - 1) {
            return Err(broken());
        }
        state.log.push(Step::Flush);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<bool> {
        let bytes = offset..offset + len;
        let mut state = self.state();
        if state.faults.no_zero_call {
            return Ok(false);
        }
        state.zero_calls += 1;
        if !state.faults.zero_lies {
            if let Some(wraps_at) = state.faults.wraps_at {
                bytes.clone().for_each(|no| state.disk[usize::try_from(no % wraps_at).unwrap()] = 0);
            } else {
                state.disk[range(&bytes)].fill(0);
            }
            state.log.push(Step::Write { at: offset, bytes: vec![0; usize::try_from(len).unwrap()] });
        }
        Ok(true)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<bool> {
        // Nothing may rely on what a discarded range reads as.
        let bytes = vec![0xdd; usize::try_from(len).unwrap()];
        let mut state = self.state();
        state.disk[range(&(offset..offset + len))].copy_from_slice(&bytes);
        state.log.push(Step::Write { at: offset, bytes });
        Ok(true)
    }

    fn drop_cache(&self) {}

    fn reread_table(&self) -> io::Result<()> {
        Ok(())
    }
}
