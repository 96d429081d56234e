//! An agent in a few lines: says hello, takes the place of the head of a chain of one, checks what arrives and keeps nothing
//! but what it was. What it says and asks for on the chain link is decided by the machine that ships.

use slidecast_image::codec::{Codec, Decoder};
use slidecast_image::manifest::{Content, ManifestHeader, Part};
use slidecast_net::clock::Clock;
use slidecast_net::control::{Came, ControlError, ControlPipe};
use slidecast_net::frames::{Arrival, FrameReader};
use slidecast_proto::control::{self, Abort, Card, Finish, Held, Hello, Join, Prepare, Ready, Side, ToAgent, ToServer};
use slidecast_proto::frame::{Header, Kind};
use slidecast_proto::node::{Candidate, Take};
use slidecast_proto::noise::{Channel, ChannelError, PublicKey, SecretKey};
use slidecast_proto::reason::{LookedAt, Verified};
use slidecast_proto::run::{Run, RunAct, RunConfig, RunTransmit, TURN};
use slidecast_proto::schedule::{Event, Front};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, Hash, NodeId, PartNo, Time};
use slidecast_proto::visit::{ControlClock, Task};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The bytes that may be on their way to the agent.
const RING: u64 = 16 << 20;

/// The agent.
pub(crate) struct Agent {
    pipe: ControlPipe<TcpStream>,
    listener: TcpListener,
    clock: Clock,
    control: ControlClock,
    /// Orders that came while blocks did.
    orders: VecDeque<ToAgent>,
    closed: bool,
    /// Its number, once the server has given it one.
    node: NodeId,
    /// The hardware address of its card.
    mac: [u8; 6],
}

/// What an agent found in the end.
pub(crate) struct Received {
    pub(crate) header: ManifestHeader,
    pub(crate) blocks: BlockSet,
}

impl Agent {
    /// Connects and says hello.
    pub(crate) fn connect(port: u16, server: Option<PublicKey>) -> Result<Self, ChannelError> {
        Self::connect_as(port, server, [0; 6])
    }

    /// As [`Agent::connect`], with a card that has this hardware address.
    pub(crate) fn connect_as(port: u16, server: Option<PublicKey>, mac: [u8; 6]) -> Result<Self, ChannelError> {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let channel = Channel::agent(&SecretKey::generate().unwrap(), server);
        let mut agent = Self {
            pipe: ControlPipe::new(socket, channel),
            listener,
            clock: Clock::start(),
            control: ControlClock::new(Time(1)),
            orders: VecDeque::new(),
            closed: false,
            node: NodeId(0),
            mac,
        };
        while !agent.pipe.channel().is_open() {
            agent.pump()?;
        }
        let hello = agent.hello();
        agent.say(&ToServer::Hello(hello));
        // From here on it is heard for as long as it is polled.
        agent.control.on_greeted(agent.now());
        Ok(agent)
    }

    fn hello(&self) -> Hello {
        let card = Card {
            name: "lo".to_owned(),
            mac: self.mac,
            addresses: vec!["127.0.0.1".parse().unwrap()],
            mbits: 1000,
            up: true,
        };
        let disk = control::Disk {
            path: "/dev/fake".to_owned(),
            model: "fake\x1b[2J".to_owned(),
            serial: "1".to_owned(),
            wwn: String::new(),
            transport: "fake".to_owned(),
            bytes: 1 << 30,
            logical_sector: 512,
            physical_sector: 512,
            rotational: false,
            removable: false,
            read_only: false,
            held: Held::No,
            file: false,
            other_paths: Vec::new(),
        };
        let mut boot = [0; 16];
        getrandom::fill(&mut boot).unwrap();
        Hello {
            agent_version: "test".to_owned(),
            hostname: "fake\r\nhost".to_owned(),
            boot,
            ram_bytes: 1 << 30,
            cards: vec![card],
            disks: vec![disk],
            link_port: self.listener.local_addr().unwrap().port(),
            target: String::new(),
        }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    pub(crate) fn say(&mut self, message: &ToServer) {
        self.control.on_said(self.now());
        self.pipe.send(&message.encode()).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        // The server may have hung up; reading will tell.
        let _ = self.pipe.write();
    }

    fn pump(&mut self) -> Result<(), ChannelError> {
        self.flush();
        match self.pipe.read(&mut [0; 4096]) {
            Ok(Came::Bytes) => self.control.on_heard(self.now()),
            Ok(Came::Nothing) => {}
            Err(ControlError::Closed) => self.closed = true,
            Err(ControlError::Channel(error)) => return Err(error),
            Err(ControlError::Io(error)) => panic!("{error}"),
        }
        self.flush();
        Ok(())
    }

    /// Takes in what has come, and shows a sign of life.
    fn poll(&mut self) {
        let now = self.now();
        if self.control.check(self.pipe.channel().is_open(), now) == Ok(true) {
            self.say(&ToServer::Heartbeat);
        }
        self.pump().unwrap();
        while let Some(message) = self.pipe.poll_message() {
            let order = ToAgent::parse(&message).unwrap();
            if let ToAgent::Welcome(welcome) = &order {
                self.node = welcome.node;
            }
            self.orders.push_back(order);
        }
    }

    /// Waits, heard by the server, for as long as `goes_on`; gives the orders that came.
    pub(crate) fn idle(&mut self, mut goes_on: impl FnMut() -> bool) -> Vec<ToAgent> {
        while goes_on() {
            assert!(!self.closed, "the server hung up");
            self.poll();
        }
        self.orders.drain(..).collect()
    }

    /// Waits for an order that `wanted` takes; others are dropped.
    pub(crate) fn wait<T>(&mut self, mut wanted: impl FnMut(ToAgent) -> Option<T>) -> T {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < until, "the order does not come");
            if let Some(found) = self.orders.pop_front().and_then(&mut wanted) {
                return found;
            }
            if self.orders.is_empty() {
                assert!(!self.closed, "the server hung up");
                self.poll();
            }
        }
    }

    /// Takes the image and the place that the server gives.
    pub(crate) fn join(&mut self) -> (Prepare, Join) {
        let prepare = self.wait(|order| if let ToAgent::Prepare(prepare) = order { Some(prepare) } else { None });
        self.say(&ToServer::Ready(Ready {
            deployment: prepare.deployment,
            target: "/dev/fake".to_owned(),
            describe: "fake\x1b[2J".to_owned(),
            bytes: 1 << 30,
            rotational: false,
            direct: true,
            comparable: false,
            ring: 64 << 20,
        }));
        let join = self.wait(|order| if let ToAgent::Join(join) = order { Some(join) } else { None });
        (prepare, join)
    }

    /// Receives the image as the head of a chain of one, or gives up after `most` blocks. The machine of the real agent decides; this
    /// is its socket, and a disk that keeps nothing.
    pub(crate) fn receive(&mut self, prepare: &Prepare, join: &Join, most: u32) -> Option<Received> {
        let config = RunConfig { node: self.node, ring: RING, front: Front::Blank, turn: TURN };
        let mut run = Run::new(prepare.clone(), config, self.now());
        run.on_join(join, self.now());
        let (mut link, caller) = self.take_call(&mut run);
        let (mut disk, mut candidate) = (Disk::new(), Some(caller));
        while run.ended().is_none() {
            let now = self.now();
            let (header, payload) = link.next_frame()?;
            match (header.kind, candidate.take()) {
                (_, Some(mut caller)) => {
                    assert!(caller.on_frame(&header, &payload, now).unwrap());
                    run.on_proven(caller).unwrap();
                }
                (Kind::Block, None) => {
                    assert_eq!(run.on_announced(Side::Upstream, &header, now), Some(Take::Ring));
                    let crc = crc32fast::hash(&payload);
                    run.on_block(Side::Upstream, &header, crc, payload, now);
                }
                (_, None) => run.on_control(Side::Upstream, &header, payload, now),
            }
            run.on_time(now);
            disk.carry_out(&mut run, now);
            while let Some(RunTransmit::Bytes(bytes)) = run.poll_transmit(Side::Upstream, now) {
                link.socket.write_all(&bytes).ok()?;
                run.on_transmitted(Side::Upstream, now);
            }
            if disk.hung_up || disk.blocks.count() >= most {
                return None;
            }
            run.report(2, now);
            while let Some(message) = run.poll_message() {
                self.say(&message);
            }
            self.poll();
        }
        Some(Received { header: disk.header?, blocks: disk.blocks })
    }

    /// Takes the call of the server for the place of this run. Calls for places in deployments that are over are let go.
    fn take_call(&self, run: &mut Run<Vec<u8>>) -> (Link, Candidate) {
        loop {
            let (socket, _) = self.listener.accept().unwrap();
            let mut link = Link::over(socket);
            let Some((header, payload)) = link.next_frame() else { continue };
            if let Ok(mut caller) = run.on_hello(&header, &payload, [9; 16], self.now()) {
                link.socket.write_all(&caller.poll_control().unwrap()).unwrap();
                return (link, caller);
            }
        }
    }

    /// All is well: waits until it may go.
    pub(crate) fn finish(&mut self) -> Finish {
        self.wait(|order| if let ToAgent::Finish(finish) = order { Some(finish) } else { None })
    }

    pub(crate) fn wait_for_abort(&mut self) -> Abort {
        self.wait(|order| if let ToAgent::Abort(abort) = order { Some(abort) } else { None })
    }
}

/// The link to the upstream.
struct Link {
    socket: TcpStream,
    reader: FrameReader<Vec<u8>>,
}

impl Link {
    fn over(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut reader = FrameReader::new(0);
        reader.trust();
        Self { socket, reader }
    }

    /// The next frame; nothing if the link is over, or silent for too long.
    fn next_frame(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            match self.reader.poll().unwrap() {
                Some(Arrival::Announced(header)) => self.reader.receive_into(vec![0; header.payload_len as usize]),
                Some(Arrival::Block { header, payload, .. } | Arrival::Control(header, payload)) => {
                    return Some((header, payload));
                }
                Some(Arrival::Skipped(_)) => {}
                None if self.reader.read(&mut self.socket).ok()?.bytes == 0 => return None,
                None => {}
            }
        }
    }
}

/// A disk that checks every block and keeps nothing.
struct Disk {
    header: Option<ManifestHeader>,
    parts: BTreeMap<PartNo, Part>,
    blocks: BlockSet,
    decoder: Decoder,
    /// The link is of no more use.
    hung_up: bool,
}

impl Disk {
    fn new() -> Self {
        let blocks = BlockSet::empty(0);
        Self { header: None, parts: BTreeMap::new(), blocks, decoder: Decoder::default(), hung_up: false }
    }

    fn carry_out(&mut self, run: &mut Run<Vec<u8>>, now: Time) {
        while let Some(act) = run.poll(|_, _| None, now) {
            match act {
                RunAct::UseManifest(bytes) => {
                    assert_eq!(ManifestHeader::root(&bytes), run.order().root);
                    let header = ManifestHeader::parse(&bytes).unwrap();
                    self.blocks = BlockSet::empty(header.blocks);
                    run.on_manifest(Ok(header.shape()), now);
                    self.header = Some(header);
                }
                RunAct::StartDisk => run.on_disk_started(Ok(())),
                RunAct::UsePart(no, bytes, of) => {
                    let part = Part::parse(self.header.as_ref().unwrap(), no, &bytes).unwrap();
                    let all = (part.first().0..part.first().0 + part.len()).map(BlockNo);
                    let is_fill = |block: &BlockNo| matches!(part.block(*block).unwrap().content, Content::Fill { .. });
                    let fills: Vec<BlockNo> = all.filter(is_fill).collect();
                    self.parts.insert(no, part);
                    run.on_part(no, of, Ok(fills.clone()), now);
                    self.keep(run, &fills);
                }
                RunAct::Write(frame, payload) => {
                    let block = BlockNo(frame.number);
                    let part = &self.parts[&self.header.as_ref().unwrap().part_of(block)];
                    check(part, &frame, &payload, &mut self.decoder);
                    self.keep(run, &[block]);
                }
                RunAct::FinishDisk => {
                    let (verified, written, kept) = (Verified::Direct, self.blocks.count(), 0);
                    let last_look = (LookedAt::Sample, written);
                    run.on_disk(Event::Ended { verified, written, kept, last_look, note: String::new() });
                }
                RunAct::Hangup(..) => self.hung_up = true,
                _ => {}
            }
        }
    }

    fn keep(&mut self, run: &mut Run<Vec<u8>>, blocks: &[BlockNo]) {
        for block in blocks {
            assert!(self.blocks.insert(*block), "{block} came twice");
            run.on_disk(Event::Written(*block));
        }
        run.on_disk(Event::Durable(blocks.to_vec()));
        run.on_disk(Event::Verified(blocks.to_vec()));
    }
}

fn check(part: &Part, frame: &Header, payload: &[u8], decoder: &mut Decoder) {
    let mut raw = vec![0; frame.raw_len as usize];
    decoder.decode(Codec::from_byte(frame.codec).unwrap(), payload, &mut raw).unwrap();
    let Content::Stored { hash, .. } = part.block(BlockNo(frame.number)).unwrap().content else { panic!("a fill") };
    assert_eq!(Hash::of(&raw), hash);
}
