//! Machines that claim one identity.

use super::Server;
use super::pages::{first, get};
use super::queue::{NAME, accept_all, agent, ask, work};
use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::{JoinHandle, spawn};

/// An agent that is heard and does nothing.
pub(super) struct Idle {
    end: Sender<()>,
    thread: JoinHandle<Agent>,
}

impl Idle {
    pub(super) fn new(mut agent: Agent) -> Self {
        let (end, ended) = channel();
        let thread = spawn(move || {
            agent.idle(|| ended.try_recv() == Err(TryRecvError::Empty));
            agent
        });
        Self { end, thread }
    }

    pub(super) fn end(self) -> Agent {
        self.end.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

#[test]
fn two_machines_with_one_hardware_address_are_held_and_named_until_one_is_switched_off() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    let cookie = first(&sandbox, &server);
    accept_all(&server, &token);
    let one = Idle::new(agent(&sandbox, 1));
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    let path = ask(&server, &token, json!({ "image": "base.slide", "machines": [1] }));
    server.wait(&path, &token, |body| body["nodes"][0]["connected"] == true);
    let other = Idle::new(agent(&sandbox, 1));
    // It is told when it has lasted: a machine that was restarted has two connections for some seconds.
    let held = server.wait("/v1/machines", &token, |body| body["machines"][0]["claimed_by"] != json!([]));
    let claimant = json!({
        "name": NAME, "address": "127.0.0.1", "hardware": ["02:00:00:00:00:01"], "serials": ["1"]
    });
    assert_eq!(held["machines"][0]["claimed_by"], json!([claimant, claimant]));
    let page = get(&server, "/machines/1", &cookie).body;
    assert!(
        page.contains("Several machines are connected") && page.contains(&format!("{NAME} at 127.0.0.1 (disk 1)")),
        "{page}"
    );
    assert!(get(&server, "/machines", &cookie).body.contains("held: claimed by several"));
    let node = server.ask("GET", &path, &token, "").1["nodes"][0].clone();
    assert_eq!((&node["state"], &node["reason"]), (&json!("refused"), &json!("node-lost")), "{node}");
    let kinds = |kind: &str| {
        let events = server.ask("GET", "/v1/events?after=0", &token, "").1["events"].clone();
        let of_kind = |event: &&Value| event["kind"] == kind && event["machine"] == 1;
        events.as_array().unwrap().iter().filter(of_kind).count()
    };
    assert_eq!((kinds("machine-conflict"), kinds("machine-conflict-over")), (1, 0));
    let other = other.end();
    drop(one.end());
    work(other).join().unwrap();
    let over = server.wait(&path, &token, |body| body["state"] == "over");
    assert_eq!(over["exit_code"], json!(0), "{over}");
    assert_eq!((kinds("machine-conflict"), kinds("machine-conflict-over")), (1, 1));
}
