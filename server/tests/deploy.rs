//! `slidecast deploy` as it is run, and the service behind it, with agents that keep everything in memory.

mod serve;
mod service;
mod store;
mod support;

use nix::sys::signal::Signal;
use slidecast_proto::control::ToAgent;
use slidecast_proto::noise::{ChannelError, SecretKey};
use slidecast_proto::reason::Reason;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;
use support::{Agent, Sandbox, rot};

const ALL: u32 = u32::MAX;

#[test]
fn an_agent_gets_every_block_once_and_the_report_says_done() {
    let sandbox = Sandbox::new();
    let report = sandbox.report_path();
    let server = sandbox.deploy(&["--wait-for", "1", "--report", report.to_str().unwrap()]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    let (prepare, join) = agent.join();
    let received = agent.receive(&prepare, &join, ALL).unwrap();
    assert!(received.blocks.is_full());
    agent.finish();
    drop(agent);
    let (code, out, err) = server.end();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1 of 1 nodes done"), "{out}");
    assert!(!out.contains('\x1b') && !out.contains('\r'), "{out:?}");
    let report = sandbox.report();
    let (egress, stored) = (report["egress_bytes"].as_u64().unwrap(), report["stored_bytes"].as_u64().unwrap());
    assert!(egress >= stored && egress * 100 <= stored * 105, "{egress} for {stored}");
    let node = &report["nodes"][0];
    assert_eq!((node["state"].as_str(), node["reason"].as_str()), (Some("done"), Some("none")));
    assert_eq!((node["verified"].as_str(), node["target"].as_str()), (Some("direct"), Some("/dev/fake")));
    assert_eq!(report["chains"][0]["interface"], "lo");
    assert_eq!(report["insecure"], false);
}

#[test]
fn a_report_over_something_precious_is_refused_before_anything_starts() {
    let sandbox = Sandbox::new();
    let key = sandbox.path("lab.key");
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.args(args).env_remove("XDG_CONFIG_HOME").env("HOME", sandbox.path("home"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["key", "new", "-o", key.to_str().unwrap()]).0, Some(0));
    let (public, folder) = (sandbox.path("lab.key.pub"), sandbox.path(""));
    for path in [&key, &public, &sandbox.image, &folder] {
        let before = std::fs::read(path).ok();
        let image = sandbox.image.to_str().unwrap();
        let (code, err) = run(&["deploy", image, "--wait-for", "1", "--report", path.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.ends_with(" and is not overwritten by a report\n") && err.lines().count() == 1, "{err}");
        assert!(std::fs::read(path).ok() == before, "{} was changed", path.display());
    }
    assert!(!sandbox.path("home").exists(), "no key was made for it");
}

#[test]
fn a_report_that_cannot_be_written_at_the_end_is_said_also_when_all_went_well() {
    let sandbox = Sandbox::new();
    let server = sandbox.deploy(&["--wait-for", "1", "--report", "/dev/full"]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    let (prepare, join) = agent.join();
    agent.receive(&prepare, &join, ALL).unwrap();
    agent.finish();
    drop(agent);
    let (code, _, err) = server.end();
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("slidecast: writing the report /dev/full: No space left on device\n"), "{err}");
}

#[test]
fn a_rotten_block_on_the_server_is_named_and_ends_the_deployment() {
    let sandbox = Sandbox::new();
    rot(&sandbox.image);
    let report = sandbox.report_path();
    let server = sandbox.deploy(&["--wait-for", "1", "--report", report.to_str().unwrap()]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    let (prepare, join) = agent.join();
    assert!(agent.receive(&prepare, &join, ALL).is_none_or(|received| !received.blocks.is_full()));
    assert_eq!(agent.wait_for_abort().reason, Reason::ImageCorrupt);
    drop(agent);
    let (code, _, err) = server.end();
    assert_eq!(code, 3, "{err}");
    let node = &sandbox.report()["nodes"][0];
    assert_eq!(node["reason"], "image-corrupt");
    let detail = node["detail"].as_str().unwrap();
    assert!(detail.contains("base.slide") && detail.contains("block "), "{detail}");
    assert!(err.contains(detail), "{err}");
}

#[test]
fn an_agent_that_dies_ends_in_a_report_that_says_which_and_why() {
    let sandbox = Sandbox::new();
    let report = sandbox.report_path();
    let server = sandbox.deploy(&["--wait-for", "1", "--report", report.to_str().unwrap()]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    let (prepare, join) = agent.join();
    assert!(agent.receive(&prepare, &join, 4).is_none());
    drop(agent);
    let (code, out, err) = server.end();
    assert_eq!(code, 3, "{out}{err}");
    let node = &sandbox.report()["nodes"][0];
    assert_eq!(node["state"], "failed");
    assert!(["node-lost", "upstream-lost"].contains(&node["reason"].as_str().unwrap()), "{node}");
    assert!(err.contains("1 of 1 nodes failed"), "{err}");
}

#[test]
fn the_operator_stops_it_before_and_after_the_start() {
    let sandbox = Sandbox::new();
    let server = sandbox.deploy(&["--wait-for", "2"]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    agent.wait(|order| matches!(order, ToAgent::Prepare(_)).then_some(()));
    server.signal(Signal::SIGINT);
    assert_eq!(agent.wait_for_abort().reason, Reason::Aborted);
    drop(agent);
    let (code, _, err) = server.end();
    assert_eq!(code, 1, "{err}");

    let server = sandbox.deploy(&["--wait-for", "1"]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    agent.join();
    server.signal(Signal::SIGTERM);
    assert_eq!(agent.wait_for_abort().reason, Reason::Aborted);
    drop(agent);
    let (code, _, err) = server.end();
    assert_eq!(code, 3, "{err}");
}

#[test]
fn strangers_and_misfits_get_one_line_and_disturb_nobody() {
    let sandbox = Sandbox::new();
    let server = sandbox.deploy(&["--wait-for", "1"]);
    let mut noise: Vec<_> = (0..80).map(|_| TcpStream::connect(("127.0.0.1", sandbox.port)).unwrap()).collect();
    for (number, stranger) in noise.iter_mut().enumerate() {
        // Some are put out while they still talk.
        let _ = stranger.write_all(&vec![u8::try_from(number).unwrap(); 5000]);
    }
    let other = SecretKey::generate().unwrap().public();
    assert_eq!(Agent::connect(sandbox.port, Some(other)).err(), Some(ChannelError::KeyMismatch));
    assert!(matches!(Agent::connect(sandbox.port, None).err(), Some(ChannelError::InsecureMismatch { .. })));
    let mut newer = TcpStream::connect(("127.0.0.1", sandbox.port)).unwrap();
    newer.write_all(b"SLIDECTL\x09\0\0\0\0\0\0\0").unwrap();
    newer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 16];
    newer.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..11], *b"SLIDECTL\x03\0\x01");
    drop((newer, noise));

    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    let (prepare, join) = agent.join();
    agent.receive(&prepare, &join, ALL).unwrap();
    agent.finish();
    drop(agent);
    let (code, out, err) = server.end();
    assert_eq!(code, 0, "{out}{err}");
    let turned_away: Vec<_> = out.lines().filter(|line| line.contains("turned away")).collect();
    assert_eq!(turned_away.len(), 1, "once for each address: {out}");
    assert!(turned_away[0].contains("127.0.0.1") && turned_away[0].contains("pinned"), "{out}");
}

#[test]
fn a_port_in_use_and_an_agent_that_never_comes_are_one_line_each() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = |port: u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.arg("deploy").arg(&sandbox.image).args(["--wait-for", "1", "--timeout", "1s", "--insecure"]);
        let output = command.args(["--port", &port.to_string(), "--progress", "none"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, err) = run(port);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains(&format!("TCP port {port} is in use")), "{err}");
    let (code, err) = run(sandbox.port);
    assert_eq!(code, 1, "{err}");
    assert!(err.ends_with("nothing was started: too few nodes were ready in time\n"), "{err}");
}

#[test]
fn an_image_that_is_refused_leaves_no_key_no_report_and_the_old_report() {
    let sandbox = Sandbox::new();
    let (state, report) = (sandbox.path("state-of-nobody"), sandbox.report_path());
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.arg("deploy").arg(sandbox.path("no.slide")).args(["--wait-for", "1", "--port"]);
        command.arg(sandbox.port.to_string()).arg("--state").arg(&state).arg("--report").arg(&report);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, err) = run();
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.starts_with("slidecast: opening ") && err.ends_with("no.slide: No such file or directory\n"), "{err}");
    assert!(!report.exists() && !state.exists());
    std::fs::write(&report, "{}").unwrap();
    assert_eq!(run().0, 1);
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "{}");
}

#[test]
fn a_report_never_takes_the_place_of_the_image() {
    let sandbox = Sandbox::new();
    let before = std::fs::read(&sandbox.image).unwrap();
    let report = sandbox.path("another-name");
    std::fs::hard_link(&sandbox.image, &report).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
    command.arg("deploy").arg(&sandbox.image).args(["--wait-for", "1", "--insecure"]).arg("--report").arg(&report);
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), err.lines().count()), (Some(2), 1), "{err}");
    assert!(err.contains("is the image and is not overwritten"), "{err}");
    assert!(std::fs::read(&sandbox.image).unwrap() == before);
}

#[test]
fn an_agent_that_was_turned_away_is_named_where_nothing_is_started() {
    let sandbox = Sandbox::new();
    let server = sandbox.deploy(&["--wait-for", "1", "--timeout", "2s", "--progress", "none"]);
    assert!(matches!(Agent::connect(sandbox.port, None).err(), Some(ChannelError::InsecureMismatch { .. })));
    let (code, out, err) = server.end();
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let last = err.lines().last().unwrap();
    assert!(last.contains("127.0.0.1 was turned away: only the agent was started with --insecure"), "{err}");
}
