//! Where the programs under test are.

use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// The `slidecast` command: `SLIDECAST`, else the one built beside this program.
///
/// # Errors
/// When it has not been built.
pub fn server() -> Result<PathBuf> {
    find("slidecast", "SLIDECAST")
}

/// The agent: `SLIDECAST_AGENT` (the static one, say), else the one built beside this program.
///
/// # Errors
/// When it has not been built.
pub fn agent() -> Result<PathBuf> {
    find("slidecast-agent", "SLIDECAST_AGENT")
}

/// The lab's own command, for what is to run inside a namespace.
///
/// # Errors
/// When it has not been built.
pub fn lab() -> Result<PathBuf> {
    find("slidecast-lab", "SLIDECAST_LAB")
}

/// The digits of the public part of the key in the file `key`.
///
/// # Errors
/// When it cannot be read.
pub fn public_key(key: &Path) -> Result<String> {
    let path = key.with_extension("key.pub");
    let line = std::fs::read_to_string(&path);
    let line = line.map_err(|source| LabError::Io { doing: "reading", path, source })?;
    let line = line.trim();
    Ok(line.rsplit_once(':').map_or(line, |(_, digits)| digits).to_owned())
}

fn find(program: &'static str, variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| beside(program), PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(LabError::NotBuilt { program, looked: path }) }
}

/// `target/PROFILE/PROGRAM`: we are in that folder, or as a test in `deps` under it.
fn beside(program: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    let dir = me.parent().map(|dir| if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir });
    dir.map(|dir| dir.join(program)).unwrap_or_default()
}
