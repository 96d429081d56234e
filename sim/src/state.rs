//! The state folder of the server: a disk that takes its time, on which the newest state that waits is written next. A server that is
//! killed loses what was not written; what was written stays there until it is removed, however often the server is started.

use crate::rng::Rng;
use slidecast_proto::deployment::Saved;
use std::time::Duration;

/// A state that is being written.
#[derive(Debug)]
struct Writing {
    /// Counts all writes: the end of a write that died with an earlier process of the server must not be taken for the end of this one.
    serial: u64,
    /// The number that the machine gave the state.
    number: u64,
    saved: Box<Saved>,
}

#[derive(Debug)]
pub(crate) struct StateFolder {
    rng: Rng,
    /// How long a write takes at most.
    slowest: Duration,
    kept: Option<Box<Saved>>,
    writing: Option<Writing>,
    /// What is written after it, with its number.
    next: Option<(u64, Box<Saved>)>,
    /// How many writes were begun.
    writes: u64,
}

impl StateFolder {
    /// An empty one.
    pub(crate) fn new(seed: u64, slowest: Duration) -> Self {
        Self { rng: Rng::new(seed, 8), slowest, kept: None, writing: None, next: None, writes: 0 }
    }

    /// An empty one in the place of this one.
    pub(crate) fn renew(&self, seed: u64, slowest: Duration) -> Self {
        Self { writes: self.writes, ..Self::new(seed, slowest) }
    }

    /// Has a state written. Gives the write that begins now, if one does, and how long it takes; [`Self::on_written`] is called then.
    pub(crate) fn keep(&mut self, number: u64, saved: Box<Saved>) -> Option<(u64, Duration)> {
        self.next = Some((number, saved));
        if self.writing.is_none() { self.begin() } else { None }
    }

    fn begin(&mut self) -> Option<(u64, Duration)> {
        let (number, saved) = self.next.take()?;
        self.writes += 1;
        self.writing = Some(Writing { serial: self.writes, number, saved });
        let most = u64::try_from(self.slowest.as_micros()).unwrap_or(0);
        Some((self.writes, Duration::from_micros(self.rng.between(0, most))))
    }

    /// This write is done, unless it was given up: the number of the state, and the next write as [`Self::keep`] gives it.
    pub(crate) fn on_written(&mut self, serial: u64) -> Option<(u64, Option<(u64, Duration)>)> {
        let Writing { number, saved, .. } = self.writing.take_if(|writing| writing.serial == serial)?;
        self.kept = Some(saved);
        Some((number, self.begin()))
    }

    /// The server was killed.
    pub(crate) fn on_killed(&mut self) {
        (self.writing, self.next) = (None, None);
    }

    /// Nothing is to be kept any more.
    pub(crate) fn remove(&mut self) {
        (self.kept, self.writing, self.next) = (None, None, None);
    }

    /// What is there for a server that was started again.
    pub(crate) fn kept(&self) -> Option<Box<Saved>> {
        self.kept.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(pass: u32) -> Box<Saved> {
        Box::new(Saved { pass, last_id: 0, elapsed: Duration::ZERO, nodes: Vec::new() })
    }

    fn pass(folder: &StateFolder) -> Option<u32> {
        folder.kept().map(|saved| saved.pass)
    }

    #[test]
    fn what_was_written_is_there_at_every_start_until_it_is_removed() {
        let mut folder = StateFolder::new(1, Duration::from_secs(1));
        let (serial, _) = folder.keep(1, saved(7)).expect("nothing else is being written");
        assert!(folder.on_written(serial).is_some_and(|(number, next)| number == 1 && next.is_none()));
        for _ in 0..2 {
            folder.on_killed();
            assert_eq!(pass(&folder), Some(7));
        }
        folder.remove();
        assert_eq!(pass(&folder), None);
    }

    #[test]
    fn the_end_of_a_write_that_died_with_the_server_does_not_count_for_another_one() {
        let mut folder = StateFolder::new(1, Duration::from_secs(1));
        let (died, _) = folder.keep(1, saved(1)).expect("nothing else is being written");
        folder.on_killed();
        let (serial, _) = folder.keep(1, saved(2)).expect("nothing else is being written");
        assert!(folder.on_written(died).is_none() && pass(&folder).is_none());
        assert!(folder.on_written(serial).is_some() && pass(&folder) == Some(2));
        let (removed, _) = folder.keep(2, saved(3)).expect("nothing else is being written");
        folder = folder.renew(2, Duration::from_secs(1));
        assert!(folder.keep(1, saved(4)).is_some_and(|(serial, _)| serial != removed));
        assert!(folder.on_written(removed).is_none());
    }
}
