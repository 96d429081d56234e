//! Pieces of something large in memory, those used last: unpacked blocks of a disk, chunks of a layer that lies far away. What several
//! threads want at once is fetched once, and all of them are told if it cannot be had.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many pieces that had to go keep their memory for others.
const MAX_SPARE: usize = 4;

/// Pieces by number. `E` is why one could not be loaded.
#[derive(Debug)]
pub struct Recent<E> {
    most_bytes: usize,
    kept: Mutex<Kept<E>>,
}

#[derive(Debug)]
struct Kept<E> {
    slots: HashMap<u64, Slot<E>>,
    bytes: usize,
    /// Memory of pieces that had to go: an allocator that several threads use keeps more than it gives.
    spare: Vec<Arc<[u8]>>,
    /// Counts uses.
    now: u64,
}

#[derive(Debug)]
enum Slot<E> {
    /// Some thread fetches it.
    Loading(Arc<Attempt<E>>),
    Ready {
        bytes: Arc<[u8]>,
        used: u64,
    },
}

/// A piece, or why there is none.
type Outcome<E> = Result<Arc<[u8]>, Arc<E>>;

/// One loading of a piece, with those who wait for it.
#[derive(Debug)]
struct Attempt<E> {
    outcome: Mutex<Option<Outcome<E>>>,
    ended: Condvar,
}

impl<E> Attempt<E> {
    fn wait(&self) -> Outcome<E> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => outcome = self.ended.wait(outcome).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn end(&self, outcome: Outcome<E>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.ended.notify_all();
    }
}

impl<E> Recent<E> {
    /// Keeps at most `most_bytes`.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, kept: Mutex::new(Kept { slots: HashMap::new(), bytes: 0, spare: Vec::new(), now: 0 }) }
    }

    /// Piece `number`, made by `load` if it is not there. Threads that want it meanwhile wait, and get the same outcome. A piece that
    /// could not be loaded is tried again the next time.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn get(&self, number: u64, load: impl FnOnce() -> Result<Arc<[u8]>, E>) -> Result<Arc<[u8]>, Arc<E>> {
        let mut kept = self.lock();
        kept.now += 1;
        let now = kept.now;
        let attempt = match kept.slots.get_mut(&number) {
            Some(Slot::Ready { bytes, used }) => {
                *used = now;
                return Ok(Arc::clone(bytes));
            }
            Some(Slot::Loading(attempt)) => {
                let attempt = Arc::clone(attempt);
                drop(kept);
                return attempt.wait();
            }
            None => Arc::new(Attempt { outcome: Mutex::new(None), ended: Condvar::new() }),
        };
        kept.slots.insert(number, Slot::Loading(Arc::clone(&attempt)));
        drop(kept);
        let outcome = load().map_err(Arc::new);
        let mut kept = self.lock();
        match &outcome {
            Ok(bytes) => kept.put(number, bytes, self.most_bytes),
            Err(_) => drop(kept.slots.remove(&number)),
        }
        drop(kept);
        // Nobody can begin to wait any more.
        if Arc::strong_count(&attempt) > 1 {
            attempt.end(outcome.clone());
        }
        outcome
    }

    /// A piece with this content, in the memory of one that had to go if there is any.
    #[must_use]
    pub fn piece(&self, content: &[u8]) -> Arc<[u8]> {
        let mut kept = self.lock();
        let same = kept.spare.iter().position(|spare| spare.len() == content.len() && Arc::strong_count(spare) == 1);
        let mut spare = same.map(|at| kept.spare.swap_remove(at));
        drop(kept);
        match spare.as_mut().and_then(Arc::get_mut) {
            Some(room) => room.copy_from_slice(content),
            None => spare = None,
        }
        spare.unwrap_or_else(|| Arc::from(content))
    }

    /// Whether piece `number` is there, or on its way.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.lock().slots.contains_key(&number)
    }

    fn lock(&self) -> MutexGuard<'_, Kept<E>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Kept<E> {
    fn put(&mut self, number: u64, bytes: &Arc<[u8]>, most_bytes: usize) {
        self.bytes += bytes.len();
        self.slots.insert(number, Slot::Ready { bytes: Arc::clone(bytes), used: self.now });
        while self.bytes > most_bytes {
            let ready = self.slots.iter().filter_map(|(number, slot)| match slot {
                Slot::Ready { bytes, used } => Some((*used, *number, bytes.len())),
                Slot::Loading(_) => None,
            });
            // Few pieces fit: looking at all of them costs less than fetching one.
            let Some((_, oldest, len)) = ready.min() else { return };
            let removed = self.slots.remove(&oldest);
            self.bytes -= len;
            if let Some(Slot::Ready { bytes, .. }) = removed {
                // The last ones are the likeliest to be free.
                self.spare.insert(0, bytes);
                self.spare.truncate(MAX_SPARE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use core::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_piece_that_was_not_used_for_longest_makes_room() {
        let cache = Recent::<()>::new(300);
        let loads = Cell::new(0);
        let get = |number: u8| {
            let load = || {
                loads.set(loads.get() + 1);
                Ok(Arc::from(vec![number; 100]))
            };
            assert_eq!(cache.get(number.into(), load).unwrap()[99], number);
            loads.get()
        };
        assert_eq!([get(1), get(2), get(3), get(1)], [1, 2, 3, 3]);
        assert_eq!([get(4), get(1), get(3), get(2)], [4, 4, 4, 5], "2 had to go");
    }

    #[test]
    fn the_memory_of_a_piece_that_had_to_go_is_used_again_unless_somebody_reads_it() {
        let cache = Recent::<()>::new(100);
        let get = |number: u8| cache.get(number.into(), || Ok(cache.piece(&[number; 100]))).unwrap();
        let place = |piece: &Arc<[u8]>| piece.as_ptr();
        let (first, read) = (place(&get(1)), get(2));
        let third = get(3);
        assert!(place(&third) == first && third[..] == [3; 100]);
        drop(third);
        let fourth = get(4);
        assert!(place(&fourth) != place(&read) && read[..] == [2; 100] && fourth[..] == [4; 100]);
    }

    #[test]
    fn a_failed_load_is_tried_again_and_a_good_one_is_shared() {
        let cache = Recent::<()>::new(1000);
        assert!(cache.get(7, || Err(())).is_err());
        let loads = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let load = || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok(Arc::from([7; 10]))
                    };
                    assert_eq!(*cache.get(7, load).unwrap(), [7; 10]);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn those_who_wait_for_a_piece_that_cannot_be_had_are_told_and_do_not_try_in_turn() {
        let cache = &Recent::new(1000);
        let (begun, begins) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                cache.get(7, || {
                    begun.send(()).unwrap();
                    goes_on.recv().unwrap();
                    Err("the store is gone")
                })
            });
            begins.recv().unwrap();
            let wait = || cache.get(7, || panic!("somebody tries already"));
            let waiters: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
            // Each of those who wait has the attempt: the slot, the first thread and three more.
            let attempt = match cache.lock().slots.get(&7) {
                Some(Slot::Loading(attempt)) => Arc::downgrade(attempt),
                _ => unreachable!("it is on its way"),
            };
            while attempt.strong_count() < 5 {
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
            let outcomes = waiters.into_iter().chain([first]).map(|thread| thread.join().unwrap());
            assert!(outcomes.map(|outcome| *outcome.unwrap_err()).eq(["the store is gone"; 4]));
        });
        assert!(cache.get(7, || Ok(Arc::from([7; 10]))).is_ok());
    }
}
