//! What the threads of the engine share: the target, the schedule under its lock, and the ways to wait for it.

use super::fault::{Fault, Object};
use super::job::{BlockJob, EngineOptions};
use super::layout::Layout;
use super::look::Sample;
use super::shadow::Shadow;
use super::used::Used;
use super::window::Window;
use crate::target::TargetIo;
use core::fmt;
use slidecast_image::manifest::{ManifestHeader, Part};
use slidecast_net::clock::Clock;
use slidecast_proto::schedule::{Control, Read, Write};
use slidecast_proto::units::{Hash, Time};
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The schedule of a real disk.
pub(super) type Schedule = slidecast_proto::schedule::Schedule<BlockJob, Part>;

/// See the file's head.
pub(super) struct Shared {
    pub(super) io: Box<dyn TargetIo>,
    pub(super) header: Arc<ManifestHeader>,
    pub(super) root: Hash,
    pub(super) options: EngineOptions,
    pub(super) layout: Layout,
    /// Only for disks with heads.
    pub(super) window: Option<Window>,
    pub(super) schedule: Mutex<Schedule>,
    pub(super) clock: Clock,
    pub(super) shadow: Mutex<Shadow>,
    /// Only with `--free zero`.
    pub(super) used: Mutex<Option<Used>>,
    /// The blocks that the last look takes.
    pub(super) sample: Sample,
    pub(super) to_write: Condvar,
    pub(super) to_control: Condvar,
    pub(super) to_read: Condvar,
    pub(super) wake: Box<dyn Fn() + Send + Sync>,
    pub(super) written_bytes: AtomicU64,
    /// The target has no call that makes zeros.
    pub(super) no_zero_call: AtomicBool,
}

impl Shared {
    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of the schedule.
    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(super) fn shadow(&self) -> MutexGuard<'_, Shadow> {
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn used(&self) -> MutexGuard<'_, Option<Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the schedule something, then wakes whoever has something to do because of it.
    pub(super) fn with<R>(&self, tell: impl FnOnce(&mut Schedule) -> R) -> R {
        let mut schedule = self.schedule();
        let had_events = schedule.has_events();
        let answer = tell(&mut schedule);
        let wants = schedule.wants(self.now());
        let news = !had_events && schedule.has_events();
        drop(schedule);
        if wants.over {
            self.to_write.notify_all();
            self.to_read.notify_all();
            self.to_control.notify_one();
            self.window.iter().for_each(Window::close);
        } else {
            if wants.write {
                self.to_write.notify_one();
            }
            if wants.read {
                self.to_read.notify_one();
            }
            if wants.control {
                self.to_control.notify_one();
            }
        }
        if news {
            (self.wake)();
        }
        answer
    }

    /// Waits for something to write; `None` once all is over.
    pub(super) fn next_write(&self) -> Option<Write<BlockJob, Part>> {
        let mut schedule = self.schedule();
        while !schedule.is_over() {
            if let Some(write) = schedule.poll_write() {
                return Some(write);
            }
            schedule = self.to_write.wait(schedule).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Waits for something to read; `None` once all is over.
    pub(super) fn next_read(&self) -> Option<Read<Part>> {
        let mut schedule = self.schedule();
        loop {
            match schedule.poll_read() {
                Read::Exit => return None,
                Read::Wait => schedule = self.to_read.wait(schedule).unwrap_or_else(PoisonError::into_inner),
                read => return Some(read),
            }
        }
    }

    /// Waits for something that the control thread is to do; `None` once all is over.
    pub(super) fn next_control(&self) -> Option<Control<Part>> {
        let mut schedule = self.schedule();
        loop {
            let now = self.now();
            schedule = match schedule.poll_control(now) {
                Control::Exit => return None,
                Control::Wait(None) => self.to_control.wait(schedule).unwrap_or_else(PoisonError::into_inner),
                Control::Wait(Some(due)) => {
                    let rest = due.since(now);
                    self.to_control.wait_timeout(schedule, rest).unwrap_or_else(PoisonError::into_inner).0
                }
                step => return Some(step),
            };
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.schedule().is_over()
    }

    /// Ends everything with a failure; only the first one counts.
    pub(super) fn fail(&self, fault: &Fault) {
        let failure = fault.report(self.path());
        self.with(|schedule| schedule.on_failure(failure));
    }

    pub(super) fn path(&self) -> &str {
        &self.io.facts().path
    }

    pub(super) fn write(&self, object: Object, at: u64, pieces: &mut [IoSlice<'_>]) -> Result<(), Fault> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.io.write(at, pieces).map_err(|source| Fault::Write { object, at, source })?;
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn read(&self, object: Object, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.io.read(at, into).map_err(|source| Fault::Read { object, at, source })
    }

    pub(super) fn flush(&self) -> Result<(), Fault> {
        self.io.flush().map_err(|source| Fault::Flush { source })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.path())
    }
}
