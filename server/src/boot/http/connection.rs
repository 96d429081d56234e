//! One connection: requests one after the other, each with a deadline.

use super::callers::Place;
use super::request::{Asked, MAX_HEAD, Method, Parsed, Request, parse};
use super::{Content, Shared, mac_of};
use crate::boot::event::{BootEvent, Protocol};
use crate::boot::script::GO_ON;
use nix::sys::sendfile::sendfile;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a request's head may take, and the pause before it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long nothing may move while a file is sent.
const STALLED: Duration = Duration::from_secs(20);
/// How long a file may take in all: 50 MB at 100 kB/s.
const FILE_WITHIN: Duration = Duration::from_secs(500);
/// How much is handed to the kernel at once, so that the time is looked at now and then.
const AT_ONCE: u64 = 1 << 20;
/// Requests on one connection.
const REQUESTS: usize = 100;

/// Serves a caller until it goes, or has been there for too long.
pub(super) fn serve(place: &Place) -> io::Result<()> {
    let (socket, from, shared) = (place.socket(), place.from(), &*place.shared);
    socket.set_write_timeout(Some(STALLED))?;
    socket.set_nodelay(true)?;
    let mut bytes = Vec::new();
    for left in (0..REQUESTS).rev() {
        let request = match read_request(socket, &mut bytes)? {
            None => return Ok(()),
            Some(Err(status)) => return answer(socket, status, &[], 0, false),
            Some(Ok(request)) => request,
        };
        let stays = request.stays && left > 0;
        let go_on = Content::Text(GO_ON.to_owned());
        let content = if is_through(from, shared) {
            (request.path == "/boot.ipxe").then_some(&go_on)
        } else {
            shared.contents.get(request.path.as_str())
        };
        match content {
            Some(content) => send(place, &request, content, stays)?,
            None => answer(socket, 404, &[], 0, stays)?,
        }
        if !stays {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the caller is a machine that is booted; if so, that is told.
fn is_through(from: IpAddr, shared: &Shared) -> bool {
    let IpAddr::V4(address) = from.to_canonical() else { return false };
    if shared.booted.is_empty() {
        return false;
    }
    let Some(mac) = mac_of(address).filter(|mac| shared.booted.has(*mac)) else { return false };
    (shared.tell)(BootEvent::SentOn { mac, address });
    true
}

/// The next request; none if the caller has gone or says nothing.
fn read_request(mut socket: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<Result<Request, u16>>> {
    let deadline = Instant::now() + HEAD_WITHIN;
    loop {
        if !bytes.is_empty() {
            match parse(bytes) {
                Parsed::Partial => {}
                Parsed::Refused(status) => return Ok(Some(Err(status))),
                Parsed::Whole(request, len) => {
                    bytes.drain(..len);
                    return Ok(Some(Ok(request)));
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let mut more = [0; 2048];
        let room = more.len().min(MAX_HEAD - bytes.len());
        match socket.read(&mut more[..room]) {
            Ok(0) => return Ok(None),
            Ok(len) => bytes.extend(&more[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        _ => "Bad Request",
    }
}

/// Sends the head of an answer whose body has `len` bytes.
fn answer(mut socket: &TcpStream, status: u16, fields: &[String], len: u64, stays: bool) -> io::Result<()> {
    let connection = if stays { "keep-alive" } else { "close" };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Length: {len}\r\n{fields}Connection: {connection}\r\n\r\n",
        reason(status)
    );
    socket.write_all(head.as_bytes())
}

/// UEFI takes a file for a program by its type, or else by its name.
fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("efi") => "application/efi",
        Some("ipxe") => "text/plain",
        _ => "application/octet-stream",
    }
}

fn send(place: &Place, request: &Request, content: &Content, stays: bool) -> io::Result<()> {
    let (socket, from) = (place.socket(), place.from());
    let len = match content {
        Content::Text(text) => text.len() as u64,
        Content::File(opened) => opened.len,
    };
    let mut fields = vec![format!("Content-Type: {}", media_type(&request.path)), "Accept-Ranges: bytes".to_owned()];
    let (status, (first, end)) = match request.range.map(|asked: Asked| asked.of(len)) {
        None => (200, (0, len)),
        Some(Some((first, end))) => {
            fields.push(format!("Content-Range: bytes {first}-{}/{len}", end - 1));
            (206, (first, end))
        }
        Some(None) => {
            fields.push(format!("Content-Range: bytes */{len}"));
            return answer(socket, 416, &fields, 0, stays);
        }
    };
    answer(socket, status, &fields, end - first, stays)?;
    if request.method == Method::Head {
        return Ok(());
    }
    let mut at = first;
    let sent = send_body(place, content, &mut at, end);
    if let IpAddr::V4(address) = from.to_canonical() {
        (place.shared.tell)(BootEvent::Fetched {
            mac: mac_of(address),
            address,
            file: request.path.trim_start_matches('/').to_owned(),
            bytes: at - first,
            over: Protocol::Http,
            whole: sent.is_ok(),
        });
    }
    sent
}

/// Sends what is from `at` to `end`, moving `at` along.
fn send_body(place: &Place, content: &Content, at: &mut u64, end: u64) -> io::Result<()> {
    let mut socket = place.socket();
    let bound = |at: u64| usize::try_from(at).map_err(io::Error::other);
    let opened = match content {
        Content::Text(text) => {
            socket.write_all(text.as_bytes().get(bound(*at)?..bound(end)?).unwrap_or_default())?;
            place.took(end - *at);
            *at = end;
            return Ok(());
        }
        Content::File(opened) => opened,
    };
    let deadline = Instant::now() + FILE_WITHIN;
    while *at < end {
        let mut offset = libc::off_t::try_from(*at).map_err(io::Error::other)?;
        match sendfile(socket, &opened.file, Some(&mut offset), bound((end - *at).min(AT_ONCE))?) {
            // The file became shorter; the caller sees that bytes are missing.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                *at += len as u64;
                place.took(len as u64);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}
