//! Groups, rules and the second person, by the API and by the pages.

use super::pages::{first, get, post};
use super::{MAC, Server};
use crate::support::{Agent, Sandbox};
use serde_json::json;

#[test]
fn a_rule_accepts_a_machine_into_a_protected_room_that_is_deployed_when_a_second_person_agrees() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let (admin, operator) = (server.token("admin"), server.token("operator"));
    let room = json!({ "name": "Room 7", "protected": true }).to_string();
    assert_eq!(server.ask("POST", "/v1/groups", &operator, &room).0, 403);
    let (status, made) = server.ask("POST", "/v1/groups", &admin, &room);
    assert_eq!((status, &made["id"]), (201, &json!(1)));
    let rule = json!({ "subnet": "127.0.0.0/8", "group": 1 }).to_string();
    assert_eq!(server.ask("POST", "/v1/rules", &admin, &rule).0, 201);
    let agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let is_in = |body: &serde_json::Value| body["machines"][0]["groups"] == json!(["Room 7"]);
    assert_eq!(server.wait("/v1/machines", &admin, is_in)["machines"][0]["state"], "accepted");
    let request = json!({ "image": "base.slide", "group": "room 7" }).to_string();
    let (status, made) = server.ask("POST", "/v1/deployments", &operator, &request);
    assert_eq!(status, 201, "{made}");
    let path = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
    let row = server.ask("GET", &path, &operator, "").1;
    assert_eq!((&row["state"], &row["needs_second"]), (&json!("unconfirmed"), &json!(true)), "{row}");
    let (status, problem) = server.ask("POST", &format!("{path}/confirm"), &operator, "");
    assert_eq!((status, &problem["type"]), (403, &json!("urn:slidecast:same-person")));
    server.restart();
    assert_eq!(server.ask("GET", &path, &operator, "").1["state"], "unconfirmed");
    drop(agent);
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    assert_eq!(server.ask("POST", &format!("{path}/confirm"), &admin, "").0, 204);
    let (prepare, _) = agent.join();
    assert!(path.ends_with(&prepare.deployment.to_string()));
    assert_eq!(server.ask("POST", &format!("{path}/stop"), &admin, "").0, 202);
    server.wait(&path, &admin, |body| body["state"] == "over");
}

#[test]
fn wrong_requests_about_groups_get_one_clear_answer() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let admin = server.token("admin");
    for (method, path, body, status, code) in [
        ("POST", "/v1/groups", json!({ "name": " " }), 400, "bad-request"),
        ("POST", "/v1/groups", json!({ "name": "a", "colour": 1 }), 400, "bad-request"),
        ("POST", "/v1/groups", json!({ "name": "a" }), 201, ""),
        ("POST", "/v1/groups", json!({ "name": "A" }), 409, "name-taken"),
        ("PATCH", "/v1/groups/1", json!({ "add": [7] }), 404, "not-found"),
        ("PATCH", "/v1/groups/2", json!({ "name": "b" }), 404, "not-found"),
        ("POST", "/v1/groups/x/accept", json!({}), 404, "not-found"),
        ("POST", "/v1/rules", json!({ "subnet": "10.1.7.5/24" }), 400, "bad-request"),
        ("POST", "/v1/rules", json!({ "subnet": "10.1.7.0/24", "group": 9 }), 404, "not-found"),
        ("DELETE", "/v1/rules/4", json!({}), 404, "not-found"),
        ("PATCH", "/v1/machines/1", json!({ "note": "x" }), 404, "not-found"),
        ("PATCH", "/v1/machines/1", json!({ "note": "x".repeat(2001) }), 400, "bad-request"),
        ("POST", "/v1/deployments", json!({ "image": "base.slide", "group": "b" }), 404, "not-found"),
        ("POST", "/v1/deployments", json!({ "image": "base.slide", "group": "a" }), 400, "bad-request"),
        ("POST", "/v1/deployments", json!({ "image": "base.slide" }), 400, "bad-request"),
        ("DELETE", "/v1/groups/1", json!({}), 204, ""),
    ] {
        let (got, answer) = server.ask(method, path, &admin, &body.to_string());
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        if !code.is_empty() {
            assert_eq!(answer["type"], json!(format!("urn:slidecast:{code}")), "{method} {path}");
        }
    }
}

#[test]
fn groups_are_made_and_used_on_pages_without_script() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    let cookie = first(&sandbox, &server);
    let _agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    server.wait("/v1/machines", &token, |body| body["machines"][0]["id"].is_i64());
    assert_eq!(post(&server, "/groups", &cookie, "name=Room+7").to(), "/groups/1");
    assert_eq!(post(&server, "/machines", &cookie, "do=join&into=1&machine=1").status, 303);
    // What the form of the machines sends for a deployment of those that are selected.
    let page = get(&server, "/machines", &cookie).body;
    assert!(page.contains("name=\"into\"") && !page.contains("name=\"group\""), "{page}");
    assert_eq!(post(&server, "/groups/1", &cookie, "do=accept").status, 303);
    let page = get(&server, "/groups/1", &cookie).body;
    assert!(page.contains("1 machine") && page.contains("Deploy to this group"), "{page}");
    let chosen = get(&server, "/deployments/new?group=1", &cookie).body;
    assert!(chosen.contains("value=\"1\" checked"), "{chosen}");
    assert_eq!(post(&server, "/machines/1/note", &cookie, "note=by+the+window").status, 303);
    assert!(get(&server, "/machines/1", &cookie).body.contains("by the window"));
    assert_eq!(post(&server, "/groups/rules", &cookie, "subnet=10.0.0.0%2F8&group=1").status, 303);
    assert!(get(&server, "/groups", &cookie).body.contains("10.0.0.0/8"));
    assert_eq!(post(&server, "/groups/rules/remove", &cookie, "rule=1").status, 303);
    assert_eq!(post(&server, "/groups/1", &cookie, "do=set&name=Room+8&protected=yes").status, 303);
    assert!(get(&server, "/groups/1", &cookie).body.contains("protected"));
    let asked = post(&server, "/deployments", &cookie, "image=base.slide&machine=1&key=k&count=1");
    let page = get(&server, asked.to(), &cookie).body;
    assert!(page.contains("another operator or administrator") && !page.contains("Agree and start"), "{page}");
    let invited = post(&server, "/users", &cookie, "name=ben&role=operator").body;
    let at = invited.find("/welcome/").unwrap();
    let ben = post(&server, &invited[at..at + 73], "", "name=x&password=long+enough+2&again=long+enough+2").cookie();
    assert_eq!(post(&server, "/users/2/groups", &cookie, "group=1").status, 303);
    assert!(get(&server, "/users", &cookie).body.contains("1 group"));
    assert!(get(&server, asked.to(), &ben).body.contains("Agree and start"));
    let confirm = format!("{}/confirm", asked.to());
    assert_eq!(post(&server, &confirm, &ben, "count=2").status, 400);
    assert_eq!(post(&server, &confirm, &ben, "count=1").status, 303);
    assert!(get(&server, asked.to(), &cookie).body.contains("by ben"));
}
