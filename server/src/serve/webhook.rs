//! Webhooks: other programs are told of events by a POST to an address of theirs.
//!
//! Each webhook has a place in the events of the database, the last one that was taken; so nothing is lost over a restart, and what is
//! told comes in order. An event that is not taken is told again, after a while that doubles up to an hour, and later ones wait for it.

use super::api::Api;
use super::store::{EventRow, WebhookRow, now};
use crate::failure::one_line;
use crate::remote::{host_and_port, trust_of_system};
use axum::body::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use slidecast_proto::hex;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first retry waits, in seconds; each next one twice as long.
const FIRST_RETRY: i64 = 5;
/// The longest wait, in seconds.
const LONGEST_RETRY: i64 = 3600;
/// How often it is looked for retries that are due.
const LOOK: Duration = Duration::from_secs(5);

type Failed = Box<dyn Error + Send + Sync>;

/// Where a webhook goes, or what else is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

/// Understands the address of a webhook.
pub(super) fn parse(url: &str) -> Result<Address, &'static str> {
    const EXPECTED: &str = "expected an address such as https://host.example/path";
    let uri: hyper::Uri = url.parse().map_err(|_| EXPECTED)?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(EXPECTED),
    };
    let authority = uri.authority().ok_or(EXPECTED)?;
    if authority.as_str().contains('@') {
        return Err("a name or password in the address is not sent; leave it out");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Address { tls, host, port, path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned() })
}

/// What proves that a body comes from this server and when: HMAC-SHA256 with the webhook's secret over the time, a full stop and the body.
fn signature(secret: &str, at: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::text(tag.as_ref()))
}

/// How long to wait after this many failures in a row, in seconds.
pub(super) fn wait(failures: i64) -> i64 {
    let doublings = u32::try_from(failures.clamp(1, 32) - 1).unwrap_or_default();
    FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY)
}

/// Tells all webhooks of events, for ever. Each is told by a task of its own, of one event at a time: one that takes its time delays
/// no other. There are as many tasks at most as there may be webhooks.
pub(super) async fn deliver(api: Arc<Api>) {
    let mut newest = api.database.newest();
    let (mut tasks, trust) = (Tasks::default(), Arc::new(Trust::default()));
    loop {
        newest.borrow_and_update();
        match api.database.call(|store| store.webhooks_due(now())).await {
            Ok(due) => due.into_iter().for_each(|(hook, event)| tasks.start(&api, &trust, hook, event)),
            Err(error) => log::error!("looking for webhooks: {}", one_line(&error)),
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            // There may be a next event for it.
            () = tasks.ended() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The webhooks that are being told.
#[derive(Debug, Default)]
struct Tasks {
    running: JoinSet<()>,
    /// The webhook of each task.
    hooks: HashMap<tokio::task::Id, i64>,
}

impl Tasks {
    /// Tells a webhook of an event, unless it is being told of one.
    fn start(&mut self, api: &Arc<Api>, trust: &Arc<Trust>, hook: WebhookRow, event: EventRow) {
        if self.hooks.values().any(|busy| *busy == hook.id) {
            return;
        }
        let id = hook.id;
        let task = self.running.spawn(deliver_one(api.clone(), trust.clone(), hook, event));
        self.hooks.insert(task.id(), id);
    }

    /// Waits until one of them has ended; for ever if there is none.
    async fn ended(&mut self) {
        let task = match self.running.join_next_with_id().await {
            Some(Ok((task, ()))) => task,
            Some(Err(error)) => error.id(),
            None => return std::future::pending().await,
        };
        self.hooks.remove(&task);
    }
}

async fn deliver_one(api: Arc<Api>, trust: Arc<Trust>, hook: WebhookRow, event: EventRow) {
    let problem = tell(&hook, &event, &trust).await.err().map(|error| error.to_string());
    let wait = wait(hook.failures + 1);
    let next = now() + wait;
    if let Some(problem) = &problem {
        log::warn!("webhook {}: {problem}; the next try is in {wait} s", hook.id);
    }
    let kept = api.database.call(move |store| match problem {
        None => store.on_webhook_taken(hook.id, event.id),
        Some(problem) => store.on_webhook_failed(hook.id, next, &problem),
    });
    if let Err(error) = kept.await {
        log::error!("keeping what webhook {} was told: {}", hook.id, one_line(&error));
        // A database that refuses to be written is not asked again at once, and nor is the receiver.
        tokio::time::sleep(LOOK).await;
    }
}

/// The authorities that this system trusts, read when the first address with https is called: a bundle has more than a hundred.
#[derive(Debug, Default)]
struct Trust(OnceCell<Arc<ClientConfig>>);

impl Trust {
    async fn connector(&self) -> Result<TlsConnector, Failed> {
        let read = async || {
            let config = tokio::task::spawn_blocking(trust_of_system).await??;
            Ok::<_, Failed>(Arc::new(config))
        };
        self.0.get_or_try_init(read).await.cloned().map(TlsConnector::from)
    }
}

async fn tell(hook: &WebhookRow, event: &EventRow, trust: &Trust) -> Result<(), Failed> {
    match tokio::time::timeout(PATIENCE, send(hook, event, trust)).await {
        Ok(told) => told,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
    }
}

async fn send(hook: &WebhookRow, event: &EventRow, trust: &Trust) -> Result<(), Failed> {
    let address = parse(&hook.url)?;
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| one_line(&error))?;
    if !address.tls {
        return post(stream, &address, hook, event).await;
    }
    let connector = trust.connector().await.map_err(|error| one_line(&*error))?;
    let name = ServerName::try_from(address.host.clone())?;
    let stream = connector.connect(name, stream).await;
    post(stream.map_err(|error| one_line(&error))?, &address, hook, event).await
}

async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &Address,
    hook: &WebhookRow,
    event: &EventRow,
) -> Result<(), Failed> {
    let (body, at) = (json!(event).to_string(), now());
    let request = Request::post(&address.path)
        .header(header::HOST, host_and_port(&address.host, address.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("slidecast/", env!("CARGO_PKG_VERSION")))
        .header("x-slidecast-event", &event.kind)
        .header("x-slidecast-delivery", format!("{}-{}", hook.id, event.id))
        .header("x-slidecast-signature", signature(&hook.secret, at, &body))
        .body(Full::new(Bytes::from(body)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let moved = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    // Nobody reads the rest of the answer.
    moved.abort();
    match response?.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("the receiver answered {status}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_https_and_has_no_password() {
        let address = parse("https://a.example/x?y=1").unwrap();
        assert_eq!((address.tls, address.port, &*address.path), (true, 443, "/x?y=1"));
        assert_eq!(parse("http://[::1]:8080").unwrap().host, "::1");
        for wrong in ["a.example", "ftp://a", "/x", "https://u:p@a.example/"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_signature_is_that_of_rfc_4231_over_time_and_body() {
        // Checked with: printf '1700000000.{"id":1}' | openssl dgst -sha256 -hmac secret
        let signed = signature("secret", 1_700_000_000, "{\"id\":1}");
        assert_eq!(signed, "t=1700000000,v1=3dd1b9aef568d75f6790a84bd2e5dfa1f44409eef3cbdbd3f10b837376100c11");
    }

    #[test]
    fn retries_wait_twice_as_long_each_time_and_an_hour_at_most() {
        assert_eq!([1, 2, 3, 10, 11, 1000].map(wait), [5, 10, 20, 2560, 3600, 3600]);
    }
}
