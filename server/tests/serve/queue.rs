//! The queue, times and waves, as they are seen from outside.

use super::identity::Idle;
use super::pages::{first, get, post};
use super::{MAC, Server};
use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::thread::spawn;

fn mac(last: u8) -> [u8; 6] {
    let mut mac = MAC;
    mac[5] = last;
    mac
}

pub(super) fn agent(sandbox: &Sandbox, last: u8) -> Agent {
    Agent::connect_as(sandbox.port, Some(sandbox.server_key()), mac(last)).unwrap()
}

/// Has all machines that call from here accepted.
pub(super) fn accept_all(server: &Server<'_>, admin: &str) {
    assert_eq!(server.ask("POST", "/v1/rules", admin, &json!({ "subnet": "127.0.0.0/8" }).to_string()).0, 201);
}

/// Takes part in one deployment to its end.
pub(super) fn work(mut agent: Agent) -> std::thread::JoinHandle<()> {
    spawn(move || {
        let (prepare, join) = agent.join();
        agent.receive(&prepare, &join, u32::MAX).unwrap();
        agent.finish();
    })
}

pub(super) fn ask(server: &Server<'_>, token: &str, body: Value) -> String {
    let (status, made) = server.ask("POST", "/v1/deployments", token, &body.to_string());
    assert_eq!(status, 201, "{made}");
    format!("/v1/deployments/{}", made["id"].as_str().unwrap())
}

#[test]
fn of_two_deployments_on_one_card_the_second_says_what_it_waits_for_and_follows() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    accept_all(&server, &token);
    let (mut one, two) = (agent(&sandbox, 1), agent(&sandbox, 2));
    server.wait("/v1/machines", &token, |body| body["machines"].as_array().is_some_and(|all| all.len() == 2));
    let machine = |last: u8| {
        let all = server.ask("GET", "/v1/machines", &token, "").1;
        let all = all["machines"].as_array().unwrap().clone();
        let wanted = json!([format!("02:00:00:00:00:{last:02x}")]);
        all.iter().find(|machine| machine["hardware"] == wanted).unwrap()["id"].clone()
    };
    let first = ask(&server, &token, json!({ "image": "base.slide", "machines": [machine(1)] }));
    let _ = one.join();
    let second =
        ask(&server, &token, json!({ "image": "base.slide", "machines": [machine(2)], "start": { "when": "now" } }));
    let two = work(two);
    let waits = server.wait(&second, &token, |body| body["state"] == "queued");
    let id = first.rsplit('/').next().unwrap();
    assert_eq!(waits["waits"], json!(format!("waits for lo: deployment {id} uses it")));
    assert_eq!(server.ask("POST", &format!("{first}/stop"), &token, "").0, 202);
    one.wait_for_abort();
    let over = server.wait(&second, &token, |body| body["state"] == "over");
    assert_eq!(over["exit_code"], json!(0), "{over}");
    two.join().unwrap();
    // The first one once more, for the machine that did not get it.
    let (status, made) = server.ask("POST", &format!("{first}/again"), &token, "");
    assert_eq!(status, 201, "{made}");
    let again = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
    assert_eq!(server.ask("GET", &again, &token, "").1["machines"], json!([machine(1)]));
    let work = work(one);
    assert_eq!(server.wait(&again, &token, |body| body["state"] == "over")["exit_code"], json!(0));
    work.join().unwrap();
    let (status, problem) = server.ask("POST", &format!("{again}/again"), &token, "");
    assert_eq!((status, &problem["type"]), (409, &json!("urn:slidecast:nothing-failed")));
}

#[test]
fn a_deployment_with_a_time_waits_for_it_over_a_restart_and_begins_at_once_when_somebody_says_so() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let token = server.token("admin");
    accept_all(&server, &token);
    // Whoever hangs up at once may not have been heard.
    let seen = agent(&sandbox, 1);
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    drop(seen);
    let past = json!({ "when": "at", "at": "2025-12-01T02:00", "zone": "Europe/Berlin" });
    let past = json!({ "image": "base.slide", "machines": [1], "start": past }).to_string();
    let (status, refused) = server.ask("POST", "/v1/deployments", &token, &past);
    assert!(status == 400 && refused["detail"].as_str().is_some_and(|detail| detail.ends_with("is past")), "{refused}");
    let start = json!({ "when": "at", "at": "2199-03-31T03:00", "zone": "Europe/Berlin", "wait_for": "100 %" });
    let path = ask(&server, &token, json!({ "image": "base.slide", "machines": [1], "start": start }));
    server.restart();
    let row = server.ask("GET", &path, &token, "").1;
    assert_eq!((&row["state"], &row["start_zone"]), (&json!("scheduled"), &json!("Europe/Berlin")), "{row}");
    assert!(row["waits"].as_str().unwrap().starts_with("begins at 2199-03-31 03:00:00 Europe/Berlin"), "{row}");
    let work = work(agent(&sandbox, 1));
    assert_eq!(server.ask("POST", &format!("{path}/start"), &token, "").0, 202);
    assert_eq!(server.wait(&path, &token, |body| body["state"] == "over")["exit_code"], json!(0));
    work.join().unwrap();
    for (key, start) in [
        ("at", json!({ "when": "at" })),
        ("at", json!({ "when": "at", "at": "2026-03-29T02:30", "zone": "Europe/Berlin" })),
        ("zone", json!({ "when": "at", "at": "2026-03-29T02:30", "zone": "Mars" })),
        ("wait_for", json!({ "when": "ready", "wait_for": "0 %" })),
    ] {
        let body = json!({ "image": "base.slide", "machines": [1], "start": start }).to_string();
        let (status, problem) = server.ask("POST", "/v1/deployments", &token, &body);
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with(&format!("{key}: ")), "{problem}");
    }
}

#[test]
fn an_image_that_is_removed_while_a_deployment_waits_ends_it_with_the_reason() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    accept_all(&server, &token);
    // Whoever hangs up at once may not have been heard.
    let seen = agent(&sandbox, 1);
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    drop(seen);
    let start = json!({ "when": "at", "at": "2199-01-01T00:00:00Z" });
    let path = ask(&server, &token, json!({ "image": "base.slide", "machines": [1], "start": start }));
    std::fs::remove_file(sandbox.path("base.slide")).unwrap();
    assert_eq!(server.ask("POST", &format!("{path}/start"), &token, "").0, 202);
    let over = server.wait(&path, &token, |body| body["state"] == "over");
    assert_eq!(over["exit_code"], json!(1));
    assert!(over["detail"].as_str().unwrap().contains("there is no image \"base.slide\""), "{over}");
}

#[test]
fn waves_follow_one_another_and_the_last_is_called_off_after_a_failure() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    accept_all(&server, &token);
    // Known by number in the order in which they call; an agent that nobody listens for is given up after seconds.
    for last in 1..=3 {
        let seen = agent(&sandbox, last);
        let count = usize::from(last);
        server.wait("/v1/machines", &token, |body| body["machines"].as_array().is_some_and(|all| all.len() == count));
        drop(seen);
    }
    let none = |body: &Value| body["machines"].as_array().unwrap().iter().all(|machine| machine["connected"] == false);
    server.wait("/v1/machines", &token, none);
    let request = json!({ "image": "base.slide", "machines": [1, 2, 3], "waves": "1,1,rest" });
    let path = ask(&server, &token, request);
    let one = work(agent(&sandbox, 1));
    assert_eq!(server.wait(&path, &token, |body| body["state"] == "over")["exit_code"], json!(0));
    one.join().unwrap();
    // The second wave begins by itself; its machine fails.
    let mut two = agent(&sandbox, 2);
    two.join();
    drop(two);
    let all = server.ask("GET", "/v1/deployments", &token, "").1["deployments"].clone();
    let wave = |number: i64| {
        let row = all.as_array().unwrap().iter().find(|row| row["wave"] == json!(number)).unwrap();
        format!("/v1/deployments/{}", row["id"].as_str().unwrap())
    };
    assert_eq!(server.ask("GET", &wave(3), &token, "").1["waits"], json!("waits for the end of wave 2"));
    assert_eq!(server.ask("POST", &format!("{}/stop", wave(2)), &token, "").0, 202);
    let last = server.wait(&wave(3), &token, |body| body["state"] == "over");
    assert!(last["detail"].as_str().unwrap().contains("a wave before it was stopped"), "{last}");
    let (status, _) = server.ask(
        "POST",
        "/v1/deployments",
        &token,
        &json!({
            "image": "base.slide", "machines": [1, 2], "waves": "1"
        })
        .to_string(),
    );
    assert_eq!(status, 400);
}

#[test]
fn a_time_is_chosen_on_the_pages_and_shown_in_both_clocks_before_it_is_kept() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    let cookie = first(&sandbox, &server);
    accept_all(&server, &token);
    // Whoever hangs up at once may not have been heard.
    let seen = agent(&sandbox, 1);
    server.wait("/v1/machines", &token, |body| body["machines"][0]["state"] == "accepted");
    drop(seen);
    let chosen = "image=base.slide&machine=1&when=at&at=2199-03-31T03%3A00&zone=Europe%2FBerlin&waves=1%2Crest";
    let page = get(&server, &format!("/deployments/confirm?{chosen}"), &cookie).body;
    assert!(page.contains("2199-03-31 03:00:00 Europe/Berlin (UTC+0") && page.contains(":00:00 UTC"), "{page}");
    assert!(page.contains("name=\"when\" value=\"at\"") && page.contains("1,rest"), "{page}");
    let started = post(&server, "/deployments", &cookie, &format!("{chosen}&count=1&key=k"));
    assert_eq!(started.status, 303, "{}", started.body);
    let page = get(&server, started.to(), &cookie).body;
    assert!(page.contains("begins at 2199-03-31 03:00:00") && page.contains("Begin now instead"), "{page}");
    assert!(get(&server, "/deployments", &cookie).body.contains("begins at 2199-03-31"));
    assert_eq!(post(&server, &format!("{}/stop", started.to()), &cookie, "word=stop").status, 303);
    let page = get(&server, started.to(), &cookie).body;
    assert!(page.contains("Again for those that failed"), "{page}");
    assert_eq!(post(&server, &format!("{}/again", started.to()), &cookie, "").status, 303);
}

/// The host name of these agents, fit to show.
pub(super) const NAME: &str = "fake\u{fffd}\u{fffd}host";

#[test]
fn a_deployment_with_connected_machines_begins_without_one_that_is_not_ready_and_names_it() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    let cookie = first(&sandbox, &server);
    accept_all(&server, &token);
    let mut agents = Vec::new();
    for last in 1..=2 {
        agents.push(agent(&sandbox, last));
        let count = usize::from(last);
        server.wait("/v1/machines", &token, |body| body["machines"].as_array().is_some_and(|all| all.len() == count));
    }
    let (other, one) = (Idle::new(agents.pop().unwrap()), work(agents.pop().unwrap()));
    let path = ask(&server, &token, json!({ "image": "base.slide", "machines": [1, 2], "start": { "when": "now" } }));
    let ready =
        |body: &Value| body["nodes"].as_array().is_some_and(|all| all.iter().any(|node| node["state"] == "ready"));
    assert_eq!(server.wait(&path, &token, ready)["state"], "waiting");
    // Its minute is over. The next event has the server look.
    let database = rusqlite::Connection::open(sandbox.path("state/slidecast.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(database.execute("UPDATE deployments SET begin_by = 1 WHERE begin_by > 1", []).unwrap(), 1);
    assert_eq!(server.ask("POST", "/v1/groups", &token, &json!({ "name": "room" }).to_string()).0, 201);
    let over = server.wait(&path, &token, |body| body["state"] == "over");
    assert_eq!(over["left_out"], json!([{ "machine": 2, "name": NAME, "why": "not ready" }]), "{over}");
    let page = get(&server, path.strip_prefix("/v1").unwrap(), &cookie).body;
    assert!(page.contains(&format!("It began without: {NAME} (not ready)")), "{page}");
    one.join().unwrap();
    drop(other);
}
