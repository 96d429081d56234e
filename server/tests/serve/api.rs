//! The API as a program finds it described: paths and roles, pages, tags.

use super::{MAC, Server};
use crate::support::{Agent, Sandbox};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends a GET with further lines in its head; gives the whole answer.
fn get(server: &Server<'_>, path: &str, token: &str, extra: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{extra}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_described_operations_are_there_and_each_needs_the_role_that_is_described() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let roles = ["viewer", "operator", "admin"];
    let tokens = roles.map(|role| server.token(role));
    assert_eq!(server.ask("GET", "/v1/openapi.json", "", "").0, 401);
    let (status, document) = server.ask("GET", "/v1/openapi.json", &tokens[0], "");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(role) = operation["x-role"].as_str() else { continue };
            let (method, path) = (method.to_uppercase(), path.replace("{id}", "1"));
            let (status, problem) = server.ask(&method, &path, "", "");
            assert_eq!((status, &problem["type"]), (401, &json!("urn:slidecast:unauthorized")), "{method} {path}");
            let least = roles.iter().position(|known| *known == role).unwrap();
            if least > 0 {
                assert_eq!(server.ask(&method, &path, &tokens[least - 1], "").0, 403, "{method} {path}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 9, "{seen}");
}

#[test]
fn lists_come_in_pages_and_what_a_client_has_already_is_not_sent_again() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("viewer");
    let connect = |last| {
        let mut mac = MAC;
        mac[5] = last;
        Agent::connect_as(sandbox.port, Some(sandbox.server_key()), mac).unwrap()
    };
    let _agents: Vec<Agent> = (1..=3).map(connect).collect();
    let count = |body: &Value| body["machines"].as_array().map_or(0, Vec::len);
    let all = server.wait("/v1/machines", &token, |body| count(body) == 3);
    assert_eq!(all["next"], Value::Null);
    let page = server.ask("GET", "/v1/machines?limit=2", &token, "").1;
    assert_eq!((count(&page), &page["next"]), (2, &page["machines"][1]["id"]));
    let page = server.ask("GET", &format!("/v1/machines?limit=2&after={}", page["next"]), &token, "").1;
    assert_eq!((count(&page), &page["next"], &page["machines"][0]), (1, &Value::Null, &all["machines"][2]));
    for bad in ["limit=0", "limit=x", "after=x"] {
        assert_eq!(server.ask("GET", &format!("/v1/machines?{bad}"), &token, "").0, 400, "{bad}");
    }
    let answer = get(&server, "/v1/images", &token, "");
    let tag = answer.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = get(&server, "/v1/images", &token, &format!("If-None-Match: {tag}\r\n"));
    assert!(again.starts_with("HTTP/1.1 304") && again.ends_with("\r\n\r\n"), "{again}");
    std::fs::copy(sandbox.path("base.slide"), sandbox.path("other.slide")).unwrap();
    assert!(get(&server, "/v1/images", &token, &format!("If-None-Match: {tag}\r\n")).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_history_is_one_file_with_an_event_on_each_line() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("viewer");
    let answer = get(&server, "/v1/events?format=jsonl", &token, "");
    assert!(answer.contains("application/x-ndjson"), "{answer}");
    let lines: Vec<Value> =
        answer.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect();
    assert_eq!(lines[0]["kind"], "token-new", "{answer}");
    assert_eq!(server.ask("GET", "/v1/events?format=xml", &token, "").0, 400);
}
