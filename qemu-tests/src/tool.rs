//! Running the system's tools: `ip`, `tc`, `losetup`, `mke2fs` and so on, with what they said in the error.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::error::{LabError, Result};

/// Runs `program` to its end and gives its standard output.
///
/// # Errors
/// [`LabError::Start`] when it is not installed, [`LabError::Tool`] when it fails.
pub fn run<I, S>(program: &str, args: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    finish(command, None)
}

/// As [`run`], with `input` on the tool's standard input.
///
/// # Errors
/// As [`run`].
pub fn feed<I, S>(program: &str, args: I, input: &str) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    finish(command, Some(input))
}

/// Whether `program` can be found on the search path (or in `sbin`, which users often lack).
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

/// Runs a prepared command to its end and gives its standard output.
///
/// # Errors
/// As [`run`].
pub fn finish(mut command: Command, input: Option<&str>) -> Result<String> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let started = |source| LabError::Start { program: words.first().cloned().unwrap_or_default(), source };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(started)?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // A tool that stops reading has failed, and says why itself.
        let _ = pipe.write_all(text.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output().map_err(LabError::io("waiting for", &words[0]))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&stderr).into_owned();
    if said.trim().is_empty() {
        said = String::from_utf8_lossy(&stdout).into_owned();
    }
    Err(LabError::Tool { command: words.join(" "), code: status.code(), stderr: last_lines(&said, 12) })
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
