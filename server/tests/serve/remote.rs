//! `slidecast remote`, and HTTPS, over which it comes from other machines.

use super::queue::{accept_all, agent, work};
use super::{MAC, Server, serve_at};
use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread::spawn;

fn remote(sandbox: &Sandbox, url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
    command.arg("remote").args(args).args(["--server", url, "--token-file"]).arg(sandbox.path("token"));
    command.env_remove("XDG_CONFIG_HOME").env("HOME", sandbox.path(""));
    command
}

fn run(sandbox: &Sandbox, url: &str, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = remote(sandbox, url, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

#[test]
fn other_machines_are_served_by_https_alone_and_the_server_is_known_by_its_fingerprint() {
    let sandbox = Sandbox::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child =
        serve_at(&sandbox, sandbox.port, &format!("0.0.0.0:{port}")).stderr(Stdio::piped()).spawn().unwrap();
    let (mut said, mut pin) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    loop {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
        if let Some((_, fingerprint)) = line.trim().split_once("fingerprint: ") {
            pin = fingerprint.to_owned();
        }
        if line.contains("serving https://") {
            break;
        }
    }
    // Ends it however this test ends.
    let server = Server { sandbox: &sandbox, http: port, child };
    std::fs::write(sandbox.path("token"), server.token("viewer")).unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let (code, out, err) = run(&sandbox, &url, &["images", "--fingerprint", &pin]);
    assert!(code == 0 && out.contains("base.slide"), "{out}{err}");
    let ca = sandbox.path("state/tls.crt");
    let (code, out, err) = run(&sandbox, &url, &["images", "--json", "--ca", ca.to_str().unwrap()]);
    let body: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{err}"));
    assert_eq!(body["images"][0]["name"], "base.slide");
    let (code, _, err) = run(&sandbox, &url, &["images", "--fingerprint", &"00".repeat(32)]);
    assert!(code == 1 && err.contains("does not prove") && err.lines().count() == 1, "{err}");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("This port speaks HTTPS"), "{answer}");
}

#[test]
fn a_deployment_is_started_from_elsewhere_with_the_words_and_the_exit_code_of_deploy() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let url = format!("http://127.0.0.1:{}", server.http);
    let token = server.token("admin");
    std::fs::write(sandbox.path("token"), &token).unwrap();
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let agent = spawn(move || {
        let (prepare, join) = agent.join();
        agent.receive(&prepare, &join, u32::MAX).unwrap();
        agent.finish();
    });
    let machines = server.wait("/v1/machines", &token, |body| body["machines"][0]["id"].is_i64());
    let id = machines["machines"][0]["id"].to_string();
    let report = sandbox.path("remote.json");
    let deploy = ["deploy", "base.slide", "--machine", &id, "--progress", "json", "--report", report.to_str().unwrap()];
    let (code, _, err) = run(&sandbox, &url, &deploy);
    assert!(code == 1 && err.contains("the server refused (409)") && err.contains("not accepted"), "{err}");
    assert_eq!(server.ask("POST", &format!("/v1/machines/{id}/accept"), &token, "").0, 204);
    let (_, out, _) = run(&sandbox, &url, &["machines"]);
    assert!(out.contains("accepted  connected") && out.contains("02:00:00:00:00:01"), "{out}");
    let (code, out, err) = run(&sandbox, &url, &deploy);
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["image"]), (&json!("start"), &json!("base.slide")), "{out}");
    let done = lines.iter().find(|line| line["event"] == "node" && line["state"] == "done").unwrap();
    assert_eq!(done["target"], "/dev/fake");
    let end = lines.last().unwrap();
    assert_eq!((&end["event"], &end["exit_code"], &end["done"]), (&json!("end"), &json!(0), &json!(1)), "{out}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!((&report["nodes"][0]["state"], &report["image"]), (&json!("done"), &json!("base.slide")));
    agent.join().unwrap();
}

#[test]
fn a_watcher_is_told_of_each_event_once_over_a_restart_of_the_server() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    std::fs::write(sandbox.path("token"), server.token("viewer")).unwrap();
    let url = format!("http://127.0.0.1:{}", server.http);
    let mut watch = remote(&sandbox, &url, &["watch", "--json", "--after", "0"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || loop {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if event["id"].is_i64() {
            return event["id"].as_i64().unwrap();
        }
    };
    assert_eq!(next(), 1);
    server.restart();
    server.token("viewer");
    assert_eq!(next(), 2);
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_server_that_is_not_there_and_a_token_that_is_none_are_told_in_one_line() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("token"), "none").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, _, err) = run(&sandbox, &format!("http://127.0.0.1:{free}"), &["machines"]);
    assert!(code == 1 && err.contains("connecting to http://127.0.0.1:") && err.lines().count() == 1, "{err}");
    let (code, _, err) = run(&sandbox, "http://10.0.0.1:7540", &["machines"]);
    assert!(code == 2 && err.contains("in the clear"), "{err}");
    let server = Server::start(&sandbox);
    let (code, _, err) = run(&sandbox, &format!("http://127.0.0.1:{}", server.http), &["watch"]);
    assert!(code == 1 && err.contains("the server refused (401)"), "{err}");
}

#[test]
fn a_token_that_is_limited_to_a_room_deploys_that_room_by_its_name_and_no_other() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let url = format!("http://127.0.0.1:{}", server.http);
    let admin = server.token("admin");
    accept_all(&server, &admin);
    let machine = agent(&sandbox, 1);
    server.wait("/v1/machines", &admin, |body| body["machines"][0]["state"] == "accepted");
    for name in ["Room 7", "Room 8"] {
        assert_eq!(server.ask("POST", "/v1/groups", &admin, &json!({ "name": name }).to_string()).0, 201);
    }
    let new_token = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.args(["token", "new", "--state"]).arg(sandbox.path("state")).args(args);
        let output = command.env_remove("XDG_CONFIG_HOME").env("HOME", sandbox.path("")).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, err) = new_token(&["--role", "admin", "--group", "Room 7"]);
    assert!(code == Some(2) && err.contains("only the role operator"), "{err}");
    let (code, _, err) = new_token(&["--role", "operator", "--group", "Room 9"]);
    assert!(code == Some(1) && err.contains("there is no group \"Room 9\""), "{err}");
    let (_, token, _) = new_token(&["--role", "operator", "--group", "room 7"]);
    std::fs::write(sandbox.path("token"), &token).unwrap();
    let add = json!({ "add": [1] }).to_string();
    assert_eq!(server.ask("PATCH", "/v1/groups/2", &admin, &add).0, 204);
    let (code, _, err) = run(&sandbox, &url, &["deploy", "base.slide", "--group", "Room 8"]);
    assert!(code == 1 && err.contains("machine 1 is in none of your groups"), "{err}");
    let (code, _, err) = run(&sandbox, &url, &["deploy", "base.slide", "--group", "Room 7"]);
    assert!(code == 1 && err.contains("no machine of Room 7 is accepted"), "{err}");
    let (code, _, err) = run(&sandbox, &url, &["deploy", "base.slide", "--group", "Room 7", "--machine", "1"]);
    assert!(code == 2 && err.contains("--machine"), "{err}");
    assert_eq!(server.ask("PATCH", "/v1/groups/1", &admin, &add).0, 204);
    let machine = work(machine);
    let (code, out, err) = run(&sandbox, &url, &["deploy", "base.slide", "--group", "Room 7"]);
    assert!(code == 0 && out.contains("waiting for 1 of 1"), "{out}{err}");
    machine.join().unwrap();
}
