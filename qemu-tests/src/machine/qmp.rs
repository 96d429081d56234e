//! QEMU's machine protocol (`docs/interop/qmp-spec.rst` of QEMU): a line of JSON there, a line of JSON back.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{LabError, Result};

/// An answer that takes longer will not come.
const LIMIT: Duration = Duration::from_secs(20);

/// Gives QEMU one command and waits for what it returns.
///
/// # Errors
/// When QEMU is gone, does not answer, or refuses.
pub fn command(socket: &Path, execute: &str, arguments: &Value) -> Result<Value> {
    let wrong = |doing| move |source| LabError::Io { doing, path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).map_err(wrong("connecting to"))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(wrong("setting up"))?;
    let mut lines = BufReader::new(stream.try_clone().map_err(wrong("setting up"))?);
    let mut line = String::new();
    // The greeting.
    lines.read_line(&mut line).map_err(wrong("reading from"))?;
    let mut answer = Value::Null;
    for (execute, arguments) in [("qmp_capabilities", &json!({})), (execute, arguments)] {
        let command = json!({ "execute": execute, "arguments": arguments });
        writeln!(&stream, "{command}").map_err(wrong("writing to"))?;
        answer = loop {
            line.clear();
            if lines.read_line(&mut line).map_err(wrong("reading from"))? == 0 {
                return Err(refused(execute, "QEMU has gone"));
            }
            let value: Value = serde_json::from_str(&line).map_err(|error| refused(execute, &error.to_string()))?;
            if let Some(error) = value.get("error") {
                return Err(refused(execute, &error.to_string()));
            }
            // Events come in between.
            if let Some(value) = value.get("return") {
                break value.clone();
            }
        };
    }
    Ok(answer)
}

fn refused(command: &str, said: &str) -> LabError {
    LabError::Tool { command: format!("QMP {command}"), code: None, stderr: said.to_owned() }
}
