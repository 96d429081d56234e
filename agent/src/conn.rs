//! The connections of chain links: non-blocking sockets, edge-triggered, with the readiness kept here until it is used up.

use crate::dial::dial;
use crate::ring::{Slot, Span};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use slidecast_net::frames::{self, FrameReader, FrameWriter, ReadError};
use slidecast_net::options::{limit_unacknowledged, limit_unsent};
use slidecast_proto::units::Time;
use std::io;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::time::Duration;

/// How much the kernel may hold that it could not send yet, in bytes: a heartbeat is never further behind than this.
const MAX_UNSENT: u32 = 512 << 10;
/// The longest payload that a caller may send before it has proven the link key: any frame of the handshake fits.
const MAX_EARLY_PAYLOAD: u32 = 512;
/// How long the kernel tries to get bytes acknowledged: the back-stop behind the silence that the link machine measures.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// In the middle of a payload the kernel wakes us when so much has come, in bytes.
const WAKE_AT: usize = 64 << 10;
/// How often a socket is looked at in which less than that may lie: as often as neighbours say that they live.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The word of `struct tcp_info` that has the milliseconds since the last acknowledgement.
const LAST_ACK: usize = offset_of!(libc::tcp_info, tcpi_last_ack_recv) / size_of::<u32>();

/// `TCP_INFO`, tcp(7), up to that word. The whole structure grows with the kernel, and an older one fills less of it than `libc`
/// knows, which the wrapper takes for a mistake.
#[derive(Clone, Copy, Debug)]
struct TcpInfo;

type Words = [u32; LAST_ACK + 1];
nix::getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, Words, sockopt::GetStruct<Words>);

/// `SO_RCVLOWAT`, socket(7): the kernel reports a socket as readable once so many bytes have come, or when it was closed.
#[derive(Clone, Debug)]
struct ReceiveLowat;

nix::setsockopt_impl!(ReceiveLowat, libc::SOL_SOCKET, libc::SO_RCVLOWAT, u32, sockopt::SetStruct<'_, u32>);

/// What comes in complete; payloads of blocks lie in the ring.
pub(crate) type Arrival = frames::Arrival<Slot>;
/// A frame on its way out.
pub(crate) type Outgoing = frames::Outgoing<Span>;

/// One end of a chain link.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    reader: FrameReader<Slot>,
    writer: FrameWriter<Span>,
    readable: bool,
    writable: bool,
    /// The other end closed: read on until the end, however short the reads are.
    closing: bool,
    /// How much must have come for the kernel to wake us, in bytes.
    threshold: usize,
    looked: Time,
}

impl Conn {
    /// Starts to connect, by this network card if one is named. [`Conn::is_established`] says when it is through.
    ///
    /// # Errors
    /// There is no way to the address, no such card, or no socket left.
    pub(crate) fn connect(address: SocketAddr, card: Option<&str>) -> io::Result<Self> {
        Ok(Self::over(dial(address, card)?))
    }

    /// A connection that the listener gave.
    #[must_use]
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            reader: FrameReader::new(MAX_EARLY_PAYLOAD),
            writer: FrameWriter::default(),
            readable: false,
            writable: false,
            closing: false,
            threshold: 1,
            looked: Time::default(),
        }
    }

    /// Sets what a chain link needs of its socket. Nothing here is fatal: a link without these options is only slower to
    /// notice things.
    pub(crate) fn tune(&self) {
        let results = [
            self.stream.set_nodelay(true),
            limit_unacknowledged(&self.stream, USER_TIMEOUT).map_err(io::Error::from),
            limit_unsent(&self.stream, MAX_UNSENT).map_err(io::Error::from),
        ];
        if let Some(error) = results.into_iter().find_map(Result::err) {
            log::debug!("setting socket options: {error}");
        }
    }

    /// Whether the kernel at the other end has acknowledged something `within` so long, if that can be told. It does so even
    /// when the program there is stopped.
    #[must_use]
    pub(crate) fn is_acknowledged(&self, within: Duration) -> Option<bool> {
        let words = getsockopt(&self.stream, TcpInfo).ok()?;
        Some(Duration::from_millis(words[LAST_ACK].into()) < within)
    }

    /// Watches the connection under `token`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Watches the connection under another token.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.reregister(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Takes note of what the kernel says.
    pub(crate) fn on_event(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.closing |= event.is_read_closed() || event.is_error();
    }

    /// Whether a connection that was being made is there.
    ///
    /// # Errors
    /// Why it can't be made.
    pub(crate) fn is_established(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if !self.writable {
            return Ok(false);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The reader, to say where payloads go.
    pub(crate) fn reader(&mut self) -> &mut FrameReader<Slot> {
        &mut self.reader
    }

    /// Whether [`Conn::receive`] would get further without a new event.
    #[must_use]
    pub(crate) fn can_receive(&self) -> bool {
        self.readable && self.reader.announced().is_none()
    }

    /// The next thing that came, reading as far as `budget` bytes and the socket allow. `None`: nothing more for now, or a
    /// block waits for its place.
    ///
    /// # Errors
    /// [`ReadError`]: the connection is of no more use.
    pub(crate) fn receive(&mut self, budget: &mut usize) -> Result<Option<Arrival>, ReadError> {
        loop {
            if let Some(arrival) = self.reader.poll()? {
                return Ok(Some(arrival));
            }
            if !self.can_receive() || *budget == 0 {
                return Ok(None);
            }
            let moved = self.reader.read(&mut self.stream)?;
            *budget = budget.saturating_sub(moved.bytes);
            if moved.blocked && !self.closing {
                self.readable = false;
                self.wait_for_more();
            }
        }
    }

    /// In the middle of a payload it isn't worth waking up for every segment that comes. [`Conn::look_again`] finds what
    /// comes too slowly for that.
    fn wait_for_more(&mut self) {
        let threshold = self.reader.left().clamp(1, WAKE_AT);
        let bytes = u32::try_from(threshold).unwrap_or(u32::MAX);
        if threshold != self.threshold && setsockopt(&self.stream, ReceiveLowat, &bytes).is_ok() {
            self.threshold = threshold;
        }
    }

    /// Looks at the socket although the kernel said nothing, from time to time: less than it waits for may have come, and
    /// a slow neighbour is not a silent one.
    pub(crate) fn look_again(&mut self, now: Time) {
        if now.since(self.looked) >= LOOK_AGAIN {
            self.looked = now;
            self.readable |= self.threshold > 1;
        }
    }

    /// Whether the socket takes another frame now.
    #[must_use]
    pub(crate) fn can_start(&self) -> bool {
        self.writable && self.writer.is_idle()
    }

    /// Whether nothing is on its way out.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.writer.is_idle()
    }

    /// Takes the next frame. The last one must be out.
    pub(crate) fn start(&mut self, frame: Outgoing) {
        self.writer.start(frame);
    }

    /// Writes as much of the frame as the socket takes; gives whether it is out as a whole.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while self.writable && !self.writer.is_idle() {
            self.writable = !self.writer.write(&mut self.stream)?.blocked;
        }
        Ok(self.writer.is_idle())
    }

    /// Says a last thing, if the socket takes it at once. What follows is the end of the connection.
    pub(crate) fn say_last(mut self, frame: Vec<u8>) {
        if self.writer.is_idle() {
            self.writer.start(Outgoing::Bytes(frame));
            let _ = self.writer.write(&mut self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::net::TcpListener;
    use mio::{Events, Poll};
    use slidecast_proto::frame::{Header, Kind};
    use slidecast_proto::units::DeploymentId;
    use std::io::Write;

    const LIVELY: Duration = Duration::from_secs(1);

    #[test]
    fn the_kernel_of_a_program_that_reads_nothing_still_acknowledges() {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut stream, conn) = {
            let address = listener.local_addr().unwrap();
            let stream = std::net::TcpStream::connect(address).unwrap();
            let copy = stream.try_clone().unwrap();
            copy.set_nonblocking(true).unwrap();
            (stream, Conn::over(TcpStream::from_std(copy)))
        };
        std::thread::sleep(LIVELY + Duration::from_millis(100));
        assert_eq!(conn.is_acknowledged(LIVELY), Some(false), "nothing was sent, nothing acknowledged");
        stream.write_all(&[0; 100]).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while conn.is_acknowledged(LIVELY) != Some(true) {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn less_of_a_payload_than_the_kernel_waits_for_is_found_by_looking_again() {
        let mut poll = Poll::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut conn = Conn::connect(listener.local_addr().unwrap(), None).unwrap();
        conn.register(poll.registry(), Token(0)).unwrap();
        conn.reader().trust();
        let (mut sender, _) = listener.accept().unwrap();
        let mut events = Events::with_capacity(4);
        let wait = |poll: &mut Poll, conn: &mut Conn, events: &mut Events, most| {
            poll.poll(events, Some(most)).unwrap();
            events.iter().for_each(|event| conn.on_event(event));
        };
        let long = Duration::from_secs(5);
        let payload = vec![7u8; 1 << 20];
        let header = Header::with_payload(Kind::Block, DeploymentId([0; 16]), 0, &payload);
        sender.write_all(&Header { raw_len: 1 << 20, ..header }.encode()).unwrap();
        while !matches!(conn.receive(&mut 4096).unwrap(), Some(Arrival::Announced(_))) {
            wait(&mut poll, &mut conn, &mut events, long);
        }
        let mut ring = crate::ring::Ring::new(1 << 20).unwrap();
        conn.reader().receive_into(ring.reserve(1 << 20).unwrap());
        while conn.can_receive() {
            assert!(conn.receive(&mut (1 << 20)).unwrap().is_none());
        }
        assert_eq!(conn.threshold, WAKE_AT);
        sender.write_all(&payload[..1000]).unwrap();
        wait(&mut poll, &mut conn, &mut events, Duration::from_millis(50));
        assert!(!conn.can_receive(), "the kernel woke us for 1000 bytes");
        conn.look_again(Time::default().after(LOOK_AGAIN));
        assert!(conn.receive(&mut (1 << 20)).unwrap().is_none());
        assert_eq!(conn.reader().take_payload_bytes(), 1000);
        // What is left goes on without anybody looking.
        let rest = std::thread::spawn(move || sender.write_all(&payload[1000..]).map(|()| sender));
        let block = loop {
            match conn.receive(&mut (1 << 20)).unwrap() {
                Some(arrival) => break arrival,
                None if conn.can_receive() => {}
                None => wait(&mut poll, &mut conn, &mut events, long),
            }
        };
        assert!(matches!(block, Arrival::Block { payload, .. } if payload.iter().all(|&byte| byte == 7)));
        drop(rest.join().unwrap().unwrap());
    }
}
