//! An agent in a few lines: says hello, takes the place of the head of a chain of one, checks what arrives and keeps nothing
//! but what it was.

use slidecast_image::codec::{Codec, Decoder};
use slidecast_image::manifest::{Content, ManifestHeader, Part};
use slidecast_proto::control::{
    Abort, Card, Disk, Ended, Finish, Held, Hello, Join, Prepare, Progress, Ready, ToAgent, ToServer,
};
use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{Receiver, ReceiverEvent, Terms};
use slidecast_proto::noise::{Channel, ChannelError, PublicKey, SecretKey};
use slidecast_proto::reason::{EndState, LookedAt, Phase, Reason, Verified};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, Hash, NodeId, PartNo, Time};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The bytes that may be on their way to the agent.
const RING: u64 = 16 << 20;

/// The agent.
pub(crate) struct Agent {
    socket: TcpStream,
    channel: Channel,
    listener: TcpListener,
    origin: Instant,
    beat: Instant,
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
            socket,
            channel,
            listener,
            origin: Instant::now(),
            beat: Instant::now(),
            orders: VecDeque::new(),
            closed: false,
            node: NodeId(0),
            mac,
        };
        while !agent.channel.is_open() {
            agent.pump()?;
        }
        let hello = agent.hello();
        agent.say(&ToServer::Hello(hello));
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
        let disk = Disk {
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
        Time(1).after(self.origin.elapsed())
    }

    pub(crate) fn say(&mut self, message: &ToServer) {
        self.channel.send(&message.encode()).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(bytes) = self.channel.poll_transmit() {
            // The server may have hung up; reading will tell.
            let _ = self.socket.write_all(&bytes);
        }
    }

    fn pump(&mut self) -> Result<(), ChannelError> {
        self.flush();
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(len) => self.channel.on_bytes(&buffer[..len])?,
            Err(error) => assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock), "{error}"),
        }
        self.flush();
        Ok(())
    }

    /// Takes in what has come, and shows a sign of life.
    fn poll(&mut self) {
        if self.beat.elapsed() > Duration::from_millis(200) && self.channel.is_open() {
            self.beat = Instant::now();
            self.say(&ToServer::Heartbeat);
        }
        self.pump().unwrap();
        while let Some(message) = self.channel.poll_message() {
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

    /// Receives the image as the head of a chain of one, or gives up after `most` blocks. Blocks whose CRC is wrong are
    /// asked for again.
    pub(crate) fn receive(&mut self, prepare: &Prepare, join: &Join, most: u32) -> Option<Received> {
        let (mut link, mut receiver) = self.take_call(join);
        let (mut header, mut parts, mut blocks) = (None, Vec::new(), BlockSet::empty(0));
        let mut decoder = Decoder::new();
        let mut answered = true;
        loop {
            let now = self.now();
            if !std::mem::take(&mut answered) {
                let (frame, payload) = read_frame(&mut link)?;
                if frame.kind == Kind::Block {
                    receiver.on_block(&frame, now).unwrap();
                    receiver.on_block_complete(BlockNo(frame.number));
                    if crc32fast::hash(&payload) == frame.payload_crc {
                        let part: &Part = parts.last().unwrap();
                        check(part, &frame, &payload, &mut decoder);
                        blocks.insert(BlockNo(frame.number));
                    } else {
                        receiver.say_again(BlockNo(frame.number));
                    }
                } else {
                    match receiver.on_frame(&frame, &payload, now).unwrap() {
                        ReceiverEvent::Manifest => {
                            assert_eq!(ManifestHeader::root(&payload), prepare.root);
                            let parsed = ManifestHeader::parse(&payload).unwrap();
                            blocks = BlockSet::empty(parsed.blocks);
                            receiver.say_lacks(&blocks.complement());
                            header = Some(parsed);
                        }
                        ReceiverEvent::Part(number) => {
                            let part = Part::parse(header.as_ref().unwrap(), PartNo(number), &payload).unwrap();
                            let all = part.first().0..part.first().0 + part.len();
                            let is_fill =
                                |block: &BlockNo| matches!(part.block(*block).unwrap().content, Content::Fill { .. });
                            all.map(BlockNo).filter(is_fill).for_each(|block| assert!(blocks.insert(block)));
                            parts.push(part);
                        }
                        ReceiverEvent::End(_) => return header.map(|header| Received { header, blocks }),
                        ReceiverEvent::Nothing | ReceiverEvent::Proven => {}
                    }
                }
            }
            receiver.on_time(0, RING, RING, now).unwrap();
            while let Some(bytes) = receiver.poll_control() {
                link.write_all(&bytes).ok()?;
            }
            if blocks.count() >= most {
                return None;
            }
            self.poll();
        }
    }

    /// Takes the call of the server for this place. Calls for places in deployments that are over are let go.
    fn take_call(&self, join: &Join) -> (TcpStream, Receiver) {
        loop {
            let (mut link, _) = self.listener.accept().unwrap();
            link.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let Some((frame, payload)) = read_frame(&mut link) else { continue };
            let terms = Terms {
                deployment: join.deployment,
                epoch: join.epoch,
                pass: join.pass,
                from: NodeId::SERVER,
                to: self.node,
                key: join.upstream.key.clone(),
                class: join.upstream.class,
            };
            if let Ok(receiver) = Receiver::answer(terms, &frame, &payload, false, [9; 16], self.now()) {
                return (link, receiver);
            }
        }
    }

    /// Says that all is well and waits until it may go.
    pub(crate) fn finish(&mut self, prepare: &Prepare, join: &Join, received: &Received) -> Finish {
        let all = received.header.blocks;
        self.say(&ToServer::Progress(Progress {
            deployment: prepare.deployment,
            epoch: join.epoch,
            phase: Phase::Finishing,
            accepted: all,
            durable: all,
            verified: all,
            received_bytes: 1,
            sent_bytes: 0,
            written_bytes: 2,
            wait_upstream_ms: 0,
            wait_downstream_ms: 0,
            wait_disk_ms: 0,
            durable_new: vec![(0, all)],
            pass_ended: join.pass,
        }));
        self.say(&ToServer::Ended(Ended {
            deployment: prepare.deployment,
            root: prepare.root,
            state: EndState::Done,
            reason: Reason::None,
            detail: String::new(),
            verified: Verified::Direct,
            blocks_written: all,
            blocks_kept: 0,
            last_look: LookedAt::Sample,
            last_look_blocks: all,
        }));
        self.wait(|order| if let ToAgent::Finish(finish) = order { Some(finish) } else { None })
    }

    pub(crate) fn wait_for_abort(&mut self) -> Abort {
        self.wait(|order| if let ToAgent::Abort(abort) = order { Some(abort) } else { None })
    }
}

/// The next frame; nothing if the link is over.
fn read_frame(link: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    link.read_exact(&mut head).ok()?;
    let frame = Header::parse(&head).unwrap();
    let mut payload = vec![0; frame.payload_len as usize];
    link.read_exact(&mut payload).ok()?;
    Some((frame, payload))
}

fn check(part: &Part, frame: &Header, payload: &[u8], decoder: &mut Decoder) {
    let mut raw = vec![0; frame.raw_len as usize];
    decoder.decode(Codec::from_byte(frame.codec).unwrap(), payload, &mut raw).unwrap();
    let Content::Stored { hash, .. } = part.block(BlockNo(frame.number)).unwrap().content else { panic!("a fill") };
    assert_eq!(Hash::of(&raw), hash);
}
