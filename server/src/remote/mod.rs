//! `slidecast remote ...`: operates a server that runs elsewhere, through its API.

mod client;
mod deploy;
mod error;
mod trust;
mod watch;

pub use error::RemoteError;

use crate::cli::{RemoteCommand, RemoteImages, RemoteMachines};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::say;
use crate::shown::shown;
use client::Client;
use serde_json::Value;
use slidecast_proto::quantity::Bytes;

/// The value of `--fingerprint`.
pub(crate) fn parse_fingerprint(text: &str) -> Result<String, String> {
    trust::parse_fingerprint(text)
}

/// As an address and `Host` have it: an IPv6 address stands in brackets (RFC 3986, 3.2.2).
pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Servers are known by the authorities that this system trusts.
pub(crate) fn trust_of_system() -> Result<rustls::ClientConfig, RemoteError> {
    trust_of(None)
}

/// A server is known by the digits of its fingerprint, or by the authorities that this system trusts.
pub(crate) fn trust_of(pin: Option<&str>) -> Result<rustls::ClientConfig, RemoteError> {
    trust::config(pin, None)
}

/// Runs the command.
///
/// # Errors
/// The server can't be reached, or refuses.
pub fn run(command: &RemoteCommand) -> Result<ExitCode, Failure> {
    match command {
        RemoteCommand::Machines(args) => machines(args)?,
        RemoteCommand::Images(args) => images(args)?,
        RemoteCommand::Deploy(args) => return deploy::run(args),
        RemoteCommand::Watch(args) => watch::run(args)?,
    }
    Ok(ExitCode::Done)
}

fn machines(args: &RemoteMachines) -> Result<(), RemoteError> {
    let answer = Client::new(&args.server)?.get("/v1/machines")?;
    if args.json {
        say(&answer.to_string());
        return Ok(());
    }
    let rows = answer["machines"].as_array().into_iter().flatten().map(|machine| {
        let here = if machine["connected"] == true { "connected" } else { "away" };
        vec![
            text(&machine["id"]),
            text(&machine["name"]),
            text(&machine["state"]),
            here.to_owned(),
            text(&machine["address"]),
            machine["hardware"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(","),
            text(&machine["holds"]),
        ]
    });
    table(&["ID", "NAME", "STATE", "HERE", "ADDRESS", "HARDWARE", "HOLDS"], rows.collect());
    Ok(())
}

fn images(args: &RemoteImages) -> Result<(), RemoteError> {
    let answer = Client::new(&args.server)?.get("/v1/images")?;
    if args.json {
        say(&answer.to_string());
        return Ok(());
    }
    let rows = answer["images"].as_array().into_iter().flatten().map(|image| {
        let bytes = image["file_bytes"].as_u64().unwrap_or_default();
        vec![text(&image["name"]), Bytes(bytes).to_string()]
    });
    table(&["NAME", "SIZE"], rows.collect());
    Ok(())
}

/// A value as people read it: a server that is not ours may say anything.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => shown(text),
        value => shown(&value.to_string()),
    }
}

/// Rows below their heads, each column as wide as its widest text.
fn table(heads: &[&str], rows: Vec<Vec<String>>) {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
