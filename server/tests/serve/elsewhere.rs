//! Images that lie on a web server.

use super::{MAC, Server, serve_images, until_it_listens};
use crate::store::Web;
use crate::support::{Agent, Sandbox};
use serde_json::json;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::thread::spawn;

#[test]
fn images_of_a_web_server_are_listed_and_deployed_and_kept_in_the_cache() {
    let sandbox = Sandbox::new();
    let web = Web::new(sandbox.dir.path());
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let images = format!("{}/", web.address);
    let mut command = serve_images(&sandbox, sandbox.port, &format!("127.0.0.1:{http}"), OsStr::new(&images));
    let child = command.arg("--cache").arg(sandbox.path("cache")).stdout(Stdio::null()).spawn().unwrap();
    let server = Server { sandbox: &sandbox, http, child };
    until_it_listens(http);
    let token = server.token("admin");
    let bytes = std::fs::metadata(&sandbox.image).unwrap().len();
    let (_, listed) = server.ask("GET", "/v1/images", &token, "");
    assert_eq!(listed["images"], json!([{ "name": "base.slide", "file_bytes": bytes }]));
    let mut fetched = Vec::new();
    for _ in 0..2 {
        let mut agent = Agent::connect_as(sandbox.port, Some(sandbox.server_key()), MAC).unwrap();
        let agent = spawn(move || {
            let (prepare, join) = agent.join();
            agent.receive(&prepare, &join, u32::MAX).unwrap();
            agent.finish();
        });
        let body = server.wait("/v1/machines", &token, |body| body["machines"][0]["connected"] == true);
        let id = body["machines"][0]["id"].as_i64().unwrap();
        assert_eq!(server.ask("POST", &format!("/v1/machines/{id}/accept"), &token, "").0, 204);
        let none = json!({ "image": "none.slide", "machines": [id] }).to_string();
        let (status, refused) = server.ask("POST", "/v1/deployments", &token, &none);
        assert_eq!((status, &refused["type"]), (422, &json!("urn:slidecast:image-refused")), "{refused}");
        let request = json!({ "image": "base.slide", "machines": [id] }).to_string();
        let (status, made) = server.ask("POST", "/v1/deployments", &token, &request);
        assert_eq!(status, 201, "{made}");
        let path = format!("/v1/deployments/{}", made["id"].as_str().unwrap());
        let over = server.wait(&path, &token, |body| body["state"] == "over");
        assert_eq!((&over["exit_code"], &over["image"]), (&json!(0), &json!("base.slide")), "{over}");
        agent.join().unwrap();
        fetched.push(web.sent.swap(0, Ordering::Relaxed));
    }
    assert!(fetched[0] >= bytes && fetched[1] < 64 << 10, "{fetched:?} of {bytes}");
}
