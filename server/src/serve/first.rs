//! The first sign-in: as long as there is no user, each start makes a link that works once, for an administrator.

use super::ServeError;
use super::role::{Role, hash_of, secret};
use super::store::{Store, now};
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How long a link works, in seconds.
pub(super) const LINK_LASTS: i64 = 7 * 86_400;

/// Where the link is, for somebody who does not see what the server prints.
pub(super) fn file(state: &Path) -> PathBuf {
    state.join("first-sign-in")
}

/// The secret part of the link; nothing if there are users. The link is also in a file that only its owner may read.
/// `base` is where pages are.
pub(super) fn link(store: &mut Store, state: &Path, base: &str) -> Result<Option<String>, ServeError> {
    let path = file(state);
    let failed = |source: io::Error| ServeError::First { path: path.clone(), source };
    if !store.users().map_err(|error| failed(io::Error::other(error)))?.is_empty() {
        return Ok(None);
    }
    let secret = secret().map_err(failed)?;
    let invited = store.invite(&hash_of(&secret), "", Role::Admin, now() + LINK_LASTS, "");
    invited.map_err(|error| failed(io::Error::other(error)))?;
    let mut open = OpenOptions::new();
    let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
    // The file may have been there with other permissions.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    writeln!(file, "{base}/welcome/{secret}").map_err(failed)?;
    Ok(Some(secret))
}
