//! `slidecast remote deploy`: starts a deployment at a server and follows it to its end. Whoever ends this command leaves the deployment
//! running.

use super::client::{Client, Told};
use super::error::RemoteError;
use super::text;
use super::watch::AGAIN;
use crate::cli::{ProgressStyle, RemoteDeploy};
use crate::complain;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, one_line};
use crate::output::Output;
use crate::say;
use serde_json::{Map, Value, json};
use slidecast_proto::hex;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server that does not answer is called again: agents keep what they have for 120 s.
const GIVEN_UP: Duration = Duration::from_secs(600);
/// The keys of a node that `--progress json` of `deploy` has in its `node` events.
const NODE_KEYS: [&str; 12] = [
    "id",
    "name",
    "address",
    "interface",
    "chain",
    "position",
    "state",
    "reason",
    "detail",
    "target",
    "describe",
    "connected",
];

pub(super) fn run(args: &RemoteDeploy) -> Result<ExitCode, Failure> {
    let report = args.report.as_deref().map(report_to).transpose()?;
    let client = Client::new(&args.server)?;
    let id = start(&client, args)?;
    let mut screen = Screen { style: args.progress, nodes: HashMap::new() };
    screen.start(args, &id, count(&client, args, &id)?, &client.address());
    let over = follow(&client, &id, &mut screen)?;
    let code = over["exit_code"].as_u64().unwrap_or(3);
    screen.end(&over, code);
    if let Some(report) = report {
        report.write(&format!("{over:#}\n")).map_err(Failure::not_done)?;
    }
    Ok(match code {
        0 => ExitCode::Done,
        1 => ExitCode::NotDone,
        _ => ExitCode::NodesFailed,
    })
}

/// Asks for the deployment; gives its id. The same request may be sent twice: the server makes one deployment of it.
fn start(client: &Client, args: &RemoteDeploy) -> Result<String, RemoteError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| RemoteError::Runtime(std::io::Error::other(error)))?;
    let key = hex::text(&key);
    let body = body(args);
    let answer = patiently(|| client.post("/v1/deployments", &[("idempotency-key", &key)], &body))?;
    Ok(answer["id"].as_str().unwrap_or_default().to_owned())
}

/// Asks again for some seconds while the connection breaks.
fn patiently(ask: impl Fn() -> Result<Value, RemoteError>) -> Result<Value, RemoteError> {
    let since = Instant::now();
    loop {
        match ask() {
            Err(error) if matches!(error, RemoteError::Broken { .. }) && since.elapsed() < AGAIN * 10 => {
                std::thread::sleep(AGAIN);
            }
            answer => return answer,
        }
    }
}

/// How many machines the deployment has. Which those of a group are, the server knows.
fn count(client: &Client, args: &RemoteDeploy, id: &str) -> Result<usize, RemoteError> {
    if args.group.is_none() {
        return Ok(args.machine.len());
    }
    let made = patiently(|| client.get(&format!("/v1/deployments/{id}")))?;
    Ok(made["machines"].as_array().map_or(0, Vec::len))
}

fn body(args: &RemoteDeploy) -> Value {
    let duration = |duration: Option<Duration>| duration.map(|duration| format!("{}ms", duration.as_millis()));
    let mut body = json!({
        "image": args.image,
        "target": args.target.to_string(),
        "verify": args.verify.to_string(),
        "free": args.free.to_string(),
        "then": args.then.to_string(),
        "fresh": args.fresh,
    });
    for (key, value) in [
        ("machines", args.group.is_none().then(|| json!(args.machine))),
        ("group", args.group.as_deref().map(Value::from)),
        ("wait_for", args.wait_for.map(Value::from)),
        ("timeout", duration(args.timeout).map(Value::from)),
        ("join_window", duration(args.join_window).map(Value::from)),
    ] {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    body
}

/// Shows the deployment until it is over; gives its report.
fn follow(client: &Client, id: &str, screen: &mut Screen) -> Result<Value, RemoteError> {
    let (path, mut last, mut answered) = (format!("/v1/deployments/{id}"), None, Instant::now());
    loop {
        match watch(client, &path, id, &mut last, &mut answered, screen) {
            Ok(Some(over)) => return Ok(over),
            Ok(None) => {}
            Err(error) if !error.passes() || answered.elapsed() > GIVEN_UP => return Err(error),
            Err(error) => log::info!("{}; calling again", one_line(&error)),
        }
        std::thread::sleep(AGAIN);
    }
}

/// Shows the deployment for as long as the connection holds; `answered` becomes when the server was heard last.
fn watch(
    client: &Client,
    path: &str,
    id: &str,
    last: &mut Option<i64>,
    answered: &mut Instant,
    screen: &mut Screen,
) -> Result<Option<Value>, RemoteError> {
    // First the stream, then the state: nothing falls between them.
    let mut events = client.events(*last)?;
    loop {
        let now = client.get(path)?;
        *answered = Instant::now();
        screen.nodes(&now);
        if now["state"] == "over" {
            return Ok(Some(now));
        }
        loop {
            let Some(Told { kind, data }) = events.next()? else { return Ok(None) };
            *answered = Instant::now();
            if kind.is_empty() {
                *last = data["id"].as_i64().or(*last);
            }
            if data["deployment"] != id {
                continue;
            }
            match (kind.as_str(), data["kind"].as_str()) {
                ("", Some("line")) => screen.line(&text(&data["text"])),
                ("", _) => break,
                ("progress", _) => {
                    screen.progress(data);
                    break;
                }
                _ => {}
            }
        }
    }
}

/// The place of the report, if it may be written.
fn report_to(path: &Path) -> Result<Output, Failure> {
    Output::check(path, None, &[]).map_err(Failure::usage)
}

/// What is shown.
struct Screen {
    style: ProgressStyle,
    /// Of each node what was shown last.
    nodes: HashMap<u64, Value>,
}

impl Screen {
    fn json(&self) -> bool {
        self.style == ProgressStyle::Json
    }

    fn put(&self, line: &str) {
        if self.style != ProgressStyle::None {
            say(line);
        }
    }

    fn start(&self, args: &RemoteDeploy, id: &str, count: usize, address: &str) {
        let all = u32::try_from(count).unwrap_or(u32::MAX);
        let wait_for = args.wait_for.unwrap_or(all);
        match self.json() {
            true => {
                let object = json!({ "event": "start", "image": args.image, "deployment": id, "wait_for": wait_for });
                self.put(&object.to_string());
            }
            false => self.put(&format!("{}: waiting for {wait_for} of {all}; {address}/deployments/{id}", args.image)),
        }
    }

    fn line(&self, line: &str) {
        match self.json() {
            true => self.put(&json!({ "event": "log", "text": line }).to_string()),
            false => self.put(line),
        }
    }

    fn progress(&self, data: Value) {
        if self.json() {
            self.put(&data.to_string());
        }
    }

    /// Shows the nodes that have changed.
    fn nodes(&mut self, deployment: &Value) {
        for node in deployment["nodes"].as_array().into_iter().flatten() {
            let Some(id) = node["id"].as_u64() else { continue };
            let seen = self.nodes.get(&id);
            let keys = NODE_KEYS.iter().filter_map(|key| {
                // A report lacks some of the keys: they are as they were.
                let value = node.get(key).or_else(|| seen.and_then(|seen| seen.get(key)))?;
                Some(((*key).to_owned(), value.clone()))
            });
            let now = Value::Object(keys.collect::<Map<_, _>>());
            let stands = |node: &Value| (node["state"].clone(), node["reason"].clone());
            if seen.is_some_and(|seen| stands(seen) == stands(&now)) {
                continue;
            }
            match self.json() {
                true => {
                    let mut object = now.clone();
                    object["event"] = "node".into();
                    self.put(&object.to_string());
                }
                false => self.put(&node_line(&now)),
            }
            self.nodes.insert(id, now);
        }
    }

    fn end(&self, over: &Value, code: u64) {
        let nodes = || over["nodes"].as_array().into_iter().flatten();
        let count = |state: &str| nodes().filter(|node| node["state"] == state).count();
        if self.json() {
            let object = json!({
                "event": "end",
                "exit_code": code,
                "seconds": over["seconds"],
                "egress_bytes": over["egress_bytes"],
                "done": count("done"),
                "written": count("written"),
                "failed": count("failed"),
            });
            return self.put(&object.to_string());
        }
        if let Some(detail) = over["detail"].as_str().filter(|detail| !detail.is_empty()) {
            complain(&crate::shown::shown(detail));
        }
        let good = count("done") + count("written");
        self.put(&format!("{good} of {} nodes done, {} failed", nodes().count(), count("failed")));
    }
}

fn node_line(node: &Value) -> String {
    let name = if node["name"] == "" { &node["address"] } else { &node["name"] };
    let mut line = format!("node {} {}: {}", text(&node["id"]), text(name), text(&node["state"]));
    if node["reason"] != "none" && !node["reason"].is_null() {
        line += &format!(" ({}): {}", text(&node["reason"]), text(&node["detail"]));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_when_its_state_changes_and_keeps_what_a_report_does_not_say() {
        let mut screen = Screen { style: ProgressStyle::None, nodes: HashMap::new() };
        let node =
            |state: &str| json!({ "nodes": [{ "id": 1, "name": "pc", "state": state, "reason": "none", "chain": 0 }] });
        screen.nodes(&node("receiving"));
        screen.nodes(&json!({ "nodes": [{ "id": 1, "name": "pc", "state": "done", "reason": "none" }] }));
        assert_eq!(screen.nodes[&1], json!({ "id": 1, "name": "pc", "state": "done", "reason": "none", "chain": 0 }));
        assert_eq!(node_line(&screen.nodes[&1]), "node 1 pc: done");
    }

    #[test]
    fn a_failure_says_which_and_why() {
        let node = json!({ "id": 2, "name": "", "address": "10.0.0.2", "state": "failed", "reason": "disk-write", "detail": "no" });
        assert_eq!(node_line(&node), "node 2 10.0.0.2: failed (disk-write): no");
    }
}
