//! Management boards: what switches a machine on, restarts it, and has it boot from the network once, whatever its firmware boots otherwise.
//!
//! They speak Redfish (DMTF DSP0266, with the schema ComputerSystem): JSON over HTTPS, here with the name and password of one of the board's users.
//! A board is known by its certificate's fingerprint, or by the authorities that this system trusts.

use super::store::Board;
use super::webhook::{Address, parse};
use crate::failure::one_line;
use crate::remote::{host_and_port, trust_of};
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long all that is asked of a board may take. Many are slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// What restarts a machine that is on, the best first.
const RESTARTS: [&str; 3] = ["ForceRestart", "PowerCycle", "GracefulRestart"];

type Failed = Box<dyn Error + Send + Sync>;

/// What a board is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Switch its machine on if it is off.
    On,
    /// Restart it, or switch it on.
    Restart,
}

/// Has a board boot its machine from the network.
pub(super) async fn boot(board: &Board, wish: Wish) -> Result<(), String> {
    let failed = |what: String| format!("management board {}: {what}", board.url);
    let done = tokio::time::timeout(PATIENCE, boot_once(board, wish)).await;
    let done = done.map_err(|_| failed(format!("it took longer than {} s", PATIENCE.as_secs())))?;
    done.map_err(|error| failed(one_line(&*error)))
}

/// Whether something is the address of a board.
pub(super) fn check(url: &str) -> Result<(), &'static str> {
    match parse(url) {
        Ok(address) if address.tls => Ok(()),
        Ok(_) => Err("expected https: a password is not sent in the clear"),
        Err(_) => Err("expected the address of a board, such as https://10.0.9.7"),
    }
}

async fn boot_once(board: &Board, wish: Wish) -> Result<(), Failed> {
    let client = Client::new(board).await?;
    let path = match client.address.path.as_str() {
        "/" => client.only_system().await?,
        path => path.to_owned(),
    };
    let (system, etag) = client.ask(Method::GET, &path, None, None).await?;
    let is_on = system["PowerState"] == "On";
    if is_on && wish == Wish::On {
        return Err("the machine is on already: it has another system running, or hangs; it was not restarted".into());
    }
    let reset = &system["Actions"]["#ComputerSystem.Reset"];
    let target = local_path(&reset["target"]).ok_or("it offers no reset of the system")?;
    let how = match is_on {
        false => "On",
        true => how_to_restart(&reset["ResetType@Redfish.AllowableValues"])?,
    };
    let once = json!({ "Boot": { "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe" } });
    client.ask(Method::PATCH, &path, Some(&once), etag.as_deref()).await?;
    client.ask(Method::POST, &target, Some(&json!({ "ResetType": how })), None).await?;
    Ok(())
}

/// The best of what the board allows; one that does not say is asked for the best.
fn how_to_restart(allowed: &Value) -> Result<&'static str, Failed> {
    let Some(allowed) = allowed.as_array() else { return Ok(RESTARTS[0]) };
    let best = RESTARTS.into_iter().find(|how| allowed.iter().any(|each| each == how));
    best.ok_or_else(|| format!("it offers none of {}", RESTARTS.join(", ")).into())
}

/// A path on the board, if that is what it says; it leads to no other host.
fn local_path(value: &Value) -> Option<String> {
    let path = value.as_str()?;
    let plain = path.bytes().all(|sign| sign.is_ascii_graphic());
    (path.starts_with('/') && !path.starts_with("//") && plain).then(|| path.to_owned())
}

/// Asks one board; each request has a connection of its own, as some close theirs after each.
struct Client {
    address: Address,
    name: ServerName<'static>,
    connector: TlsConnector,
    authorization: String,
}

impl Client {
    async fn new(board: &Board) -> Result<Self, Failed> {
        let address = parse(&board.url)?;
        let pin = board.fingerprint.clone();
        let config = tokio::task::spawn_blocking(move || trust_of(Some(&*pin).filter(|pin| !pin.is_empty()))).await??;
        Ok(Self {
            name: ServerName::try_from(address.host.clone())?,
            connector: TlsConnector::from(Arc::new(config)),
            authorization: format!("Basic {}", STANDARD.encode(format!("{}:{}", board.user, board.password))),
            address,
        })
    }

    /// The path of the system on a board that has one.
    async fn only_system(&self) -> Result<String, Failed> {
        let (all, _) = self.ask(Method::GET, "/redfish/v1/Systems", None, None).await?;
        match all["Members"].as_array().map(Vec::as_slice) {
            Some([one]) => local_path(&one["@odata.id"]).ok_or_else(|| "its system has no path".into()),
            Some([]) | None => Err("it names no system".into()),
            Some(several) => {
                let paths: Vec<String> =
                    several.iter().filter_map(|one| local_path(&one["@odata.id"])).take(8).collect();
                Err(format!("it has several systems; end its address with the path of one: {}", paths.join(", "))
                    .into())
            }
        }
    }

    /// Gives what was answered, and its tag.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<(Value, Option<String>), Failed> {
        let what = format!("{method} {path}");
        let failed = |error: &(dyn Error + 'static)| Failed::from(format!("{what}: {}", one_line(error)));
        let place = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(place).await.map_err(|error| failed(&error))?;
        let stream = self.connector.connect(self.name.clone(), stream).await.map_err(|error| failed(&error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host_and_port(&self.address.host, self.address.port))
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::ACCEPT, "application/json")
            .header("odata-version", "4.0");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        let text = body.map_or_else(String::new, Value::to_string);
        let request = request.body(Full::new(Bytes::from(text)))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let moved = tokio::spawn(connection);
        let answered = async {
            let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = response.status();
            if !status.is_success() {
                return Err(Failed::from(format!("{what}: it answered {status}")));
            }
            let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            let whole = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let whole = whole.map_err(|error| Failed::from(format!("{what}: {error}")))?.to_bytes();
            // What was done may be answered with nothing.
            Ok((serde_json::from_slice(&whole).unwrap_or_default(), etag))
        };
        let answered = answered.await;
        moved.abort();
        answered
    }
}

#[cfg(test)]
mod tests;
