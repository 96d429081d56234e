//! `slidecast remote watch`: what happens at a server, as it happens. A connection that breaks off is made again, and goes on after the
//! last event that was told.

use super::client::{Client, Told};
use super::error::RemoteError;
use super::text;
use crate::cli::RemoteWatch;
use crate::complain;
use crate::failure::one_line;
use crate::say;
use std::time::Duration;

/// How long the client waits before it calls again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// Tells of events until the program is ended.
pub(super) fn run(args: &RemoteWatch) -> Result<(), RemoteError> {
    let client = Client::new(&args.server)?;
    let mut last = args.after;
    let mut lost = false;
    loop {
        match follow(&client, args, &mut last, &mut lost) {
            Err(error) if !error.passes() => return Err(error),
            Err(error) if !lost => complain(&format!("{}; calling again", one_line(&error))),
            _ => {}
        }
        lost = true;
        std::thread::sleep(AGAIN);
    }
}

fn follow(client: &Client, args: &RemoteWatch, last: &mut Option<i64>, lost: &mut bool) -> Result<(), RemoteError> {
    let mut events = client.events(*last)?;
    if std::mem::take(lost) {
        complain(&format!("connected to {} again", client.address()));
    }
    while let Some(Told { kind, data }) = events.next()? {
        if kind.is_empty() {
            *last = data["id"].as_i64().or(*last);
        }
        match (args.json, kind.as_str()) {
            (true, _) => say(&data.to_string()),
            (false, "") => say(&line(&data)),
            // Progress is for programs.
            (false, _) => {}
        }
    }
    Ok(())
}

fn line(event: &serde_json::Value) -> String {
    let mut line = format!("{} {}", text(&event["id"]), text(&event["kind"]));
    for (key, word) in [("deployment", "deployment "), ("machine", "machine "), ("who", "by "), ("text", "")] {
        let value = &event[key];
        if !value.is_null() && value != "" {
            line += &format!("{} {word}{}", if key == "text" { ":" } else { "," }, text(value));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_that_leaves_out_what_is_not_there() {
        let event =
            json!({ "id": 4, "kind": "node", "deployment": "ab", "machine": 2, "who": "", "text": "pc: done\u{1b}" });
        assert_eq!(line(&event), "4 node, deployment ab, machine 2: pc: done\\u{1b}");
        let event =
            json!({ "id": 5, "kind": "signed-in", "deployment": null, "machine": null, "who": "anna", "text": "" });
        assert_eq!(line(&event), "5 signed-in, by anna");
    }
}
