//! Files that keep something for one process at a time.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::path::Path;

/// Locks the file at `path`, which is made if there is none, until the value is dropped or the process ends (flock(2)). Gives nothing
/// if another process has the lock.
///
/// # Errors
/// The file can't be opened or locked.
pub(crate) fn take(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = File::options().create(true).write(true).truncate(false).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}
