//! Whole deployments in one process: real sockets, rings and disks (files); only the control link is left out.

use super::*;
use crate::callers::{Callers, Calling};
use crate::event_loop::{EventLoop, callers};
use crate::inventory::{Roots, Wait, disks};
use slidecast_image::create::{CreateOptions, create};
use slidecast_image::{Image, Resolved, StoredRef};
use slidecast_proto::control::{LinkClass, LinkSpec, LinkState};
use slidecast_proto::feed::{BlockFrame, Feed, FeedOrder, FeedTransmit, Source};
use slidecast_proto::frame::HEADER_LEN;
use slidecast_proto::link::Terms;
use slidecast_proto::reason::{Free, Then, Verified, Verify};
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, Epoch, Hash, LinkKey, PartNo};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const MEBI: usize = 1 << 20;

/// A disk with noise, repeats, zeros and a pattern, and its image.
struct Fixture {
    folder: tempfile::TempDir,
    image: Resolved,
    disk: Vec<u8>,
}

impl Fixture {
    fn new(mebibytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = vec![0; mebibytes * MEBI];
        let mut noise = blake3::Hasher::new().finalize_xof();
        noise.fill(&mut disk[..mebibytes * MEBI / 2]);
        disk[MEBI * 2..MEBI * 3].fill(0);
        let repeated = disk[MEBI..MEBI + MEBI / 2].to_vec();
        let at = mebibytes * MEBI - MEBI;
        disk[at..at + repeated.len()].copy_from_slice(&repeated);
        disk[at - MEBI..at].fill(0xA5);
        let source = folder.path().join("source");
        std::fs::write(&source, &disk).unwrap();
        let layer = folder.path().join("layer.slide");
        let options = CreateOptions { block: Some(256 << 10), ..CreateOptions::new(&source, &layer) };
        create(&options, |_| {}).unwrap();
        let image = Image::open(&layer).unwrap().resolve().unwrap();
        Self { folder, image, disk }
    }

    fn prepare(&self, verify: Verify) -> Prepare {
        let header = self.image.header();
        Prepare {
            deployment: DEPLOYMENT,
            root: self.image.root(),
            image: "test".to_owned(),
            disk_bytes: header.disk_bytes,
            sector: header.sector,
            block: header.block,
            grain: header.grain,
            selector: String::new(),
            verify,
            free: Free::Keep,
            then: Then::Hold,
            fresh: false,
        }
    }

    fn target(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(self.disk.len() as u64).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn check(&self, target: &str) {
        let written = std::fs::read(target).unwrap();
        let differs = written.iter().zip(&self.disk).position(|(a, b)| a != b);
        assert_eq!((written.len(), differs), (self.disk.len(), None), "{target}");
    }
}

impl Source for Fixture {
    type Payload = StoredRef;

    fn manifest(&self) -> Arc<[u8]> {
        self.image.header_bytes().into()
    }

    fn part(&self, part: PartNo) -> Arc<[u8]> {
        self.image.part_bytes(part).into()
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame<StoredRef>> {
        let stored = self.image.stored(block)?;
        Some(BlockFrame {
            codec: stored.codec as u8,
            raw_len: stored.raw_len,
            stored_len: stored.stored_len,
            crc: stored.crc,
            payload: stored,
        })
    }
}

fn try_prepare(
    prepare: Prepare,
    target: &str,
    ring: u64,
    events: &EventLoop,
    id: u32,
) -> Result<(Run, Ready), Refused> {
    let resources = Resources {
        node: NodeId(id),
        disks: &disks(&Roots::default(), Wait::ForAll, Some(Path::new(target))),
        own: &Selector::parse(target).unwrap(),
        ring,
        card: None,
        waker: events.waker(),
    };
    Run::prepare(prepare, &resources, events.now())
}

/// What a test tells a node.
enum Order {
    Join(Join),
    FailDisk,
    Stop,
}

/// One node in a thread of its own.
struct TestNode {
    address: SocketAddr,
    orders: Sender<Order>,
    told: Receiver<ToServer>,
    thread: JoinHandle<Exit>,
}

impl TestNode {
    fn start(id: u32, prepare: Prepare, target: String, ring: u64) -> Self {
        let (orders, take) = channel();
        let (tell, told) = channel();
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            let mut events = EventLoop::new().unwrap();
            let (mut run, _) = try_prepare(prepare, &target, ring, &events, id).unwrap();
            ready.send(events.port().unwrap()).unwrap();
            serve(&mut run, &mut events, &take, &tell);
            let exit = run.exit();
            drop(run);
            exit
        });
        let port = is_ready.recv().unwrap();
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), orders, told, thread }
    }

    fn ended(&self) -> slidecast_proto::control::Ended {
        loop {
            if let ToServer::Ended(ended) = self.told.recv_timeout(Duration::from_secs(30)).unwrap() {
                return ended;
            }
        }
    }

    fn stop(self) -> Exit {
        self.orders.send(Order::Stop).unwrap();
        self.thread.join().unwrap()
    }
}

/// Turns a node's loop until the orders end.
fn serve(run: &mut Run, events: &mut EventLoop, take: &Receiver<Order>, tell: &Sender<ToServer>) {
    let mut callers: Callers = callers();
    loop {
        let now = events.now();
        match take.try_recv() {
            Ok(Order::Join(join)) => run.on_join(&join, now),
            Ok(Order::FailDisk) => run.fail(Reason::DiskWrite, "a test"),
            Ok(Order::Stop) => return,
            Err(_) => {}
        }
        while let Some((stream, peer)) = events.accept() {
            callers.enter(stream, peer, None, events.registry(), now).unwrap();
        }
        while let Some(calling) = callers.poll(now) {
            match calling {
                Calling::Spoke { caller, header, payload, .. } => {
                    match run.on_hello(&header, &payload, crate::random::random_bytes().unwrap(), now) {
                        Ok(candidate) => callers.answer(caller, candidate),
                        Err(fault) => callers.refuse(caller, header.deployment, &fault.to_string()),
                    }
                }
                Calling::Proven { conn, candidate } => run.on_proven(*conn, *candidate, events.registry(), now),
                Calling::Stranger { .. } => {}
            }
        }
        run.advance(events.registry(), now);
        while let Some(message) = run.poll_message() {
            tell.send(message).unwrap();
        }
        let deadline = run.deadline().min(now.after(Duration::from_millis(20)));
        events
            .wait(deadline, |event| {
                callers.on_event(event);
                run.on_event(event);
            })
            .unwrap();
    }
}

fn key(of: u32) -> LinkKey {
    LinkKey([u8::try_from(of).unwrap(); 32])
}

/// Gives the nodes, numbered from 1, their places in one chain.
fn join(nodes: &[&TestNode]) {
    let spec = |id: u32, address| LinkSpec { node: NodeId(id), address, key: key(id), class: LinkClass::Paced };
    for (position, node) in (1u32..).zip(nodes) {
        let next = nodes.get(position as usize).map(|next| spec(position + 1, next.address));
        let join = Join {
            deployment: DEPLOYMENT,
            epoch: Epoch(1),
            pass: 1,
            chain: 0,
            position: u16::try_from(position).unwrap(),
            chain_len: u16::try_from(nodes.len()).unwrap(),
            upstream: LinkSpec { node: NodeId(position - 1), ..spec(position, node.address) },
            downstream: next,
        };
        node.orders.send(Order::Join(join)).unwrap();
    }
}

/// Feeds the head until `done` says so. `damage` may change a payload before it is sent.
fn feed(
    source: &Fixture,
    head: SocketAddr,
    mut damage: impl FnMut(BlockNo, &mut Vec<u8>),
    mut done: impl FnMut() -> bool,
) {
    let origin = Instant::now();
    let now = || Time::default().after(origin.elapsed());
    let blocks = source.image.header().blocks;
    let shape = source.image.header().shape();
    let terms = Terms {
        deployment: DEPLOYMENT,
        epoch: Epoch(1),
        pass: 1,
        from: NodeId::SERVER,
        to: NodeId(1),
        key: key(1),
        class: LinkClass::Paced,
    };
    let mut stream = TcpStream::connect(head).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    let order = FeedOrder { terms, address: head, blocks: BlockSet::full(blocks) };
    let mut feed = Feed::new(order, Arc::new(shape), now());
    feed.on_calling([3; 16], now());
    let mut came = Vec::new();
    while !done() {
        while let Some(transmit) = feed.poll_transmit(source) {
            let bytes = match transmit {
                FeedTransmit::Bytes(bytes) => bytes,
                FeedTransmit::Shared(header, payload) => [&header[..], &payload].concat(),
                FeedTransmit::Block(header, block, stored) => {
                    let mut payload = vec![0; stored.stored_len as usize];
                    source.image.layer(stored.layer).read_at(stored.offset, &mut payload).unwrap();
                    damage(block, &mut payload);
                    [&header[..], &payload].concat()
                }
            };
            stream.write_all(&bytes).unwrap();
            feed.on_transmitted(true, now());
        }
        let mut buffer = [0; 65536];
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => came.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        while let Some(head) = came.first_chunk::<HEADER_LEN>() {
            let header = Header::parse(head).unwrap();
            let end = HEADER_LEN + header.payload_len as usize;
            if came.len() < end {
                break;
            }
            if let Some(block) = feed.on_frame(&header, &came[HEADER_LEN..end], now()) {
                feed.resend(block);
            }
            came.drain(..end);
        }
        feed.on_time(now());
        assert!(feed.has_link());
    }
}

#[test]
fn one_image_goes_through_three_nodes_with_rings_smaller_than_it() {
    let fixture = Fixture::new(24);
    let targets: Vec<String> = ["a", "b", "c"].map(|name| fixture.target(name)).into();
    let nodes: Vec<TestNode> = (1..)
        .zip(&targets)
        .map(|(id, target)| TestNode::start(id, fixture.prepare(Verify::Full), target.clone(), 4 << 20))
        .collect();
    join(&nodes.iter().collect::<Vec<_>>());
    let mut ends = Vec::new();
    feed(
        &fixture,
        nodes[0].address,
        |_, _| {},
        || {
            ends.extend(nodes.iter().flat_map(|node| node.told.try_iter()).filter_map(|message| match message {
                ToServer::Ended(ended) => Some(ended),
                _ => None,
            }));
            ends.len() == nodes.len()
        },
    );
    for ended in ends {
        assert_eq!((ended.state, ended.reason), (EndState::Done, Reason::None), "{}", ended.detail);
        assert_ne!(ended.verified, Verified::No);
        assert_eq!(ended.blocks_written, fixture.image.header().blocks);
    }
    assert!(nodes.into_iter().all(|node| node.stop() == Exit::Done));
    targets.iter().for_each(|target| fixture.check(target));
}

#[test]
fn a_block_damaged_on_the_way_is_fetched_again() {
    let fixture = Fixture::new(8);
    let target = fixture.target("a");
    let node = TestNode::start(1, fixture.prepare(Verify::Full), target.clone(), 4 << 20);
    join(&[&node]);
    let mut damaged = 0;
    let mut ended = None;
    let damage = |block: BlockNo, payload: &mut Vec<u8>| {
        if block.0 >= 5 && damaged == 0 {
            damaged += 1;
            payload[1000] ^= 1;
        }
    };
    feed(&fixture, node.address, damage, || {
        ended = ended.take().or_else(|| {
            node.told
                .try_iter()
                .find_map(|message| if let ToServer::Ended(ended) = message { Some(ended) } else { None })
        });
        ended.is_some()
    });
    assert_eq!(ended.map(|ended| ended.state), Some(EndState::Done));
    assert_eq!((node.stop(), damaged), (Exit::Done, 1));
    fixture.check(&target);
}

#[test]
fn a_manifest_with_another_root_writes_nothing() {
    let fixture = Fixture::new(4);
    let target = fixture.target("a");
    let prepare = Prepare { root: Hash([9; 32]), ..fixture.prepare(Verify::Full) };
    let node = TestNode::start(1, prepare, target.clone(), 4 << 20);
    join(&[&node]);
    feed(&fixture, node.address, |_, _| {}, || false);
    let down = node.told.iter().find_map(|message| match message {
        ToServer::Link(event) if event.state == LinkState::Down => Some(event.reason),
        _ => None,
    });
    assert_eq!(down, Some(Reason::ManifestMismatch));
    assert_eq!(node.stop(), Exit::NotStarted);
    assert!(std::fs::read(&target).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_node_whose_disk_fails_says_so_and_goes_on_relaying() {
    let fixture = Fixture::new(16);
    let (first, second) = (fixture.target("a"), fixture.target("b"));
    let one = TestNode::start(1, fixture.prepare(Verify::Full), first.clone(), 4 << 20);
    let two = TestNode::start(2, fixture.prepare(Verify::Full), second.clone(), 4 << 20);
    let mut failed = false;
    join(&[&one, &two]);
    let mut ended = None;
    let damage = |block: BlockNo, _: &mut Vec<u8>| {
        if block.0 >= 8 && !failed {
            failed = true;
            one.orders.send(Order::FailDisk).unwrap();
        }
    };
    feed(&fixture, one.address, damage, || {
        ended = ended.take().or_else(|| {
            two.told
                .try_iter()
                .find_map(|message| if let ToServer::Ended(ended) = message { Some(ended) } else { None })
        });
        ended.is_some()
    });
    assert_eq!(ended.map(|ended| ended.state), Some(EndState::Done));
    assert_eq!(one.ended().reason, Reason::DiskWrite);
    fixture.check(&second);
    assert_eq!((one.stop(), two.stop()), (Exit::Failed, Exit::Done));
}

#[test]
fn a_ring_too_small_for_the_blocks_and_an_unknown_target_are_refused() {
    let fixture = Fixture::new(4);
    let events = EventLoop::new().unwrap();
    let target = fixture.target("a");
    let prepare = fixture.prepare(Verify::Full);
    let small = try_prepare(prepare.clone(), &target, 256 << 10, &events, 1).unwrap_err();
    assert_eq!(small.reason, Reason::MemoryShort);
    let missing = try_prepare(prepare, "/no/such/disk", 4 << 20, &events, 1).unwrap_err();
    assert_eq!(missing.reason, Reason::TargetNotFound);
}
