//! Requests to a server, one connection each, and its stream of events.

use super::error::RemoteError;
use super::host_and_port;
use super::trust;
use crate::cli::RemoteServer;
use crate::failure::one_line;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// How long connecting and the beginning of an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The server says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest answer, and the longest line of a stream, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// A server, and how it is known.
#[derive(Debug)]
pub(super) struct Client {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    token: String,
    runtime: Runtime,
}

/// Scheme, host and port.
fn parse_url(url: &str) -> Result<(bool, String, u16), &'static str> {
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("expected an address that begins with https:// (or http:// on this machine)"),
    };
    let authority = rest.trim_end_matches('/');
    let (host, port) = match authority.rsplit_once(':') {
        // The colons inside [::1] are part of the address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = port.map_or(Ok(if tls { 443 } else { 80 }), str::parse).map_err(|_| "the port is no number")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        return Err("expected scheme, host and port, such as https://deploy.example:7540");
    }
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !tls && !here {
        return Err("over http:// the token would travel in the clear; use https://");
    }
    Ok((tls, host.to_owned(), port))
}

impl Client {
    /// Gets ready; nothing is sent yet.
    pub(super) fn new(args: &RemoteServer) -> Result<Self, RemoteError> {
        let (tls, host, port) =
            parse_url(&args.server).map_err(|why| RemoteError::Address { url: args.server.clone(), why })?;
        let token = std::fs::read_to_string(&args.token_file);
        let token = token.map_err(|source| RemoteError::Token { path: args.token_file.clone(), source })?;
        let config = tls.then(|| trust::config(args.fingerprint.as_deref(), args.ca.as_deref())).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(RemoteError::Runtime)?;
        Ok(Self { host, port, tls: config.map(Arc::new), token: token.trim().to_owned(), runtime })
    }

    /// The address, for people.
    pub(super) fn address(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, host_and_port(&self.host, self.port))
    }

    fn broken(&self, error: &dyn std::error::Error) -> RemoteError {
        RemoteError::Broken { server: self.address(), why: one_line(error) }
    }

    /// GET; gives the object of the answer.
    pub(super) fn get(&self, path: &str) -> Result<Value, RemoteError> {
        self.object(Method::GET, path, &[], None)
    }

    /// POST; gives the object of the answer.
    pub(super) fn post(&self, path: &str, head: &[(&str, &str)], body: &Value) -> Result<Value, RemoteError> {
        self.object(Method::POST, path, head, Some(body.to_string()))
    }

    fn object(
        &self,
        method: Method,
        path: &str,
        head: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Value, RemoteError> {
        self.runtime.block_on(async {
            let response = self.send(method, path, head, body).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
            let body = tokio::time::timeout(PATIENCE, body).await.map_err(|error| self.broken(&error))?;
            let body = body.map_err(|error| self.broken(&*error))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| self.broken(&error))
        })
    }

    /// The stream of events, after the one with the number `last` or from now on.
    pub(super) fn events(&self, last: Option<i64>) -> Result<Events<'_>, RemoteError> {
        let last = last.map(|last| last.to_string());
        let mut head = vec![("accept", "text/event-stream")];
        head.extend(last.as_deref().map(|last| ("last-event-id", last)));
        let response = self.runtime.block_on(self.send(Method::GET, "/v1/events", &head, None))?;
        Ok(Events { client: self, body: response.into_body(), read: Vec::new() })
    }

    /// Sends a request; an answer that is none is an error with the server's words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        head: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Response<Incoming>, RemoteError> {
        let work = async {
            let connect = |source| RemoteError::Connect { server: self.address(), source };
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(connect)?;
            let Some(config) = &self.tls else { return self.talk(stream, method, path, head, body).await };
            let name = ServerName::try_from(self.host.clone()).map_err(|error| connect(io::Error::other(error)))?;
            let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await;
            self.talk(stream.map_err(connect)?, method, path, head, body).await
        };
        let response = tokio::time::timeout(PATIENCE, work).await.map_err(|error| self.broken(&error))??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), 1 << 20).collect();
        let body = tokio::time::timeout(PATIENCE, body).await.ok().and_then(Result::ok);
        let problem: Option<Value> = body.and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        let detail = detail.or(status.canonical_reason()).unwrap_or_default();
        Err(RemoteError::Refused { status: status.as_u16(), detail: crate::shown::shown(detail) })
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        head: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Response<Incoming>, RemoteError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // It moves the bytes; how it ends is seen in the answer.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::HOST, host_and_port(&self.host, self.port));
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        let request = request.body(body).map_err(|error| self.broken(&error))?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }
}

/// Something that was told on the stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    /// Empty for an event of the database.
    pub(super) kind: String,
    /// The object.
    pub(super) data: Value,
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events<'a> {
    client: &'a Client,
    body: Incoming,
    read: Vec<u8>,
}

impl Events<'_> {
    /// The next event; nothing if the server has ended the stream.
    pub(super) fn next(&mut self) -> Result<Option<Told>, RemoteError> {
        loop {
            if let Some(told) = take(&mut self.read) {
                return Ok(Some(told));
            }
            let frame = self.client.runtime.block_on(async { tokio::time::timeout(SILENCE, self.body.frame()).await });
            let Some(frame) = frame.map_err(|error| self.client.broken(&error))? else { return Ok(None) };
            let frame = frame.map_err(|error| self.client.broken(&error))?;
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
            if self.read.len() > MAX_ANSWER {
                return Err(self.client.broken(&io::Error::other("an event is too long")));
            }
        }
    }
}

/// Takes the first event out of what was read, if it is complete. Comments and what is not understood are left out.
fn take(read: &mut Vec<u8>) -> Option<Told> {
    loop {
        let end = read.windows(2).position(|two| two == b"\n\n")?;
        let text: Vec<u8> = read.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&text);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(Ok(data)) = field("data").map(serde_json::from_str) {
            return Some(Told { kind: field("event").unwrap_or_default().to_owned(), data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_has_scheme_host_and_port_and_no_token_travels_in_the_clear() {
        assert_eq!(parse_url("https://a.example:7540/"), Ok((true, "a.example".to_owned(), 7540)));
        assert_eq!(parse_url("https://a.example"), Ok((true, "a.example".to_owned(), 443)));
        assert_eq!(parse_url("http://[::1]:80"), Ok((false, "::1".to_owned(), 80)));
        assert_eq!(parse_url("http://127.0.0.1:7540"), Ok((false, "127.0.0.1".to_owned(), 7540)));
        for wrong in ["a.example", "https://", "https://a:b", "https://u@a", "https://a/b", "http://10.0.0.1:7540"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_taken_when_they_are_complete() {
        let mut read = b"retry: 2000\n\n: quiet\n\nid: 7\ndata: {\"id\": 7}\n\nevent: progress\nda".to_vec();
        assert_eq!(take(&mut read), Some(Told { kind: String::new(), data: json!({ "id": 7 }) }));
        assert_eq!(take(&mut read), None);
        read.extend(b"ta: 1\n\n");
        assert_eq!(take(&mut read), Some(Told { kind: "progress".to_owned(), data: json!(1) }));
        assert!(read.is_empty());
    }
}
