//! Machines are woken by the API: which are called, what the site's program is told, and what happens when that fails.

use super::{MAC, Server, serve, until_it_listens};
use crate::support::{Agent, Sandbox};
use serde_json::json;
use std::net::TcpListener;
use std::process::{Command, Stdio};

#[test]
fn machines_that_are_away_are_called_and_the_sites_program_switches_them_on() {
    let sandbox = Sandbox::new();
    // Another process writes it: one that this process has open for writing can't be run while any of its threads forks.
    let (hook, called) = (sandbox.path("hook"), sandbox.path("called"));
    let text = format!("#!/bin/sh\necho \"$SLIDECAST_MACHINE $SLIDECAST_GROUPS\" >> {}\nexit 3\n", called.display());
    let write = ["-c", "printf %s \"$1\" > \"$0\"; chmod 755 \"$0\""];
    assert!(Command::new("sh").args(write).arg(&hook).arg(text).status().unwrap().success());
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = serve(&sandbox, sandbox.port, http);
    let child = command.arg("--power-hook").arg(&hook).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let server = Server { sandbox: &sandbox, http, child };
    until_it_listens(http);
    let (token, viewer) = (server.token("admin"), server.token("viewer"));
    assert_eq!(server.ask("POST", "/v1/groups", &token, &json!({ "name": "room" }).to_string()).0, 201);
    let agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    server.wait("/v1/machines", &token, |body| body["machines"][0]["connected"] == true);
    let wake = "/v1/machines/1/wake";
    assert_eq!(server.ask("POST", wake, &viewer, "").0, 403);
    assert_eq!(server.ask("POST", wake, &token, "").0, 409, "it is not accepted");
    assert_eq!(server.ask("PATCH", "/v1/groups/1", &token, &json!({ "add": [1] }).to_string()).0, 204);
    assert_eq!(server.ask("POST", "/v1/groups/1/accept", &token, "").0, 200);
    assert_eq!(server.ask("POST", wake, &token, ""), (202, json!({ "called": 0 })));
    drop(agent);
    server.wait("/v1/machines", &token, |body| body["machines"][0]["connected"] == false);
    assert_eq!(server.ask("POST", "/v1/groups/1/wake", &token, ""), (202, json!({ "called": 1 })));
    let failed = |body: &serde_json::Value| {
        let all = body["events"].as_array().unwrap().iter();
        all.filter(|event| event["kind"] == "machine-not-woken").count() == 1
    };
    let events = server.wait("/v1/events?after=0", &token, failed);
    let events = events["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["kind"] == "machine-wake" && event["machine"] == 1), "{events:?}");
    let why = &events.iter().find(|event| event["kind"] == "machine-not-woken").unwrap()["text"];
    assert!(why.as_str().unwrap().contains("exit status: 3"), "{why}");
    assert_eq!(std::fs::read_to_string(called).unwrap(), "1 room\n");
}

#[test]
fn a_management_board_is_kept_for_administrators_and_one_that_is_away_is_told_of() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let (token, operator) = (server.token("admin"), server.token("operator"));
    assert_eq!(server.ask("POST", "/v1/rules", &token, &json!({ "subnet": "127.0.0.0/8" }).to_string()).0, 201);
    let agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    drop(agent);
    server.wait("/v1/machines", &token, |body| body["machines"][0]["connected"] == false);
    let (status, problem) = server.ask("POST", "/v1/machines/1/restart", &operator, "");
    assert_eq!((status, &problem["type"]), (409, &json!("urn:slidecast:no-board")));
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let board = |url: &str| json!({ "url": url, "user": "a", "password": "secret", "fingerprint": "ab".repeat(32) });
    let (path, url) = ("/v1/machines/1/board", format!("https://{closed}"));
    assert_eq!(server.ask("PUT", path, &operator, &board(&url).to_string()).0, 403);
    for wrong in [board("http://10.0.0.1"), json!({ "url": url, "user": "a:b", "password": "" }), json!({ "url": url })]
    {
        assert_eq!(server.ask("PUT", path, &token, &wrong.to_string()).0, 400, "{wrong}");
    }
    assert_eq!(server.ask("PUT", "/v1/machines/9/board", &token, &board(&url).to_string()).0, 404);
    assert_eq!(server.ask("PUT", path, &token, &board(&url).to_string()).0, 204);
    assert_eq!(server.ask("POST", "/v1/machines/1/restart", &operator, "").0, 202);
    assert_eq!(server.ask("POST", "/v1/machines/1/wake", &operator, "").0, 202);
    let told = |body: &serde_json::Value, kind: &str| {
        let mut of_kind = body["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind);
        of_kind.any(|event| event["text"].as_str().unwrap().starts_with(&format!("management board {url}: GET ")))
    };
    let both = |body: &serde_json::Value| told(body, "machine-not-woken") && told(body, "machine-not-restarted");
    let events = server.wait("/v1/events?after=0", &token, both).to_string();
    assert!(events.contains(&format!("{url} as a")) && !events.contains("secret"), "{events}");
    assert_eq!(server.ask("DELETE", path, &token, "").0, 204);
    assert_eq!(server.ask("POST", "/v1/machines/1/restart", &operator, "").0, 409);
}
