//! `slidecast serve` as it is run: requests over HTTP, and agents that keep everything in memory.
#![expect(clippy::unwrap_used, reason = "what fails in a test should stop it")]

mod api;
mod elsewhere;
mod groups;
mod identity;
mod pages;
mod queue;
mod remote;
mod robust;
mod stream;
mod wake;
mod webhooks;

use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::spawn;
use std::time::{Duration, Instant};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A running server; killed at the end.
struct Server<'a> {
    sandbox: &'a Sandbox,
    http: u16,
    child: Child,
}

impl<'a> Server<'a> {
    fn start(sandbox: &'a Sandbox) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { sandbox, http, child: start(sandbox, http) }
    }

    /// Kills it and starts it again.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = start(self.sandbox, self.http);
    }

    fn token(&self, role: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.args(["token", "new", "--role", role, "--state"]).arg(self.sandbox.path("state"));
        let output = command.env_remove("XDG_CONFIG_HOME").env("HOME", self.sandbox.path("")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Sends a request; gives the status and the body.
    fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // A server that refuses a long body may hang up before all of it is written.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Asks until the answer is as `wanted`.
    fn wait(&self, path: &str, token: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let (status, body) = self.ask("GET", path, token, "");
            if status == 200 && wanted(&body) {
                return body;
            }
            assert!(Instant::now() < until, "{path}: {status} {body}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(sandbox: &Sandbox, port: u16, http: u16) -> Command {
    serve_at(sandbox, port, &format!("127.0.0.1:{http}"))
}

fn serve_at(sandbox: &Sandbox, port: u16, http: &str) -> Command {
    serve_images(sandbox, port, http, sandbox.path("").as_os_str())
}

fn serve_images(sandbox: &Sandbox, port: u16, http: &str, images: &OsStr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
    command.args(["serve", "--interface", "lo", "--port", &port.to_string()]);
    command.args(["--http", http, "--images"]).arg(images);
    command.arg("--state").arg(sandbox.path("state"));
    command.env_remove("XDG_CONFIG_HOME").env("HOME", sandbox.path(""));
    command
}

fn start(sandbox: &Sandbox, http: u16) -> Child {
    let child = serve(sandbox, sandbox.port, http).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    until_it_listens(http);
    child
}

fn until_it_listens(http: u16) {
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", http)).is_err() {
        assert!(Instant::now() < until, "the server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_second_server_on_one_state_folder_is_refused_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let _server = Server::start(&sandbox);
    let link = || std::fs::read_to_string(sandbox.path("state/first-sign-in")).unwrap();
    let before = link();
    // With ports of its own.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut second = serve(&sandbox, free(), free()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while second.try_wait().unwrap().is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that runs has not ended by itself.
    let _ = second.kill();
    let second = second.wait_with_output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(second.status.code() == Some(1) && said.contains("another `slidecast serve` uses this folder"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(link(), before);
}

#[test]
fn a_machine_is_accepted_and_gets_an_image_and_all_of_it_is_known_after_the_server_was_killed() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let token = server.token("admin");
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let agent = spawn(move || {
        let (prepare, join) = agent.join();
        agent.receive(&prepare, &join, u32::MAX).unwrap();
        agent.finish();
    });
    let is_one = |body: &Value| body["machines"].as_array().is_some_and(|all| all.len() == 1);
    let machines = server.wait("/v1/machines", &token, is_one);
    let machine = &machines["machines"][0];
    assert_eq!((&machine["state"], &machine["connected"]), (&json!("new"), &json!(true)));
    assert_eq!(machine["hardware"], json!(["02:00:00:00:00:01"]));
    let id = machine["id"].as_i64().unwrap();
    let request = json!({ "image": "base.slide", "machines": [id] }).to_string();
    let (status, problem) = server.ask("POST", "/v1/deployments", &token, &request);
    assert_eq!((status, &problem["type"]), (409, &json!("urn:slidecast:machine-not-accepted")));
    assert_eq!(server.ask("POST", &format!("/v1/machines/{id}/accept"), &token, "").0, 204);
    let (status, made) = server.ask("POST", "/v1/deployments", &token, &request);
    assert_eq!(status, 201, "{made}");
    let path = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
    let over = server.wait(&path, &token, |body| body["state"] == "over");
    assert_eq!((&over["exit_code"], &over["nodes"][0]["state"]), (&json!(0), &json!("done")), "{over}");
    agent.join().unwrap();
    server.restart();
    assert_eq!(server.ask("GET", &path, &token, "").1, over);
    let again = server.wait("/v1/machines", &token, is_one);
    assert_eq!(
        (&again["machines"][0]["state"], &again["machines"][0]["connected"]),
        (&json!("accepted"), &json!(false))
    );
}

#[test]
fn a_deployment_that_waits_for_its_machine_still_waits_after_the_server_was_killed_and_can_be_stopped() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let token = server.token("admin");
    let agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let body = server.wait("/v1/machines", &token, |body| body["machines"][0]["id"].is_i64());
    let id = body["machines"][0]["id"].as_i64().unwrap();
    drop(agent);
    assert_eq!(server.ask("POST", &format!("/v1/machines/{id}/accept"), &token, "").0, 204);
    let request = json!({ "image": "base.slide", "machines": [id] }).to_string();
    let (status, made) = server.ask("POST", "/v1/deployments", &token, &request);
    assert_eq!(status, 201, "{made}");
    assert_eq!(server.ask("POST", "/v1/deployments", &token, &request).0, 409, "the machine is in use");
    server.restart();
    let path = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
    assert_eq!(server.ask("GET", &path, &token, "").1["state"], "waiting");
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let (prepare, _) = agent.join();
    assert_eq!(prepare.deployment.to_string(), made["id"].as_str().unwrap());
    assert_eq!(server.ask("POST", &format!("{path}/stop"), &token, "").0, 202);
    agent.wait_for_abort();
    let over = server.wait(&path, &token, |body| body["state"] == "over");
    assert_eq!(over["exit_code"], json!(3));
}

#[test]
fn a_request_that_is_wrong_gets_one_clear_answer() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("broken.slide"), "no image").unwrap();
    let server = Server::start(&sandbox);
    let (viewer, operator) = (server.token("viewer"), server.token("operator"));
    let good = json!({ "image": "base.slide", "machines": [1] });
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body.to_string()
    };
    let deep = "[".repeat(100_000);
    let long = " ".repeat((1 << 20) + 1);
    let deployments = "/v1/deployments";
    for (method, path, token, body, status, code) in [
        ("GET", "/v1/machines", "", "", 401, "unauthorized"),
        ("GET", "/v1/machines", "0123", "", 401, "unauthorized"),
        ("POST", deployments, &viewer, &good.to_string(), 403, "forbidden"),
        ("POST", "/v1/machines/1/accept", &operator, "", 403, "forbidden"),
        ("GET", "/v2", &viewer, "", 404, "not-found"),
        ("GET", "/v1/deployments/00", &viewer, "", 404, "not-found"),
        ("POST", "/v1/deployments/00/stop", &operator, "", 404, "not-found"),
        ("DELETE", "/v1/machines", &viewer, "", 405, "method-not-allowed"),
        ("POST", deployments, &operator, "", 400, "bad-request"),
        ("POST", deployments, &operator, &deep, 400, "bad-request"),
        ("POST", deployments, &operator, &long, 413, "body"),
        ("POST", deployments, &operator, &with("imago", json!(1)), 400, "bad-request"),
        ("POST", deployments, &operator, &with("machines", json!("all")), 400, "bad-request"),
        ("POST", deployments, &operator, &with("image", json!("../base.slide")), 404, "not-found"),
        ("POST", deployments, &operator, &with("image", json!("/etc/passwd")), 404, "not-found"),
        ("POST", deployments, &operator, &with("image", json!("broken.slide")), 422, "image-refused"),
        ("POST", deployments, &operator, &good.to_string(), 404, "not-found"),
        ("GET", "/v1/events?after=x", &viewer, "", 400, "bad-request"),
    ] {
        let (got, problem) = server.ask(method, path, token, body);
        assert_eq!(
            (got, &problem["type"]),
            (status, &json!(format!("urn:slidecast:{code}"))),
            "{method} {path}: {problem}"
        );
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
    assert_eq!(server.ask("GET", "/v1/health", "", "").0, 200);
    assert_eq!(server.ask("GET", deployments, &viewer, "").1, json!({ "deployments": [], "next": null }));
    let (_, images) = server.ask("GET", "/v1/images", &viewer, "");
    assert_eq!(images["images"].as_array().unwrap().len(), 2);
}

#[test]
fn a_certificate_without_its_key_and_one_that_is_none_are_refused() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("no.crt"), "no certificate").unwrap();
    let path = sandbox.path("no.crt");
    let said = |flags: &[&str]| {
        let output = serve(&sandbox, sandbox.port, 0).args(flags).arg("--tls-cert").arg(&path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        (output.status.code(), said)
    };
    let (code, text) = said(&[]);
    assert!(code == Some(2) && text.contains("--tls-key"), "{text}");
    let (code, text) = said(&["--tls-key", path.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("no.crt as PEM"), "{text}");
}
