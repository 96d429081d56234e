//! Doing many independent steps on all cores.

use crate::error::{ImageError, Operation};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, available_parallelism, scope};

/// How many steps there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    /// Steps `0..count`.
    pub(crate) count: usize,
}

/// Does all steps on all cores, each thread with a state of its own. `done` gets every result, on this thread. Ends at the
/// first error; of several, that of the lowest step is given.
pub(crate) fn in_parallel<S, T: Send>(
    steps: Steps,
    state: impl Fn() -> S + Sync,
    step: impl Fn(&mut S, usize) -> Result<T, ImageError> + Sync,
    mut done: impl FnMut(T),
) -> Result<(), ImageError> {
    let threads = available_parallelism().map_or(1, usize::from).min(steps.count);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, results) = sync_channel(4 * threads);
    scope(|scope| {
        let (next, failed, state, step) = (&next, &failed, &state, &step);
        for no in 0..threads {
            let sender = sender.clone();
            let work = move || {
                let mut state = state();
                while !failed.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= steps.count {
                        break;
                    }
                    let result = step(&mut state, at);
                    if result.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    if sender.send((at, result)).is_err() {
                        break;
                    }
                }
            };
            let spawned = Builder::new().name(format!("slidecast-image{no}")).spawn_scoped(scope, work);
            if let Err(error) = spawned {
                failed.store(true, Ordering::Relaxed);
                return Err(ImageError::io(Operation::Start, PathBuf::new(), None)(error));
            }
        }
        drop(sender);
        let mut first: Option<(usize, ImageError)> = None;
        for (at, result) in results {
            match result {
                Ok(value) => done(value),
                Err(error) if first.as_ref().is_none_or(|(first, _)| at < *first) => first = Some((at, error)),
                Err(_) => {}
            }
        }
        first.map_or(Ok(()), |(_, error)| Err(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_done_once() {
        let mut sum = 0;
        in_parallel(Steps { count: 1000 }, || (), |(), at| Ok(at), |at| sum += at).unwrap();
        assert_eq!(sum, 499_500);
        in_parallel(Steps { count: 0 }, || (), |(), _| Err::<(), _>(ImageError::Worker), |()| ()).unwrap();
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let result = in_parallel(
            Steps { count: 1_000_000 },
            || (),
            |(), at| if at < 10 { Ok(()) } else { Err(ImageError::TooMany { what: "steps" }) },
            |()| (),
        );
        assert!(matches!(result, Err(ImageError::TooMany { .. })));
    }
}
