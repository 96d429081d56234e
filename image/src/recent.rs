//! Pieces of something large in memory, those used last: unpacked blocks of a disk, chunks of a layer that lies far away. What two
//! threads want at once is fetched once.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Pieces by number.
#[derive(Debug)]
pub struct Recent {
    most_bytes: usize,
    kept: Mutex<Kept>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    slots: HashMap<u64, Slot>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

#[derive(Debug)]
enum Slot {
    /// Some thread fetches it.
    Loading,
    Ready {
        bytes: Arc<[u8]>,
        used: u64,
    },
}

impl Recent {
    /// Keeps at most `most_bytes`.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, kept: Mutex::default(), settled: Condvar::new() }
    }

    /// Piece `number`, made by `load` if it is not there. A piece that could not be loaded is tried again the next time.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn get<E>(&self, number: u64, load: impl FnOnce() -> Result<Arc<[u8]>, E>) -> Result<Arc<[u8]>, E> {
        let mut kept = self.lock();
        loop {
            kept.now += 1;
            let now = kept.now;
            match kept.slots.get_mut(&number) {
                None => break,
                Some(Slot::Ready { bytes, used }) => {
                    *used = now;
                    return Ok(Arc::clone(bytes));
                }
                Some(Slot::Loading) => kept = self.settled.wait(kept).unwrap_or_else(PoisonError::into_inner),
            }
        }
        kept.slots.insert(number, Slot::Loading);
        drop(kept);
        let loaded = load();
        let mut kept = self.lock();
        match &loaded {
            Ok(bytes) => kept.put(number, bytes, self.most_bytes),
            Err(_) => drop(kept.slots.remove(&number)),
        }
        self.settled.notify_all();
        loaded
    }

    /// Whether piece `number` is there, or on its way.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.lock().slots.contains_key(&number)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, number: u64, bytes: &Arc<[u8]>, most_bytes: usize) {
        self.bytes += bytes.len();
        self.slots.insert(number, Slot::Ready { bytes: Arc::clone(bytes), used: self.now });
        while self.bytes > most_bytes {
            let ready = self.slots.iter().filter_map(|(number, slot)| match slot {
                Slot::Ready { bytes, used } => Some((*used, *number, bytes.len())),
                Slot::Loading => None,
            });
            // Few pieces fit: looking at all of them costs less than fetching one.
            let Some((_, oldest, len)) = ready.min() else { return };
            self.slots.remove(&oldest);
            self.bytes -= len;
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
        let cache = Recent::new(300);
        let loads = Cell::new(0);
        let get = |number: u8| {
            let load = || {
                loads.set(loads.get() + 1);
                Ok::<_, ()>(Arc::from(vec![number; 100]))
            };
            assert_eq!(cache.get(number.into(), load).unwrap()[99], number);
            loads.get()
        };
        assert_eq!([get(1), get(2), get(3), get(1)], [1, 2, 3, 3]);
        assert_eq!([get(4), get(1), get(3), get(2)], [4, 4, 4, 5], "2 had to go");
    }

    #[test]
    fn a_failed_load_is_tried_again_and_a_good_one_is_shared() {
        let cache = Recent::new(1000);
        assert!(cache.get(7, || Err(())).is_err());
        let loads = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let load = || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, ()>(Arc::from([7; 10]))
                    };
                    assert_eq!(*cache.get(7, load).unwrap(), [7; 10]);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
}
