//! What must not be lost: kills at random moments, and a state folder without space.

use super::{MAC, Server};
use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sends a request to a server that may be killed meanwhile; gives the status, if an answer came.
fn try_post(http: u16, token: &str, path: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", http)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // What came before the end counts: the status is the first of it.
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1)?.parse().ok()
}

/// A number below `bound`.
fn random(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % bound
}

fn names(server: &Server<'_>, token: &str) -> HashSet<String> {
    let all = server.ask("GET", "/v1/groups", token, "").1;
    let all = all["groups"].as_array().unwrap().iter();
    all.map(|group| group["name"].as_str().unwrap().to_owned()).collect()
}

/// Kills the server again and again while it takes commands.
fn kill_often(times: u32) {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let token = server.token("admin");
    let rule = json!({ "subnet": "127.0.0.0/8" }).to_string();
    assert_eq!(server.ask("POST", "/v1/rules", &token, &rule).0, 201);
    let seen = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    drop(seen);
    let mut kept = HashSet::new();
    for round in 0..times {
        let request = json!({ "image": "base.slide", "machines": [1] }).to_string();
        let (status, made) = server.ask("POST", "/v1/deployments", &token, &request);
        assert_eq!(status, 201, "{made}");
        let path = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
        let (http, by) = (server.http, token.clone());
        let restarted = Arc::new(AtomicBool::new(false));
        let enough = Arc::clone(&restarted);
        let commands = std::thread::spawn(move || {
            let name = |number| format!("group {round} {number}");
            let body = |number| json!({ "name": name(number) }).to_string();
            let numbers = (0..).take_while(|_| !enough.load(Ordering::Relaxed));
            numbers
                .map_while(|number| Some((name(number), try_post(http, &by, "/v1/groups", &body(number))?)))
                .collect()
        });
        std::thread::sleep(Duration::from_millis(random(300)));
        server.restart();
        // A server that is back between two commands refuses none.
        restarted.store(true, Ordering::Relaxed);
        let answered: Vec<(String, u16)> = commands.join().unwrap();
        kept.extend(answered.into_iter().map(|(name, status)| {
            assert_eq!(status, 201, "{name}");
            name
        }));
        let there = names(&server, &token);
        let lost: Vec<_> = kept.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        // A command that was kept and not answered before the end may be there: one in each round.
        assert!(there.len() <= kept.len() + round as usize + 1, "{} {}", there.len(), kept.len());
        let row = server.ask("GET", &path, &token, "").1;
        assert_eq!(row["state"], "waiting", "round {round}: {row}");
        assert_eq!(server.ask("POST", &format!("{path}/stop"), &token, "").0, 202);
        server.wait(&path, &token, |body| body["state"] == "over");
    }
    let database = rusqlite::Connection::open(sandbox.path("state/slidecast.db")).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    eprintln!("{times} kills, {} commands were answered and kept", kept.len());
}

/// `SLIDECAST_KILLS` is the number of kills; `./check.sh fuzz` takes 200.
#[test]
fn a_server_that_is_killed_at_any_moment_has_every_command_that_it_answered() {
    kill_often(std::env::var("SLIDECAST_KILLS").map_or(10, |times| times.parse().unwrap()));
}

/// A small file system in memory; unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_commands_with_the_reason_and_what_runs_ends_well_and_is_kept_later() {
    let sandbox = Sandbox::new();
    let Some(small) = Small::mount(&sandbox.path("state")) else {
        return eprintln!("SKIPPED: mounting a tmpfs needs root");
    };
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    let rule = json!({ "subnet": "127.0.0.0/8" }).to_string();
    assert_eq!(server.ask("POST", "/v1/rules", &token, &rule).0, 201);
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    let request = json!({ "image": "base.slide", "machines": [1] }).to_string();
    let (status, made) = server.ask("POST", "/v1/deployments", &token, &request);
    assert_eq!(status, 201, "{made}");
    let path = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
    let (prepare, join) = agent.join();
    // Fills what is left; the log of the database may have some pages left, too.
    let mut ballast = std::fs::File::create(small.0.join("ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    let refused = (0..2000).find_map(|number| {
        let group = json!({ "name": format!("group {number} {}", "x".repeat(40)) }).to_string();
        let (status, problem) = server.ask("POST", "/v1/groups", &token, &group);
        (status != 201).then_some((status, problem))
    });
    let (status, problem) = refused.unwrap();
    assert_eq!((status, &problem["type"]), (503, &json!("urn:slidecast:database")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("full"), "{problem}");
    let there = names(&server, &token).len();
    agent.receive(&prepare, &join, u32::MAX).unwrap();
    agent.finish();
    drop(ballast);
    std::fs::remove_file(small.0.join("ballast")).unwrap();
    let over = server.wait(&path, &token, |body: &Value| body["state"] == "over");
    assert_eq!((&over["exit_code"], &over["nodes"][0]["state"]), (&json!(0), &json!("done")), "{over}");
    assert_eq!(server.ask("POST", "/v1/groups", &token, &json!({ "name": "after" }).to_string()).0, 201);
    assert_eq!(names(&server, &token).len(), there + 1);
    drop(server);
}

/// Starts a server that is refused; gives what it said.
fn refused(sandbox: &Sandbox, port: u16, http: u16) -> String {
    let mut child = super::serve(sandbox, port, http).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that runs has not ended by itself.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn a_port_in_use_and_a_state_folder_that_can_not_be_written_are_named() {
    let sandbox = Sandbox::new();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = free();
    let http = taken.local_addr().unwrap().port();
    let said = refused(&sandbox, sandbox.port, http);
    assert!(said.contains(&format!("listening for HTTP on 127.0.0.1:{http}: Address already in use")), "{said}");
    let Some(small) = Small::mount(&sandbox.path("state")) else {
        return eprintln!("SKIPPED: mounting a tmpfs needs root");
    };
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&small.0).status().unwrap();
    assert!(remount.success());
    let http = free().local_addr().unwrap().port();
    let said = refused(&sandbox, sandbox.port, http);
    assert!(said.contains("Read-only file system") && said.contains("state"), "{said}");
}
