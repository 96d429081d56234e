//! Pages, users and sessions, as a browser without script uses them.

use super::{MAC, Server};
use crate::support::{Agent, Sandbox};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::thread::spawn;
use std::time::Duration;

/// An answer, as text.
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn to(&self) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default()
    }

    pub(super) fn cookie(&self) -> String {
        let set = self.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
        set.split(';').next().unwrap().to_owned()
    }
}

/// Sends what a browser sends; `fields` is the body of a form.
fn browse(server: &Server<'_>, method: &str, path: &str, cookie: &str, extra: &str, fields: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nCookie: {cookie}\r\n{extra}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{fields}",
        fields.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

const HERE: &str = "Origin: http://here\r\n";

pub(super) fn post(server: &Server<'_>, path: &str, cookie: &str, fields: &str) -> Answer {
    browse(server, "POST", path, cookie, HERE, fields)
}

pub(super) fn get(server: &Server<'_>, path: &str, cookie: &str) -> Answer {
    browse(server, "GET", path, cookie, "", "")
}

/// Makes the first administrator; gives the cookie.
pub(super) fn first(sandbox: &Sandbox, server: &Server<'_>) -> String {
    let file = sandbox.path("state/first-sign-in");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let link = std::fs::read_to_string(&file).unwrap();
    let path = &link[link.find("/welcome/").unwrap()..].trim();
    assert_eq!(get(server, path, "").status, 200);
    let unlike = post(server, path, "", "name=anna&password=long+enough+1&again=long+enough+2");
    assert!(unlike.status == 400 && unlike.body.contains("not the same"), "{}", unlike.body);
    let joined = post(server, path, "", "name=anna&password=long+enough+1&again=long+enough+1");
    assert_eq!((joined.status, joined.to()), (303, "/machines"), "{}", joined.body);
    assert_eq!(post(server, path, "", "name=ben&password=long+enough+1&again=long+enough+1").status, 404);
    assert!(!file.exists());
    joined.cookie()
}

#[test]
fn the_first_link_makes_an_administrator_who_accepts_a_machine_and_deploys_without_script() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let cookie = first(&sandbox, &server);
    let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
    let agent = spawn(move || {
        let (prepare, join) = agent.join();
        agent.receive(&prepare, &join, u32::MAX).unwrap();
        agent.finish();
    });
    let token = server.token("viewer");
    server.wait("/v1/machines", &token, |body| body["machines"][0]["id"].is_i64());
    assert_eq!(post(&server, "/machines", &cookie, "do=accept-all&filter=").status, 303);
    let page = get(&server, "/machines", &cookie);
    assert!(page.body.contains("1 known, 1 connected") && page.body.contains("ready"), "{}", page.body);
    let confirm = get(&server, "/deployments/confirm?image=base.slide&machine=1", &cookie);
    assert!(
        confirm.body.contains("Everything on it is lost") && confirm.body.contains("/dev/fake"),
        "{}",
        confirm.body
    );
    let wrong = post(&server, "/deployments", &cookie, "image=base.slide&machine=1&key=k&count=2");
    assert!(wrong.body.contains("Nothing was started"), "{}", wrong.body);
    let started = post(&server, "/deployments", &cookie, "image=base.slide&machine=1&key=k&count=1");
    assert_eq!(started.status, 303, "{}", started.body);
    let again = post(&server, "/deployments", &cookie, "image=base.slide&machine=1&key=k&count=1");
    assert_eq!(again.to(), started.to(), "pressing twice starts once");
    server.wait(&format!("/v1{}", started.to()), &token, |body| body["state"] == "over");
    agent.join().unwrap();
    let over = get(&server, started.to(), &cookie);
    assert!(over.body.contains("1 of 1 done") && over.body.contains("by anna"), "{}", over.body);
    let machine = get(&server, "/machines/1", &cookie);
    assert!(machine.body.contains("base.slide, written"), "{}", machine.body);
    for path in
        ["/groups", "/images", "/deployments", "/deployments/new", "/users", "/settings", "/style.css", "/script.js"]
    {
        let page = get(&server, path, &cookie);
        assert!(page.status == 200 && page.head.contains("content-security-policy: default-src 'none'"), "{path}");
        assert!(!page.body.contains(" style=") && !page.body.contains("onclick"), "{path}");
    }
}

#[test]
fn a_page_of_another_site_can_not_write_and_roles_and_sessions_bound_what_may_be_done() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let cookie = first(&sandbox, &server);
    for from in ["", "Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\nOrigin: http://here\r\n"] {
        let forged = browse(&server, "POST", "/users", &cookie, from, "name=eve&role=admin");
        assert_eq!(forged.status, 403, "{from}");
        let forged = browse(&server, "POST", "/v1/machines/1/accept", &cookie, from, "");
        assert!(forged.status == 403 && forged.body.contains("other-origin"), "{from}");
    }
    let invited = post(&server, "/users", &cookie, "name=ben&role=viewer");
    let link = &invited.body[invited.body.find("/welcome/").unwrap()..];
    let link = &link[.."/welcome/".len() + 64];
    let ben = post(&server, link, "", "name=x&password=long+enough+2&again=long+enough+2").cookie();
    assert_eq!(get(&server, "/machines", &ben).status, 200);
    for (path, fields) in [("/machines", "do=accept-all"), ("/users", "name=eve&role=admin"), ("/deployments", "")] {
        assert_eq!(post(&server, path, &ben, fields).status, 403, "{path}");
    }
    assert_eq!(get(&server, "/users", "").to(), "/sign-in?to=%2Fusers");
    assert_eq!(post(&server, "/sign-out", &ben, "").status, 303);
    assert_eq!(get(&server, "/machines", &ben).status, 303);
    let elsewhere = post(&server, "/sign-in", "", "name=ben&password=long+enough+2&to=//evil.example");
    assert_eq!(elsewhere.to(), "/machines");
    for _ in 0..5 {
        assert_eq!(post(&server, "/sign-in", "", "name=Ben&password=wrong").status, 401);
    }
    let shut = post(&server, "/sign-in", "", "name=ben&password=long+enough+2");
    assert!(shut.status == 429 && shut.head.contains("retry-after: "), "{}", shut.head);
}

#[test]
fn a_stream_of_events_ends_with_its_session() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox);
    let cookie = first(&sandbox, &server);
    let sign_in = || post(&server, "/sign-in", "", "name=anna&password=long+enough+1").cookie();
    let listen = |cookie: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: here\r\nCookie: {cookie}\r\n\r\n").unwrap();
        let (mut lines, mut text) = (BufReader::new(stream), String::new());
        while !text.contains("retry: ") {
            assert_ne!(lines.read_line(&mut text).unwrap(), 0, "{text}");
        }
        lines
    };
    // Everything up to the end; a stream that goes on says something every 15 s, and fails at its next read.
    let rest = |mut lines: BufReader<TcpStream>| {
        let mut text = String::new();
        lines.read_to_string(&mut text).unwrap();
        text
    };
    let (out, other) = (sign_in(), sign_in());
    let (first_stream, second_stream, mut own) = (listen(&out), listen(&other), listen(&cookie));
    assert_eq!(post(&server, "/sign-out", &out, "").status, 303);
    assert!(!rest(first_stream).contains("signed-out"));
    let changed = "old=long+enough+1&password=long+enough+3&again=long+enough+3";
    assert_eq!(post(&server, "/settings/password", &cookie, changed).status, 303);
    assert!(!rest(second_stream).contains("user-password"));
    // The session in which the password was changed goes on.
    let mut line = String::new();
    while !line.contains("user-password") {
        line.clear();
        assert_ne!(own.read_line(&mut line).unwrap(), 0);
    }
}
