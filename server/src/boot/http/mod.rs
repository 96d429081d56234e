//! The HTTP server for boot files: a fixed list of names, nothing else.
//!
//! What can be asked for is a table from path to open file, so there is no path that leads anywhere else. Whatever a
//! caller does, it holds a thread with a small stack for a bounded time. Over the limit the slowest caller makes room for the
//! next one; one address that holds too many is hung up on.

mod callers;
mod connection;
mod request;

use super::booted::BootedMachines;
use super::error::BootError;
use super::event::{Mac, Tell};
use super::files::Opened;
use callers::{Callers, Place};
use nix::sys::socket::{Shutdown, shutdown};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection's thread needs no more.
const STACK: usize = 128 << 10;
/// How long to leave callers waiting when the system has no room for them.
const NO_ROOM: Duration = Duration::from_millis(200);

/// A thing to be fetched.
#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    File(Opened),
}

/// What can be fetched, by path: `/vmlinuz` and so on.
pub(super) type Contents = HashMap<&'static str, Content>;

/// What all connections share.
struct Shared {
    contents: Contents,
    /// Callers that are refused.
    booted: Arc<BootedMachines>,
    tell: Tell,
    callers: Callers,
    stop: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("contents", &self.contents).finish_non_exhaustive()
    }
}

/// The server. Dropping it closes the port; what is being sent goes on until the program ends.
#[derive(Debug)]
pub(super) struct HttpServer {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl HttpServer {
    /// Takes the port.
    pub(super) fn bind(address: Ipv4Addr, port: u16) -> Result<TcpListener, BootError> {
        TcpListener::bind(SocketAddrV4::new(address, port)).map_err(|error| BootError::bind(error, port, address))
    }

    /// Starts to serve.
    pub(super) fn start(
        listener: TcpListener,
        contents: Contents,
        booted: Arc<BootedMachines>,
        tell: Tell,
    ) -> io::Result<Self> {
        let (callers, stop) = (Callers::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { contents, booted, tell, callers, stop });
        let (accepting, for_thread) = (listener.try_clone()?, shared.clone());
        let thread = std::thread::Builder::new().name("slidecast-http".to_owned());
        thread.spawn(move || accept(&accepting, &for_thread))?;
        Ok(Self { listener, shared })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // On Linux this wakes a thread that accepts.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((socket, from)) => {
                if let Some(place) = Place::take(shared, socket, from.ip()) {
                    start_connection(place);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::debug!("HTTP: {error}");
                std::thread::sleep(NO_ROOM);
            }
        }
    }
}

fn start_connection(place: Place) {
    let thread = std::thread::Builder::new().name("slidecast-http-c".to_owned()).stack_size(STACK);
    let serve = move || {
        if let Err(error) = connection::serve(&place) {
            log::debug!("HTTP to {}: {error}", place.from());
        }
    };
    if let Err(error) = thread.spawn(serve) {
        log::warn!("no thread for a caller: {error}");
    }
}

/// The hardware address of the machine with this address, if the kernel knows it.
pub(super) fn mac_of(address: Ipv4Addr) -> Option<Mac> {
    neighbour(&std::fs::read_to_string("/proc/net/arp").unwrap_or_default(), address)
}

/// The hardware address that the kernel has for `address`, in the text of `/proc/net/arp` (proc_pid_net(5)).
fn neighbour(table: &str, address: Ipv4Addr) -> Option<Mac> {
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut macs = lines.filter(|fields| fields.first().is_some_and(|first| first.parse() == Ok(address)));
    let mac = macs.find_map(|fields| fields.get(3).and_then(|mac| Mac::parse(mac)));
    mac.filter(|mac| mac.0 != [0; 6])
}

#[cfg(test)]
mod tests {
    use super::callers::PER_ADDRESS;
    use super::*;
    use crate::boot::BootEvent;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    const KERNEL: &[u8] = b"the kernel";

    fn server() -> (HttpServer, SocketAddrV4, Receiver<BootEvent>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, KERNEL).unwrap();
        let file = Content::File(Opened::open(&path).unwrap());
        let contents = [("/vmlinuz", file), ("/boot.ipxe", Content::Text("#!ipxe\n".to_owned()))].into();
        let (tell, told) = channel();
        let listener = HttpServer::bind(Ipv4Addr::LOCALHOST, 0).unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        let tell: Tell = Arc::new(move |event| drop(tell.send(event)));
        (HttpServer::start(listener, contents, Arc::default(), tell).unwrap(), address, told)
    }

    fn ask(address: SocketAddrV4, request: &str) -> String {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddrV4, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    #[test]
    fn a_file_is_served_whole_in_part_and_by_its_length() {
        let (_server, address, told) = server();
        let answer = get(address, "/vmlinuz");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nthe kernel"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 10\r\n"), "{answer}");
        let event = told.recv_timeout(Duration::from_secs(5)).unwrap().to_string();
        assert!(event.ends_with("127.0.0.1 fetched vmlinuz (10 B over HTTP)"), "{event}");
        let part = ask(address, "GET /vmlinuz HTTP/1.0\r\nRange: bytes=4-5\r\n\r\n");
        assert!(part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\nke"), "{part}");
        assert!(part.contains("\r\nContent-Range: bytes 4-5/10\r\n"), "{part}");
        let beyond = ask(address, "GET /vmlinuz HTTP/1.0\r\nRange: bytes=10-\r\n\r\n");
        assert!(
            beyond.starts_with("HTTP/1.1 416 ") && beyond.contains("\r\nContent-Range: bytes */10\r\n"),
            "{beyond}"
        );
        let head = ask(address, "HEAD /vmlinuz HTTP/1.0\r\n\r\n");
        assert!(head.contains("\r\nContent-Length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(get(address, "/boot.ipxe").ends_with("\r\n\r\n#!ipxe\n"));
    }

    #[test]
    fn a_connection_carries_several_requests() {
        let (_server, address, _told) = server();
        let two = "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\nGET /vmlinuz HTTP/1.1\r\nConnection: close\r\n\r\n";
        let answer = ask(address, two);
        assert!(answer.contains("#!ipxe\nHTTP/1.1 200 OK\r\n") && answer.ends_with("the kernel"), "{answer}");
    }

    #[test]
    fn only_names_of_the_list_are_served() {
        let (_server, address, told) = server();
        for path in [
            "/",
            "/etc/passwd",
            "/../vmlinuz",
            "/./vmlinuz",
            "//vmlinuz",
            "/vmlinuz/",
            "/vmlinuz?x",
            "/%76mlinuz",
            "vmlinuz",
            "*",
        ] {
            let answer = get(address, path);
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        }
        assert!(told.try_recv().is_err(), "nothing was fetched");
        assert!(ask(address, "PUT /vmlinuz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn one_address_can_not_take_all_places() {
        let (_server, address, _told) = server();
        let held: Vec<_> = (0..PER_ADDRESS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut more = TcpStream::connect(address).unwrap();
            more.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            // Hung up on at once, or once the ones before have been seen.
            if matches!(more.read(&mut [0; 1]), Ok(0)) {
                break;
            }
            assert!(Instant::now() < deadline, "nobody was turned away");
        }
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !std::panic::catch_unwind(|| get(address, "/vmlinuz")).is_ok_and(|answer| answer.ends_with("the kernel"))
        {
            assert!(Instant::now() < deadline, "places are not given back");
        }
    }

    /// A connection from another address of this machine that says nothing.
    fn idle(from: Ipv4Addr, to: SocketAddrV4) -> TcpStream {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
        connect(fd.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
        TcpStream::from(fd)
    }

    #[test]
    fn callers_that_say_nothing_make_room_for_one_that_does() {
        let (_server, address, _told) = server();
        // More than there are places for, from so many addresses that none has too many.
        let from = |n: u8| Ipv4Addr::new(127, 9, 0, n / 4 + 1);
        let held: Vec<_> = (0..=255)
            .map(|n| idle(from(n), address))
            .chain((0..=44).map(|n| idle(Ipv4Addr::new(127, 9, 1, n + 1), address)))
            .collect();
        assert!(get(address, "/vmlinuz").ends_with("the kernel"), "far sooner than an idle caller's time is up");
        drop(held);
    }

    #[test]
    fn dropping_the_server_frees_its_port() {
        let (server, address, _told) = server();
        drop(server);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpListener::bind(address).is_err() {
            assert!(Instant::now() < deadline, "the port is still taken");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn neighbours_are_read_from_the_kernels_table() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.0.0.7         0x1         0x2         52:54:00:12:34:56     *        eth1\n\
                     10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth1\n";
        assert_eq!(neighbour(table, [10, 0, 0, 7].into()).unwrap().to_string(), "52:54:00:12:34:56");
        assert_eq!(neighbour(table, [10, 0, 0, 8].into()), None);
        assert_eq!(neighbour(table, [10, 0, 0, 9].into()), None);
        assert_eq!(neighbour("", [10, 0, 0, 9].into()), None);
    }
}
