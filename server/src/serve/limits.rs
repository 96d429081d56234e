//! How many files the server may have open: each machine that waits has one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes all that the system allows: what shells start with, 1,024, is few for a site.
pub(super) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        log::warn!("raising the number of open files: {}", error.desc());
    }
}
