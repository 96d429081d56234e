//! `slidecast serve`: machines are accepted and images deployed through its API, also over a restart of the server.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slidecast_lab::{Exit, Lab, Node, NodeOptions, Process};

use crate::fixtures::{Fixtures, LONG, SOON, start_agents};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("serve::two_images_go_to_accepted_machines_and_another_machine_is_left_alone", Needs::Curl, two_images),
    ("serve::a_server_killed_in_mid_stream_and_started_again_goes_on_and_forgets_nothing", Needs::Curl, killed),
];

const URL: &str = "http://127.0.0.1:8080";

/// A standing server, and a token of an administrator.
pub(crate) struct Server<'a> {
    lab: &'a Lab,
    process: Process,
    token: String,
    requests: Cell<u32>,
}

impl<'a> Server<'a> {
    fn start(lab: &'a Lab) -> Self {
        Self::start_with(lab, &[])
    }

    /// With more flags.
    pub(crate) fn start_with(lab: &'a Lab, more: &[&str]) -> Self {
        let state = lab.path("serve-state").display().to_string();
        let mut token = lab.server("token", ["token", "new", "--role", "admin", "--state", &state]).unwrap();
        assert_eq!(token.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", token.tail());
        let token = token.out().trim().to_owned();
        Self { lab, process: Self::process(lab, "serve", more), token, requests: Cell::new(0) }
    }

    fn process(lab: &Lab, name: &str, more: &[&str]) -> Process {
        let images = Fixtures::get().base.parent().unwrap();
        let flags: [OsString; 9] = [
            "serve".into(),
            "--state".into(),
            lab.path("serve-state").into(),
            "--images".into(),
            images.into(),
            "--http".into(),
            "127.0.0.1:8080".into(),
            "--key-file".into(),
            lab.key().unwrap().into(),
        ];
        let flags = flags.into_iter().chain(more.iter().map(OsString::from));
        let mut process = lab.server(name, flags).unwrap();
        process.wait_for("serving http://127.0.0.1:8080", SOON).unwrap();
        process
    }

    /// Sends a request; gives the status and the body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>, key: &str) -> (u16, Value) {
        self.requests.set(self.requests.get() + 1);
        let mut args =
            vec!["-sS".to_owned(), "-X".to_owned(), method.to_owned(), "-w".to_owned(), "\n%{http_code}".to_owned()];
        args.extend(["-H".to_owned(), format!("Authorization: Bearer {}", self.token)]);
        if !key.is_empty() {
            args.extend(["-H".to_owned(), format!("Idempotency-Key: {key}")]);
        }
        args.extend(body.into_iter().flat_map(|body| ["-d".to_owned(), body.to_string()]));
        args.push(format!("{URL}{path}"));
        let mut curl = self.lab.on_server(&format!("curl-{}", self.requests.get()), "curl", args).unwrap();
        assert_eq!(curl.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", curl.tail());
        let out = curl.out();
        let (body, status) = out.trim_end().rsplit_once('\n').unwrap_or(("", out.trim()));
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None, "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Asks until the answer is as `wanted`.
    pub(crate) fn wait(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + LONG;
        loop {
            let body = self.get(path);
            if wanted(&body) {
                return body;
            }
            assert!(Instant::now() < until, "{path}: {body}\n{}", self.process.tail());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until these nodes are connected; gives the number of each one's machine.
    pub(crate) fn machines(&self, nodes: &[Node]) -> Vec<i64> {
        let of = |body: &Value, node: &Node| {
            let all = body["machines"].as_array().unwrap().iter();
            let mut of_it =
                all.filter(|machine| machine["address"] == node.address.as_str() && machine["connected"] == true);
            of_it.next().map(|machine| machine["id"].as_i64().unwrap())
        };
        let body = self.wait("/v1/machines", |body| nodes.iter().all(|node| of(body, node).is_some()));
        nodes.iter().map(|node| of(&body, node).unwrap()).collect()
    }

    pub(crate) fn accept(&self, machine: i64) {
        assert_eq!(self.ask("POST", &format!("/v1/machines/{machine}/accept"), None, "").0, 204);
    }

    /// Asks for a deployment; gives its path.
    pub(crate) fn deploy(&self, image: &str, machines: &[i64]) -> String {
        let request = json!({ "image": image, "machines": machines });
        let (status, body) = self.ask("POST", "/v1/deployments", Some(&request), image);
        assert_eq!(status, 201, "{body}");
        let again = self.ask("POST", "/v1/deployments", Some(&request), image);
        assert_eq!(again, (200, body.clone()), "the same key is the same deployment");
        format!("/v1/deployments/{}", body["id"].as_str().unwrap())
    }
}

fn two_images() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(3, &fixtures.node()).unwrap();
    let server = Server::start(&lab);
    let mut agents = start_agents(&lab, &nodes);
    let machines = server.machines(&nodes);
    let not_yet = json!({ "image": "base.slide", "machines": [machines[0]] });
    let (status, problem) = server.ask("POST", "/v1/deployments", Some(&not_yet), "");
    assert_eq!((status, &problem["type"]), (409, &json!("urn:slidecast:machine-not-accepted")), "{problem}");
    machines[..2].iter().for_each(|machine| server.accept(*machine));
    let first = server.deploy("base.slide", &machines[..1]);
    let second = server.deploy("increment.slide", &machines[1..2]);
    for path in [&first, &second] {
        let over = server.wait(path, |body| body["state"] == "over");
        assert_eq!((&over["exit_code"], &over["nodes"][0]["state"]), (&json!(0), &json!("done")), "{over}");
    }
    for agent in &mut agents[..2] {
        assert_eq!(agent.wait_exit(LONG).unwrap(), Exit::Code(0), "{}", agent.tail());
    }
    fixtures.assert_holds_base(&nodes[0]);
    fixtures.assert_holds_increment(&nodes[1]);
    assert_eq!(agents[2].poll_exit(), None, "it waits: {}", agents[2].tail());
    assert_eq!(fs::metadata(&nodes[2].target.file).unwrap().blocks(), 0, "its disk was written");
    let all = server.get("/v1/machines");
    assert_eq!(all["machines"].as_array().unwrap().iter().filter(|machine| machine["state"] == "new").count(), 1);
}

fn killed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &NodeOptions { mbits: Some(20), ..fixtures.node() }).unwrap();
    let mut server = Server::start(&lab);
    let mut agents = start_agents(&lab, &nodes);
    let machines = server.machines(&nodes);
    machines.iter().for_each(|machine| server.accept(*machine));
    let path = server.deploy("base.slide", &machines);
    server.wait(&path, |body| {
        body["state"] == "running" && body["nodes"][1]["received_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    server.process.kill();
    server.process = Server::process(&lab, "serve-again", &[]);
    let over = server.wait(&path, |body| body["state"] == "over");
    assert_eq!(over["exit_code"], json!(0), "{over}");
    let blocks: u64 =
        over["nodes"].as_array().unwrap().iter().map(|node| node["blocks_written"].as_u64().unwrap()).sum();
    assert!(blocks > 0, "{over}");
    for (agent, node) in agents.iter_mut().zip(&nodes) {
        assert_eq!(agent.wait_exit(LONG).unwrap(), Exit::Code(0), "{}", agent.tail());
        fixtures.assert_holds_base(node);
    }
    assert!(
        server.get("/v1/machines")["machines"].as_array().unwrap().iter().all(|machine| machine["state"] == "accepted")
    );
}
