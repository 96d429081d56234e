//! The thread that has the database: the event loop leaves changes to it and goes on, requests wait for their answers.

use super::store::{Store, StoreError};
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How soon a change that could not be made, such as on a full disk, is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// The most changes that wait to be tried again.
const MAX_LATER: usize = 10_000;

type Change = Box<dyn Fn(&mut Store) -> Result<(), StoreError> + Send>;

enum Job {
    /// Done once.
    Once(Box<dyn FnOnce(&mut Store) + Send>),
    /// Tried until it is done, in the order in which it came: what has happened does not go away.
    Until(&'static str, Change),
}

/// Brings work to the database.
#[derive(Clone, Debug)]
pub(super) struct Database {
    jobs: Sender<Job>,
    newest: watch::Receiver<i64>,
}

impl Database {
    /// Starts the thread. It ends when every `Database` is gone and all work is done.
    pub(super) fn start(mut store: Store) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, waiting) = channel::<Job>();
        let thread = std::thread::Builder::new().name("slidecast-store".to_owned());
        let (tell, newest) = watch::channel(store.newest_event());
        let thread = thread.spawn(move || {
            let mut later = Later::default();
            while let Some(job) = later.next(&waiting) {
                let before = store.changes();
                later.work(&mut store, job);
                if store.changes() != before {
                    let newest = store.newest_event();
                    tell.send_if_modified(|told| std::mem::replace(told, newest) != newest);
                }
            }
        })?;
        Ok((Self { jobs, newest }, thread))
    }

    /// The number of the newest event, now and whenever there is a new one.
    pub(super) fn newest(&self) -> watch::Receiver<i64> {
        self.newest.clone()
    }

    /// Has a change made, and does not wait for it. A failure is logged: nobody else would hear of it.
    pub(super) fn post(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Store) -> Result<(), StoreError> + Send + 'static,
    ) {
        let job = Box::new(move |store: &mut Store| {
            if let Err(error) = job(store) {
                log::error!("{what}: {}", crate::failure::one_line(&error));
            }
        });
        // The thread lives for as long as anybody can send.
        let _ = self.jobs.send(Job::Once(job));
    }

    /// Has a change made, and does not wait for it. While it fails it is tried again, and those that come after it wait.
    pub(super) fn insist(
        &self,
        what: &'static str,
        job: impl Fn(&mut Store) -> Result<(), StoreError> + Send + 'static,
    ) {
        let _ = self.jobs.send(Job::Until(what, Box::new(job)));
    }

    /// Has something done, and waits for the answer.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |store: &mut Store| drop(answer.send(job(store))));
        let _ = self.jobs.send(Job::Once(job));
        answered.await.expect("the thread of the database does all that it was given")
    }
}

/// Changes that are tried until they are made, in the order in which they came.
#[derive(Default)]
struct Later {
    changes: VecDeque<(&'static str, Change)>,
    /// When the first of them failed last.
    failed: Option<Instant>,
}

impl Later {
    /// The next thing to do: nothing but what is tried again, if its time has come; none at the end.
    fn next(&self, waiting: &Receiver<Job>) -> Option<Option<Job>> {
        let Some(failed) = self.failed else { return waiting.recv().ok().map(Some) };
        // Requests that come all the time do not keep it from being tried.
        match waiting.recv_timeout(AGAIN.saturating_sub(failed.elapsed())) {
            Ok(job) => Some(Some(job)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn work(&mut self, store: &mut Store, job: Option<Job>) {
        match job {
            Some(Job::Once(job)) => job(store),
            Some(Job::Until(what, _)) if self.changes.len() >= MAX_LATER => {
                log::error!("{what}: too many changes wait for the database already");
            }
            Some(Job::Until(what, change)) => self.changes.push_back((what, change)),
            None => {}
        }
        if self.failed.is_some_and(|failed| failed.elapsed() < AGAIN) {
            return;
        }
        self.failed = None;
        while let Some((what, change)) = self.changes.front() {
            if let Err(error) = change(store) {
                log::error!("{what}: {}; it is tried again", crate::failure::one_line(&error));
                self.failed = Some(Instant::now());
                return;
            }
            self.changes.pop_front();
        }
    }
}
