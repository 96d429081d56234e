//! Writes the state of a deployment on a thread of its own: a flush may take seconds on a busy disk, and the event loop, whose
//! silence would be taken for the server's death, must not wait for it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Where the state goes.
pub(super) trait Store<T>: Send + 'static {
    /// Replaces what is kept. With `sync` it survives a power cut when this returns.
    fn replace(&mut self, contents: &T, sync: bool) -> io::Result<()>;
    /// Nothing is to be kept any more.
    fn remove(&mut self) -> io::Result<()>;
}

/// What is to be done next.
#[derive(Debug)]
enum Task<T> {
    Replace { contents: T, sync: bool, number: u64 },
    Remove,
}

#[derive(Debug)]
struct Inner<T> {
    /// The newest task alone: what it replaces was never looked at.
    next: Option<Task<T>>,
    /// The number of the newest state that was given, and of the newest that is kept.
    given: u64,
    done: u64,
    end: bool,
}

#[derive(Debug)]
struct Shared<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

/// The thread. Dropping this waits until the last task is done.
#[derive(Debug)]
pub(super) struct Writer<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread. `tell` is called whenever something was kept, or failed to be.
    pub(super) fn start(store: impl Store<T>, tell: impl Fn() + Send + 'static) -> io::Result<Self> {
        let inner = Inner { next: None, given: 0, done: 0, end: false };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new() });
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new().name("slidecast-state".to_owned());
        let thread = thread.spawn(move || work(&for_thread, store, tell))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has `contents` kept instead of whatever waits to be, as the state with this number.
    pub(super) fn keep(&self, number: u64, contents: T, sync: bool) {
        let mut inner = self.shared.lock();
        let sync = sync || matches!(inner.next, Some(Task::Replace { sync: true, .. }));
        inner.given = number;
        inner.next = Some(Task::Replace { contents, sync, number });
        self.shared.changed.notify_all();
    }

    /// The number of the newest state that is kept, or could not be.
    pub(super) fn kept(&self) -> u64 {
        self.shared.lock().done
    }

    /// Has what is kept removed.
    pub(super) fn remove(&self) {
        let mut inner = self.shared.lock();
        inner.next = Some(Task::Remove);
        self.shared.changed.notify_all();
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        self.shared.lock().end = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work<T>(shared: &Shared<T>, mut store: impl Store<T>, tell: impl Fn()) {
    let mut failed = false;
    loop {
        let waiting = |inner: &mut Inner<T>| inner.next.is_none() && !inner.end;
        let mut inner = shared.changed.wait_while(shared.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
        let Some(task) = inner.next.take() else { return };
        let given = inner.given;
        drop(inner);
        let (result, number) = match task {
            Task::Replace { contents, sync, number } => (store.replace(&contents, sync), number),
            Task::Remove => (store.remove(), given),
        };
        // Told once: the deployment matters more.
        if let Err(error) = result
            && !std::mem::replace(&mut failed, true)
        {
            log::warn!("keeping the state of the deployment: {error}; it can't be resumed if the server ends");
        }
        shared.lock().done = number;
        tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A disk on which each flush takes until the test lets it go.
    struct Slow {
        begun: Sender<Option<(u32, bool)>>,
        go: Receiver<()>,
    }

    impl Store<u32> for Slow {
        fn replace(&mut self, contents: &u32, sync: bool) -> io::Result<()> {
            self.begun.send(Some((*contents, sync))).unwrap();
            self.go.recv().unwrap();
            Ok(())
        }

        fn remove(&mut self) -> io::Result<()> {
            self.begun.send(None).unwrap();
            Ok(())
        }
    }

    #[test]
    fn a_flush_that_takes_its_time_holds_nobody_and_the_newest_state_is_kept_after_it() {
        let ((begun, has_begun), (let_go, go)) = (channel(), channel());
        let (told, is_told) = channel();
        let writer = Writer::start(Slow { begun, go }, move || told.send(()).unwrap()).unwrap();
        writer.keep(1, 1, true);
        assert_eq!(has_begun.recv(), Ok(Some((1, true))));
        writer.keep(2, 2, true);
        writer.keep(3, 3, false);
        assert_eq!(writer.kept(), 0, "and still the calls came back");
        let_go.send(()).unwrap();
        is_told.recv().unwrap();
        assert_eq!(writer.kept(), 1);
        assert_eq!(has_begun.recv(), Ok(Some((3, true))), "the newest, and as safe as the one before it was to be");
        let_go.send(()).unwrap();
        is_told.recv().unwrap();
        assert_eq!(writer.kept(), 3);
        writer.keep(4, 4, false);
        writer.remove();
        let_go.send(()).unwrap();
        drop(writer);
        assert_eq!(has_begun.into_iter().last(), Some(None), "removed in the end");
    }
}
