//! The thread that has the database: the event loop leaves changes to it and goes on, requests wait for their answers.

use super::store::{Store, StoreError};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

type Job = Box<dyn FnOnce(&mut Store) + Send>;

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
            for job in waiting {
                let before = store.changes();
                job(&mut store);
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
        let job: Job = Box::new(move |store| {
            if let Err(error) = job(store) {
                log::error!("{what}: {}", crate::failure::one_line(&error));
            }
        });
        // The thread lives for as long as anybody can send.
        let _ = self.jobs.send(job);
    }

    /// Has something done, and waits for the answer.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |store| drop(answer.send(job(store))));
        let _ = self.jobs.send(job);
        answered.await.expect("the thread of the database does all that it was given")
    }
}
