//! Events as they happen.

use super::{MAC, Server};
use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::{Duration, Instant};

/// A reader of `/v1/events`.
struct Reader {
    lines: BufReader<TcpStream>,
    /// The number of the last event.
    last: i64,
}

impl Reader {
    fn connect(server: &Server<'_>, token: &str, last: i64) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let head = format!(
            "GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nLast-Event-ID: {last}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        Self { lines, last }
    }

    /// The next event that is not progress, or the next that is.
    fn next(&mut self, progress: bool) -> Value {
        let (mut kind, mut line) = (String::new(), String::new());
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < until, "nothing of it was told; the last event was {}", self.last);
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the stream ended");
            match line.trim_end().split_once(": ") {
                Some(("event", event)) => kind = event.to_owned(),
                Some(("data", data)) => {
                    let data: Value = serde_json::from_str(data).unwrap();
                    if kind.is_empty() {
                        assert!(data["id"].as_i64().unwrap() > self.last, "told twice: {data}");
                        self.last = data["id"].as_i64().unwrap();
                    }
                    if std::mem::take(&mut kind) == if progress { "progress" } else { "" } {
                        return data;
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads on to the event of this kind.
    fn find(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next(false);
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

#[test]
fn a_reader_that_calls_again_after_a_restart_is_told_of_each_event_once() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let token = server.token("admin");
    let mut reader = Reader::connect(&server, &token, 0);
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let machine = reader.find("machine-new")["machine"].as_i64().unwrap();
    // However fast it is: it must be seen.
    let (tell, told) = channel();
    let agent = spawn(move || {
        let (prepare, join) = agent.join();
        told.recv().unwrap();
        agent.receive(&prepare, &join, u32::MAX).unwrap();
        agent.finish();
    });
    assert_eq!(server.ask("POST", &format!("/v1/machines/{machine}/accept"), &token, "").0, 204);
    reader.find("machine-accepted");
    let request = json!({ "image": "base.slide", "machines": [machine] }).to_string();
    let id = server.ask("POST", "/v1/deployments", &token, &request).1["id"].clone();
    let progress = reader.next(true);
    assert_eq!((&progress["event"], &progress["deployment"]), (&json!("progress"), &id));
    assert!(progress["nodes"].is_array() && progress["egress_bytes"].is_u64(), "{progress}");
    tell.send(()).unwrap();
    let seen = reader.last;
    agent.join().unwrap();
    server.wait(&format!("/v1/deployments/{}", id.as_str().unwrap()), &token, |body| body["state"] == "over");
    server.restart();
    let mut again = Reader::connect(&server, &token, seen);
    let node = again.find("node");
    assert_eq!((&node["machine"], &node["deployment"]), (&json!(machine), &id), "{node}");
    let text = node["text"].as_str().unwrap();
    assert!(text.ends_with(": done"), "{text}");
    assert_eq!(again.find("deployment-over")["text"], "exit code 0");
}
