//! Where clients connect: a TCP port or a Unix socket; and how many, and for how long without a word.

use super::negotiate::{Export, negotiate};
use super::transmission;
use core::fmt;
use core::str::FromStr;
use nix::sys::socket::{setsockopt, sockopt};
use slidecast_image::disk::DiskView;
use slidecast_net::text::one_line;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The most connections at a time.
const MAX_CLIENTS: usize = 32;
/// How long a client may take until it has chosen the export.
const NEGOTIATION: Duration = Duration::from_secs(15);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A name or an address, with a port; port 0 is any free one.
    Tcp(String),
    /// The path of a socket that is made.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected HOST:PORT, such as 127.0.0.1:10809, or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(EXPECTED) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let host_is_plain = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
        let good = !host.is_empty() && host_is_plain && port.parse::<u16>().is_ok();
        if good { Ok(Self::Tcp(text.to_owned())) } else { Err(EXPECTED) }
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(super) fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).map(Self::Tcp),
            Listen::Unix(path) => {
                remove_if_abandoned(path);
                UnixListener::bind(path).map(|listener| Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Leaves no socket behind. The thread that takes connections lives as long as the program does.
    pub(super) fn leave(&self) {
        if let Self::Unix(_, path) = self {
            // It may have been removed by hand.
            let _ = std::fs::remove_file(path);
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                // A machine that was switched off says nothing: without a question now and then it would keep its place.
                setsockopt(&stream, sockopt::KeepAlive, &true)?;
                setsockopt(&stream, sockopt::TcpKeepIdle, &60)?;
                setsockopt(&stream, sockopt::TcpKeepInterval, &20)?;
                setsockopt(&stream, sockopt::TcpKeepCount, &3)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// The address as NBD's own tools take it.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "nbd://{address}/{}", super::wire::EXPORT),
                Err(_) => f.write_str("nbd"),
            },
            Self::Unix(_, path) => write!(f, "nbd+unix:///{}?socket={}", super::wire::EXPORT, path.display()),
        }
    }
}

/// A socket that a killed server left behind makes room; anything else stays.
fn remove_if_abandoned(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        let _ = std::fs::remove_file(path);
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)),
        }
    }

    fn end(&self, how: Shutdown) {
        // A connection that is gone already needs no end.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    pub(super) fn shutdown(&self) {
        self.end(Shutdown::Both);
    }

    pub(super) fn shutdown_reading(&self) {
        self.end(Shutdown::Read);
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write_vectored(slices),
            Stream::Unix(stream) => (&mut &*stream).write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that must be through with its negotiation by a deadline, however slowly its bytes come.
struct Hurried<'a> {
    stream: &'a Stream,
    until: Instant,
}

impl Hurried<'_> {
    fn hurry(&self) -> io::Result<&Stream> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_timeouts(Some(left)).map(|()| self.stream)
    }
}

impl Read for Hurried<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.hurry()?.read(buffer)
    }
}

impl Write for Hurried<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hurry()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A place of a connection, given back when it ends.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes connections for ever, each on a thread of its own.
pub(super) fn accept(listener: &Listener, view: &Arc<DiskView>, export: &Export) {
    let taken = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors or memory: that passes when a client leaves.
                log::warn!("taking an NBD connection: {}", one_line(&error));
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let seat = Seat(Arc::clone(&taken));
        if taken.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            log::warn!("an NBD connection was refused: {MAX_CLIENTS} are open");
            continue;
        }
        let (view, export) = (Arc::clone(view), export.clone());
        let serve = move || {
            let _seat = seat;
            serve(&stream, &view, &export);
        };
        if let Err(error) = std::thread::Builder::new().name("nbd".into()).spawn(serve) {
            log::warn!("starting a thread for an NBD connection: {}", one_line(&error));
        }
    }
}

fn serve(stream: &Stream, view: &DiskView, export: &Export) {
    let mut hurried = Hurried { stream, until: Instant::now() + NEGOTIATION };
    let chosen = negotiate(&mut hurried, export).and_then(|chosen| stream.set_timeouts(None).map(|()| chosen));
    match chosen {
        Ok(Some(chosen)) => transmission::serve(stream, view, chosen),
        Ok(None) => {}
        Err(error) => log::debug!("an NBD client did not get through: {}", one_line(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let tcp = |text: &str| text.parse() == Ok(Listen::Tcp(text.to_owned()));
        assert!(tcp("127.0.0.1:10809") && tcp("[::1]:0") && tcp("localhost:1"));
        assert_eq!("unix:/run/a:b".parse(), Ok(Listen::Unix("/run/a:b".into())));
        for wrong in ["", "unix:", "10809", ":10809", "::1:10809", "host:", "host:65536", "/run/socket"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_left_behind_makes_room_and_a_file_or_a_living_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let living = Listener::bind(&Listen::Unix(path.clone())).unwrap();
        assert_eq!(Listener::bind(&Listen::Unix(path.clone())).unwrap_err().kind(), ErrorKind::AddrInUse);
        living.leave();
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&Listen::Unix(path.clone())).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
    }
}
