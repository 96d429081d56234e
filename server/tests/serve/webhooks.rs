//! Webhooks, with a receiver that takes what it is told or not.

use super::Server;
use crate::support::Sandbox;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Takes one delivery and answers with `status`; gives its head and its body.
fn take(receiver: &TcpListener, status: u16) -> (String, Value) {
    let (stream, _) = receiver.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut stream: TcpStream = reader.into_inner();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_webhook_is_told_in_order_and_again_until_it_takes_the_event_also_after_a_restart() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox);
    let token = server.token("admin");
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?a=b", receiver.local_addr().unwrap());
    let body = json!({ "url": url, "kinds": ["token-new"] }).to_string();
    let (status, made) = server.ask("POST", "/v1/webhooks", &token, &body);
    assert_eq!(status, 201, "{made}");
    server.token("viewer");
    server.token("operator");
    // Another program's change is seen with the next one of the server, or at the next look.
    let (head, refused) = take(&receiver, 500);
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1") && head.contains("x-slidecast-event: token-new"), "{head}");
    let signature = head.lines().find_map(|line| line.strip_prefix("x-slidecast-signature: ")).unwrap();
    assert!(signature.starts_with("t=") && signature.len() > 70, "{signature}");
    server.wait("/v1/webhooks", &token, |body| {
        body["webhooks"][0]["problem"] == "the receiver answered 500 Internal Server Error"
    });
    server.restart();
    let (_, again) = take(&receiver, 204);
    assert_eq!(again, refused);
    let (_, next) = take(&receiver, 200);
    assert!(next["id"].as_i64() > again["id"].as_i64() && next["kind"] == "token-new", "{next}");
    let all = server.wait("/v1/webhooks", &token, |body| {
        // Events of other kinds are behind it, too.
        body["webhooks"][0]["taken"].as_i64() >= next["id"].as_i64()
    });
    assert_eq!((&all["webhooks"][0]["problem"], &all["webhooks"][0]["secret"]), (&json!(""), &Value::Null));
    let path = format!("/v1/webhooks/{}/remove", made["id"]);
    assert_eq!((server.ask("POST", &path, &token, "").0, server.ask("POST", &path, &token, "").0), (204, 404));
    for bad in [json!({ "url": "ftp://x" }), json!({ "url": url, "kinds": ["A B"] }), json!({ "url": url, "x": 1 })] {
        assert_eq!(server.ask("POST", "/v1/webhooks", &token, &bad.to_string()).0, 400, "{bad}");
    }
}

#[test]
fn a_receiver_that_takes_its_time_delays_no_other() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let token = server.token("admin");
    let (slow, quick) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    for receiver in [&slow, &quick] {
        let url = format!("http://{}/", receiver.local_addr().unwrap());
        let body = json!({ "url": url, "kinds": ["group-new"] }).to_string();
        assert_eq!(server.ask("POST", "/v1/webhooks", &token, &body).0, 201);
    }
    for name in ["one", "two", "three"] {
        assert_eq!(server.ask("POST", "/v1/groups", &token, &json!({ "name": name }).to_string()).0, 201);
    }
    // It is called, and does not answer.
    let (mut called, _) = slow.accept().unwrap();
    for name in ["one", "two", "three"] {
        assert_eq!(take(&quick, 200).1["text"], name);
    }
    // The server waits 10 s for an answer.
    called.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(take(&slow, 200).1["text"], "two", "its first event counts as taken: all that was within its time");
}
