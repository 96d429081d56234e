//! A board in a few lines, over TLS as a real one.

use super::super::http::{Limits, serve};
use super::super::tls::Tls;
use super::*;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use std::sync::Mutex;
use tokio::net::TcpListener;

/// What a board says, and what it was told.
#[derive(Debug, Default)]
struct Mock {
    systems: usize,
    on: bool,
    resets: Option<Value>,
    told: Mutex<Vec<String>>,
}

type Shared = State<Arc<Mock>>;

fn signed_in(headers: &HeaderMap) -> Result<(), StatusCode> {
    // Aladdin:open sesame, as in RFC 7617.
    match headers.get("authorization").is_some_and(|value| value == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==") {
        true => Ok(()),
        false => Err(StatusCode::UNAUTHORIZED),
    }
}

async fn systems(State(mock): Shared, headers: HeaderMap) -> Result<Response, StatusCode> {
    signed_in(&headers)?;
    let all = (1..=mock.systems).map(|id| json!({ "@odata.id": format!("/redfish/v1/Systems/{id}") }));
    Ok(Json(json!({ "Members": all.collect::<Vec<_>>() })).into_response())
}

async fn system(State(mock): Shared, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, StatusCode> {
    signed_in(&headers)?;
    let mut reset = json!({ "target": format!("/redfish/v1/Systems/{id}/Actions/ComputerSystem.Reset") });
    if let Some(resets) = &mock.resets {
        reset["ResetType@Redfish.AllowableValues"] = resets.clone();
    }
    let state = if mock.on { "On" } else { "Off" };
    let body = json!({ "PowerState": state, "Actions": { "#ComputerSystem.Reset": reset } });
    Ok(([("etag", "\"7\"")], Json(body)).into_response())
}

async fn change(
    State(mock): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, StatusCode> {
    signed_in(&headers)?;
    let etag = headers.get("if-match").and_then(|etag| etag.to_str().ok()).unwrap_or_default();
    mock.told.lock().unwrap().push(format!("change {id} {etag} {body}"));
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn reset(
    State(mock): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, StatusCode> {
    signed_in(&headers)?;
    mock.told.lock().unwrap().push(format!("reset {id} {body}"));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Asks a board that is like this; gives what came of it and what the board was told.
fn ask(mock: Mock, change_board: impl FnOnce(&mut Board), wish: Wish) -> (Result<(), String>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let tls = Arc::new(Tls::own(dir.path(), [127, 0, 0, 1].into()).unwrap());
    let mock = Arc::new(mock);
    let router = Router::new()
        .route("/redfish/v1/Systems", get(systems))
        .route("/redfish/v1/Systems/{id}", get(system).patch(change))
        .route("/redfish/v1/Systems/{id}/Actions/ComputerSystem.Reset", post(reset))
        .with_state(mock.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut board = Board {
            url: format!("https://{}", listener.local_addr().unwrap()),
            user: "Aladdin".to_owned(),
            password: "open sesame".to_owned(),
            fingerprint: tls.fingerprint().replace(':', ""),
        };
        change_board(&mut board);
        let server = tokio::spawn(serve(listener, router, Some(tls), Limits::default()));
        let done = boot(&board, wish).await;
        server.abort();
        done
    });
    let told = mock.told.lock().unwrap().clone();
    (done, told)
}

const ONCE: &str = "{\"Boot\":{\"BootSourceOverrideEnabled\":\"Once\",\"BootSourceOverrideTarget\":\"Pxe\"}}";

#[test]
fn a_machine_that_is_off_boots_from_the_network_once_and_is_switched_on() {
    for wish in [Wish::On, Wish::Restart] {
        let (done, told) = ask(Mock { systems: 1, ..Mock::default() }, |_| {}, wish);
        assert_eq!(done, Ok(()));
        assert_eq!(told, [format!("change 1 \"7\" {ONCE}"), "reset 1 {\"ResetType\":\"On\"}".to_owned()]);
    }
}

#[test]
fn a_machine_that_is_on_is_restarted_only_if_that_is_meant() {
    let on = || Mock { systems: 1, on: true, resets: Some(json!(["On", "PowerCycle"])), ..Mock::default() };
    let (done, told) = ask(on(), |_| {}, Wish::On);
    assert!(done.unwrap_err().contains("the machine is on already") && told.is_empty(), "{told:?}");
    let (done, told) = ask(on(), |_| {}, Wish::Restart);
    assert_eq!((done, told[1].as_str()), (Ok(()), "reset 1 {\"ResetType\":\"PowerCycle\"}"));
    let no_words = Mock { systems: 1, on: true, ..Mock::default() };
    assert_eq!(ask(no_words, |_| {}, Wish::Restart).1[1], "reset 1 {\"ResetType\":\"ForceRestart\"}");
    let useless = Mock { resets: Some(json!(["Nmi"])), ..on() };
    let (done, told) = ask(useless, |_| {}, Wish::Restart);
    assert!(
        done.unwrap_err().contains("offers none of ForceRestart") && told.is_empty(),
        "nothing is half done: {told:?}"
    );
}

#[test]
fn a_board_with_several_systems_is_told_which_by_its_address() {
    let (done, told) = ask(Mock { systems: 2, ..Mock::default() }, |_| {}, Wish::On);
    let said = done.unwrap_err();
    assert!(said.contains("several systems") && said.contains("/redfish/v1/Systems/2") && told.is_empty(), "{said}");
    let second = |board: &mut Board| board.url += "/redfish/v1/Systems/2";
    let (done, told) = ask(Mock { systems: 2, ..Mock::default() }, second, Wish::On);
    assert_eq!((done, told[1].as_str()), (Ok(()), "reset 2 {\"ResetType\":\"On\"}"));
    assert!(ask(Mock::default(), |_| {}, Wish::On).0.unwrap_err().contains("it names no system"));
}

#[test]
fn a_wrong_password_another_certificate_and_a_board_that_is_away_are_named() {
    let one = || Mock { systems: 1, ..Mock::default() };
    let (done, told) = ask(one(), |board| board.password.push('x'), Wish::On);
    let said = done.unwrap_err();
    assert!(said.starts_with("management board https://127.0.0.1:") && said.contains("401 Unauthorized"), "{said}");
    assert!(told.is_empty());
    let (done, _) = ask(one(), |board| board.fingerprint = "00".repeat(32), Wish::On);
    assert!(done.unwrap_err().contains("GET /redfish/v1/Systems: "), "no password is sent to it");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (done, _) = ask(one(), |board| board.url = format!("https://{closed}"), Wish::On);
    assert!(done.unwrap_err().contains("refused"));
}

#[test]
fn addresses_and_paths_lead_to_the_board_alone() {
    assert!(check("https://10.0.9.7").is_ok() && check("https://bmc.example/redfish/v1/Systems/1").is_ok());
    assert!(check("http://10.0.9.7").unwrap_err().contains("in the clear"));
    assert!(check("bmc").is_err() && check("https://u:p@bmc").is_err());
    assert_eq!(local_path(&json!("/redfish/v1/Systems/1")).as_deref(), Some("/redfish/v1/Systems/1"));
    for wrong in [json!("https://evil/x"), json!("//evil/x"), json!("/a b"), json!("/a\r\nX: y"), json!(7)] {
        assert_eq!(local_path(&wrong), None, "{wrong}");
    }
}
