//! Chains of machines without sockets: a feed, nodes and disks in one thread, with virtual time.

mod cases;

use super::*;
use crate::control::{LinkSpec, LinkState};
use crate::feed::{BlockFrame, Feed, FeedOrder, FeedTransmit, Source};
use crate::frame::{HEADER_LEN, Kind};
use crate::link::Sender;
use crate::link::refusal;
use crate::reason::{EndState, LinkClass};
use crate::reason::{Phase, Reason, Verified};
use crate::set::BlockSet;
use crate::units::LinkKey;
use core::time::Duration;
use std::net::{Ipv4Addr, SocketAddr};

const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const BLOCK: u32 = 8192;
const RING: u64 = 16 * 8192;

/// An image in which every fifth block is a fill, with 8 blocks a part.
struct Image {
    blocks: u32,
    manifest: &'static [u8],
}

impl Image {
    fn is_fill(block: u32) -> bool {
        block % 5 == 4
    }

    fn shape(&self) -> Shape {
        let part = |(no, first)| PartShape { first, hash: Hash::of(&self.part(PartNo(no))) };
        Shape { blocks: self.blocks, parts: (0..).zip((0..self.blocks).step_by(8)).map(part).collect() }
    }

    fn fills(&self, part: PartNo) -> Vec<BlockNo> {
        self.shape().blocks_of(part).filter(|block| Self::is_fill(*block)).map(BlockNo).collect()
    }
}

impl Source for Image {
    type Payload = ();

    fn manifest(&self) -> Arc<[u8]> {
        self.manifest.into()
    }

    fn part(&self, part: PartNo) -> Arc<[u8]> {
        part.0.to_le_bytes()[..].into()
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame<()>> {
        let frame = BlockFrame { codec: 0, raw_len: BLOCK, stored_len: BLOCK, crc: !block.0, payload: () };
        (!Self::is_fill(block.0)).then_some(frame)
    }
}

/// One node and what stands for its disk.
struct Rig {
    node: Node,
    candidate: Option<Candidate>,
    /// Blocks handed to the disk and not written yet.
    pending: VecDeque<BlockNo>,
    disk_stuck: bool,
    /// What the disk held before, if that is worth comparing, and the parts that wait for it.
    holds: Option<Vec<u32>>,
    to_compare: VecDeque<PartNo>,
    written: Vec<BlockNo>,
    released: u64,
    finished: bool,
    told: Vec<ToServer>,
    connect: Option<u64>,
    most_held: u64,
}

struct World {
    now: Time,
    image: Image,
    feed: Feed,
    rigs: Vec<Rig>,
    /// The block whose payload arrives damaged at this node, so often.
    damage: Option<(usize, BlockNo, u8)>,
    cut: Vec<usize>,
}

fn spec(node: u32) -> LinkSpec {
    LinkSpec {
        node: NodeId(node),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
        key: LinkKey([u8::try_from(node).unwrap(); 32]),
        class: LinkClass::Paced,
    }
}

fn join(id: u32, nodes: u32, pass: u32) -> Join {
    // Each pass has keys of its own.
    let spec = |node| {
        let spec = spec(node);
        LinkSpec { key: LinkKey([spec.key.0[0] + 100 * u8::from(pass == 0); 32]), ..spec }
    };
    Join {
        deployment: DEPLOYMENT,
        epoch: Epoch(u64::from(pass) << 32 | 1),
        pass,
        chain: 0,
        position: u16::try_from(id).unwrap(),
        chain_len: u16::try_from(nodes).unwrap(),
        upstream: LinkSpec { node: NodeId(id - 1), ..spec(id) },
        downstream: (id < nodes).then(|| spec(id + 1)),
    }
}

fn feed(image: &Image, join: &Join, now: Time) -> Feed {
    let terms = Terms {
        deployment: DEPLOYMENT,
        epoch: join.epoch,
        pass: join.pass,
        from: NodeId::SERVER,
        to: NodeId(1),
        key: join.upstream.key.clone(),
        class: LinkClass::Paced,
    };
    let order = FeedOrder { terms, address: spec(1).address, blocks: BlockSet::full(image.blocks) };
    let mut feed = Feed::new(order, Arc::new(image.shape()), now);
    feed.on_calling([1; 16], now);
    feed
}

impl Rig {
    /// What goes up the chain, the answer to a candidate included.
    fn poll_up(&mut self) -> Option<Transmit> {
        let answer = self.candidate.as_mut().and_then(Candidate::poll_control).map(Transmit::Bytes);
        answer.or_else(|| self.node.poll_transmit(Side::Upstream))
    }
}

impl World {
    fn new(nodes: u32, blocks: u32) -> Self {
        Self::in_pass(1, nodes, blocks)
    }

    fn in_pass(pass: u32, nodes: u32, blocks: u32) -> Self {
        let now = Time(1);
        let image = Image { blocks, manifest: b"manifest" };
        let rigs = (1..=nodes)
            .map(|id| {
                let config = NodeConfig {
                    id: NodeId(id),
                    deployment: DEPLOYMENT,
                    root: Hash::of(&image.manifest()),
                    ring: RING,
                    verify: Verify::Full,
                };
                let mut node = Node::new(config, now);
                node.on_join(&join(id, nodes, pass), now);
                Rig {
                    node,
                    candidate: None,
                    pending: VecDeque::new(),
                    disk_stuck: false,
                    holds: None,
                    to_compare: VecDeque::new(),
                    written: Vec::new(),
                    released: 0,
                    finished: false,
                    told: Vec::new(),
                    connect: None,
                    most_held: 0,
                }
            })
            .collect();
        let feed = feed(&image, &join(1, nodes, pass), now);
        Self { now, image, feed, rigs, damage: None, cut: Vec::new() }
    }

    /// Brings a frame to node `at` from its upstream.
    fn deliver_down(&mut self, at: usize, header: Header, payload: Vec<u8>) {
        self.take_in(at, header, payload);
        self.act(at);
    }

    fn take_in(&mut self, at: usize, header: Header, payload: Vec<u8>) {
        let (now, damage) = (self.now, &mut self.damage);
        let rig = &mut self.rigs[at];
        if header.kind == Kind::Hello {
            rig.candidate = Some(rig.node.on_hello(&header, &payload, [2; 16], now).unwrap());
            return;
        }
        if let Some(mut candidate) = rig.candidate.take() {
            assert!(candidate.on_frame(&header, &payload, now).unwrap());
            return rig.node.adopt(candidate).unwrap();
        }
        match rig.node.on_header(Side::Upstream, &header, now).unwrap() {
            Take::Control => rig.node.on_control(Side::Upstream, &header, payload, now).unwrap(),
            Take::Ring => {
                let mut crc = header.payload_crc;
                if let Some((node, block, left @ 1..)) = damage.as_mut()
                    && (*node, block.0) == (at, header.number)
                {
                    *left -= 1;
                    crc ^= 1;
                }
                if let Err(fault) = rig.node.on_block(&header, crc) {
                    rig.node.on_link_lost(Side::Upstream, &fault, now);
                    self.cut.push(at);
                }
            }
        }
    }

    /// Moves everything that can move without time passing; gives whether anything did.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        while let Some(transmit) = self.feed.poll_transmit(&self.image) {
            moved = true;
            self.feed.on_transmitted(true, self.now);
            if self.cut.contains(&0) {
                continue;
            }
            let (header, payload) = match transmit {
                FeedTransmit::Bytes(bytes) => split(&bytes),
                FeedTransmit::Shared(header, bytes) => (Header::parse(&header).unwrap(), bytes.to_vec()),
                FeedTransmit::Block(header, ..) => (Header::parse(&header).unwrap(), Vec::new()),
            };
            self.deliver_down(0, header, payload);
        }
        for at in 0..self.rigs.len() {
            moved |= self.act(at);
            while let Some(transmit) = self.rigs[at].node.poll_transmit(Side::Downstream) {
                moved = true;
                let (header, payload) = match &transmit {
                    Transmit::Bytes(bytes) => split(bytes),
                    Transmit::Shared(header, bytes) => (*header, bytes.to_vec()),
                    Transmit::Block(header, _) => (*header, Vec::new()),
                };
                if !self.cut.contains(&(at + 1)) {
                    self.deliver_down(at + 1, header, payload);
                }
                self.rigs[at].node.on_transmitted(Side::Downstream, &transmit, self.now);
            }
            while let Some(transmit) = self.rigs[at].poll_up() {
                moved = true;
                let Transmit::Bytes(bytes) = &transmit else { panic!("only control frames go up") };
                let (header, payload) = split(bytes);
                self.rigs[at].node.on_transmitted(Side::Upstream, &transmit, self.now);
                if self.cut.contains(&at) {
                    continue;
                }
                if at == 0 {
                    if let Some(block) = self.feed.on_frame(&header, &payload, self.now) {
                        self.feed.resend(block);
                    }
                } else {
                    self.rigs[at - 1].node.on_control(Side::Downstream, &header, payload, self.now).unwrap();
                }
            }
        }
        moved
    }

    fn act(&mut self, at: usize) -> bool {
        let mut moved = false;
        let rig = &mut self.rigs[at];
        while let Some(act) = rig.node.poll() {
            moved = true;
            match act {
                Act::Connect { attempt, .. } => {
                    rig.connect = Some(attempt);
                    assert!(rig.node.on_connected(attempt, [3; 16], self.now));
                }
                Act::Close(_) => {}
                Act::UseManifest(_) => rig.node.on_shape(self.image.shape()),
                Act::UsePart(part, bytes) if rig.node.is_comparing() => {
                    assert_eq!(bytes[..], part.0.to_le_bytes());
                    rig.node.on_part_to_compare(part, rig.holds.is_some());
                    rig.to_compare.extend(rig.holds.is_some().then_some(part));
                }
                Act::UsePart(part, bytes) => {
                    assert_eq!(bytes[..], part.0.to_le_bytes());
                    let fills = self.image.fills(part);
                    if !rig.node.knows_part(part) {
                        let held = |block: &&BlockNo| rig.holds.as_ref().is_some_and(|held| held.contains(&block.0));
                        rig.written.extend(fills.iter().filter(|block| !held(block)));
                    }
                    rig.node.on_part(part, fills.iter().copied());
                    rig.node.on_durable(&fills);
                    rig.node.on_verified(&fills);
                }
                Act::Write(_, header) => rig.pending.push_back(BlockNo(header.number)),
                Act::Release(_) => rig.released += 1,
                Act::FinishDisk => rig.finished = true,
                Act::Tell(message) => rig.told.push(message),
            }
            rig.most_held = rig.most_held.max(rig.node.relay_log.held());
        }
        while !rig.disk_stuck {
            let Some(part) = rig.to_compare.pop_front() else { break };
            moved = true;
            let held = rig.holds.clone().unwrap_or_default();
            let same: Vec<BlockNo> =
                self.image.shape().blocks_of(part).filter(|block| held.contains(block)).map(BlockNo).collect();
            assert!(rig.node.part_bytes(part).is_some(), "a part is there until it was compared");
            rig.node.on_compared(part, &same);
        }
        while !rig.disk_stuck {
            let Some(block) = rig.pending.pop_front() else { break };
            moved = true;
            rig.written.push(block);
            rig.node.on_written(block);
            rig.node.on_durable(&[block]);
            rig.node.on_verified(&[block]);
        }
        moved
    }

    /// Runs for `span` of virtual time, in steps of 10 ms.
    fn run(&mut self, span: Duration) {
        let end = self.now.after(span);
        while self.now < end {
            while self.turn() {}
            self.now = self.now.after(Duration::from_millis(10));
            self.feed.on_time(self.now);
            let now = self.now;
            self.rigs.iter_mut().for_each(|rig| rig.node.on_time(now));
        }
    }

    /// Gives everybody a place in the main pass.
    fn main_pass(&mut self) {
        let nodes = u32::try_from(self.rigs.len()).unwrap();
        self.now = self.now.after(Duration::from_millis(10));
        for (id, rig) in (1..=nodes).zip(&mut self.rigs) {
            rig.node.on_join(&join(id, nodes, 1), self.now);
        }
        self.feed = feed(&self.image, &join(1, nodes, 1), self.now);
    }

    fn phase(&mut self, at: usize) -> Phase {
        self.rigs[at].node.progress(0).phase
    }

    fn assert_complete(&self, at: usize) {
        let rig = &self.rigs[at];
        assert!(rig.finished, "node {at} did not finish: {:?}", rig.node.progress_line());
        let mut written = rig.written.clone();
        written.sort();
        assert_eq!(written, (0..self.image.blocks).map(BlockNo).collect::<Vec<_>>(), "each block once on node {at}");
    }
}

impl Node {
    fn progress_line(&self) -> String {
        format!("{:?}, held {}", self.blocks, self.relay_log.held())
    }
}

fn split(bytes: &[u8]) -> (Header, Vec<u8>) {
    (Header::parse(bytes[..HEADER_LEN].try_into().unwrap()).unwrap(), bytes[HEADER_LEN..].to_vec())
}
