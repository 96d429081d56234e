//! What a seed means: the image, the nodes, the network, and what goes wrong when.

use crate::core::Mood;
use crate::damage::{Corruption, Damage};
use crate::disk::{DiskFault, DiskPlan, Old};
use crate::image::ImagePlan;
use crate::network::NetworkPlan;
use crate::rng::Rng;
use slidecast_proto::reason::{Then, Verify};
use slidecast_proto::run::TURN;
use slidecast_proto::units::Time;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// The card of the server that it hangs on.
    pub(crate) card: u32,
    /// The speed of its link as it reports it, in Mbit/s.
    pub(crate) mbits: u32,
    /// The speed that its link has, in bytes per second.
    pub(crate) rate: u64,
    /// Half of the latency of its paths.
    pub(crate) latency: Duration,
    /// The size of its ring in bytes.
    pub(crate) ring: u64,
    /// How many bytes it writes to a neighbour in one turn.
    pub(crate) turn: u64,
    pub(crate) disk: DiskPlan,
    pub(crate) boot: Time,
}

/// Something that goes wrong. Agents are named by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process of an agent ends; another begins after a while, if at all.
    Kill(usize, Option<Duration>),
    /// The power of a node goes; it boots again after a while, if at all.
    PowerOff(usize, Option<Duration>),
    Hang(usize, Duration),
    HangServer(Duration),
    /// The server is killed, and started again after a while; it may be told that it goes on.
    RestartServer(Duration, bool),
    /// The connection from its upstream is reset.
    ResetUpstream(usize),
    /// The control link is reset.
    ResetControl(usize),
    /// Nothing comes through on the connection from its upstream, one way (0 down, 1 up) or both (2).
    HalfOpen(usize, usize),
    /// Nothing comes through on its control link.
    HalfOpenControl(usize),
    /// No path between two hosts for a while (0 is the server, agent `n` is `n + 1`).
    Cut(usize, usize, Duration),
    /// What comes next from its upstream is damaged.
    Damage(usize, Damage),
    /// What it says next to its upstream is damaged.
    DamageUp(usize),
    /// From now on it damages what it sends on chain links.
    Corrupt(usize, Corruption),
    /// It says nothing of how far it is any more.
    Mute(usize),
    /// It gives no credit any more.
    Stuck(usize),
    /// It says that its downstream link broke, again and again, which is not so.
    FalseDown(usize),
    /// An order that was given before comes once more.
    StaleOrder(usize),
    /// So many strangers call it with the right numbers and without the link key.
    FalseHellos(usize, u32, Mood),
    /// The operator stops the deployment.
    Stop,
}

/// The server is killed at a moment that depends on what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// So long after that moment.
    pub(crate) after: Duration,
    /// When it is started again, and whether it is told to go on.
    pub(crate) back: (Duration, bool),
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// What all of it was drawn from.
    pub(crate) seed: u64,
    pub(crate) image: ImagePlan,
    pub(crate) nodes: Vec<NodePlan>,
    /// The speed of each of the server's cards, in Mbit/s.
    pub(crate) cards: Vec<u32>,
    /// What the server's host can send to one node, in bytes per second.
    pub(crate) server_rate: u64,
    /// What each of the server's cards can send to all of its nodes together, in bytes per second.
    pub(crate) card_rates: Vec<u64>,
    /// How long a write into the server's state folder takes at most.
    pub(crate) state_write: Duration,
    /// How many nodes start it.
    pub(crate) wait_for: u32,
    /// How much is read back.
    pub(crate) verify: Verify,
    /// What machines do when they are let go.
    pub(crate) then: Then,
    /// The server is killed when it has let the first node go.
    pub(crate) kill: Option<Kill>,
    pub(crate) network: NetworkPlan,
    /// What goes wrong, in the order of time.
    pub(crate) faults: Vec<(Time, Fault)>,
    /// When the run must be over.
    pub(crate) limit: Time,
    /// Another deployment comes after this one.
    pub(crate) again: bool,
    /// What the disks hold is not looked at.
    pub(crate) fresh: bool,
    /// The node that has a slow link or disk, which is all that goes wrong: it must not hold up the others.
    pub(crate) slow: Option<usize>,
    /// A node that damages all that it sends from the start, which is all that goes wrong: it must be named.
    pub(crate) culprit: Option<usize>,
}

const MS: Duration = Duration::from_millis(1);

/// What a disk holds before: half of them something of the image.
fn draw_old(rng: &mut Rng) -> Old {
    match rng.below(8) {
        0 | 1 => Old::Blank,
        2 | 3 => Old::Other,
        _ => Old::Image {
            percent: rng.pick(&[100, 100, 99, 95, 50, 10]),
            salt: rng.between_u32(0, 3),
            head: rng.chance(70),
        },
    }
}

pub(crate) fn at_ms(ms: u64) -> Time {
    Time(1_000_000).after(Duration::from_millis(ms))
}

/// What a fault is made of, whichever it is.
struct Chance {
    agent: usize,
    /// When a node is there again, if at all.
    back: Option<Duration>,
    short: Duration,
    /// How many hosts there are, with the server.
    hosts: u64,
}

/// Draws a fault; one that gives nothing is a fault of the agent's disk.
type DrawFault = fn(&mut Rng, &Chance) -> Option<Fault>;

/// The faults that are drawn, each with its weight.
const FAULTS: &[(u64, DrawFault)] = &[
    (3, |_, of| Some(Fault::Kill(of.agent, of.back))),
    (3, |_, of| Some(Fault::PowerOff(of.agent, of.back))),
    (1, |rng, of| Some(Fault::Hang(of.agent, MS * rng.between_u32(100, 9000)))),
    (1, |rng, _| {
        Some(match rng.chance(50) {
            true => Fault::RestartServer(MS * rng.between_u32(20, 9000), rng.chance(50)),
            false => Fault::HangServer(MS * rng.between_u32(50, 6000)),
        })
    }),
    (2, |_, of| Some(Fault::ResetUpstream(of.agent))),
    (1, |_, of| Some(Fault::ResetControl(of.agent))),
    (2, |rng, of| Some(Fault::HalfOpen(of.agent, rng.pick(&[0, 1, 2])))),
    (1, |_, of| Some(Fault::HalfOpenControl(of.agent))),
    (1, |rng, of| {
        let other = usize::try_from(rng.below(of.hosts)).unwrap_or(0);
        let span = if rng.chance(50) { of.short } else { MS * rng.between_u32(900, 9000) };
        Some(Fault::Cut(of.agent + 1, other, span))
    }),
    (2, |rng, of| {
        let damage = [Damage::Block, Damage::Content, Damage::Control, Damage::Head, Damage::Part];
        Some(Fault::Damage(of.agent, rng.pick(&damage)))
    }),
    (1, |_, of| Some(Fault::DamageUp(of.agent))),
    (1, |_, of| Some(Fault::StaleOrder(of.agent))),
    (1, |rng, _| rng.chance(20).then_some(Fault::Stop)),
    (2, |_, _| None),
    (1, |rng, of| Some(Fault::Corrupt(of.agent, Corruption { permille: rng.pick(&[1000, 200, 30]), all: false }))),
    (1, |rng, of| Some(Fault::Corrupt(of.agent, Corruption { permille: rng.pick(&[1000, 200, 30]), all: true }))),
    (1, |_, of| Some(Fault::Mute(of.agent))),
    (1, |_, of| Some(Fault::Stuck(of.agent))),
    (1, |_, of| Some(Fault::FalseDown(of.agent))),
];

/// What chance is drawn from. Each part has a stream of its own, so that a new one leaves what the others draw as it is.
struct Draw {
    rng: Rng,
    agents: Rng,
    held: Rng,
    shared: Rng,
}

fn draw_image(rng: &mut Rng) -> ImagePlan {
    let blocks = rng.between_u32(1, 60);
    let rotten = rng.chance(2).then(|| rng.between_u32(0, blocks - 1));
    ImagePlan {
        blocks,
        block: 64 << 10,
        per_part: rng.between_u32(1, 24),
        fill_every: rng.pick(&[0, 0, 2, 3, 7]),
        stored: rng.pick(&[1..4096, 4096..65_536, 65_535..65_536, 30_000..65_536].each_ref()).clone(),
        part_bytes: usize::try_from(rng.between(8, 4096)).unwrap_or(8),
        rotten,
    }
}

/// Nodes behind `cards` cards of the server. The slowest of all decides how long it takes: some 0.1 to 10 s.
fn draw_nodes(draw: &mut Draw, count: usize, rate: u64, cards: u32, block: u32) -> Vec<NodePlan> {
    let Draw { rng, agents, held, .. } = draw;
    let even = rng.chance(50);
    let late = rng.chance(20);
    let node = |at| {
        let slow = if even { 1 } else { rng.between(1, 4) };
        let disk = DiskPlan {
            open: if agents.chance(20) { MS * agents.between_u32(0, 6000) } else { Duration::ZERO },
            write_rate: rate * rng.pick(&[1, 2, 10]) / if even { 1 } else { rng.between(1, 4) },
            read_rate: rate * rng.pick(&[2, 10]),
            flush: MS * rng.between_u32(0, 30),
            rotational: rng.chance(20),
            old: draw_old(held),
            faults: Vec::new(),
        };
        let boot = if late && at > 0 && rng.chance(40) { rng.between(0, 6000) } else { rng.between(0, 30) };
        NodePlan {
            card: rng.between_u32(0, cards - 1),
            mbits: rng.pick(&[0, 1000, 1000, 100]),
            rate: rate / slow,
            latency: Duration::from_micros(rng.between(10, 3000)),
            ring: u64::from(block) * rng.between(2, 16),
            turn: agents.pick(&[TURN, TURN, 100_000, 1]),
            disk,
            boot: at_ms(boot),
        }
    };
    (0..count).map(node).collect()
}

impl Scenario {
    /// The run of a seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let [rng, agents, held, shared, mut ending] = [1, 4, 5, 6, 9].map(|stream| Rng::new(seed, stream));
        let mut draw = Draw { rng, agents, held, shared };
        let fresh = draw.held.chance(20);
        let count = usize::try_from(match draw.rng.below(10) {
            0 => 1,
            1..=5 => draw.rng.between(2, 5),
            _ => draw.rng.between(3, 12),
        })
        .unwrap_or(1);
        let image = draw_image(&mut draw.rng);
        let rate = draw.rng.pick(&[300_000, 1_000_000, 4_000_000, 40_000_000]);
        let cards = draw.rng.pick(&[1, 1, 1, 2]);
        let verify =
            draw.rng.pick(&[Verify::Full, Verify::Full, Verify::Full, Verify::Twice, Verify::Head, Verify::None]);
        let nodes = draw_nodes(&mut draw, count, rate, cards, image.block);
        let Draw { mut rng, mut agents, mut shared, .. } = draw;
        let network = NetworkPlan {
            window: rng.pick(&[1, 100_000, 400_000]),
            unsent: rng.pick(&[0, 20_000, 524_288]),
            jitter: Duration::from_micros(rng.pick(&[0, 100, 5000])),
            pieces: rng.chance(50),
        };
        let early = u32::try_from(nodes.iter().filter(|node| node.boot <= at_ms(30)).count()).unwrap_or(1);
        let mut scenario = Self {
            seed,
            image,
            nodes,
            cards: (0..cards).map(|_| rng.pick(&[0, 1000, 2500, 10_000])).collect(),
            server_rate: rate * 4,
            card_rates: (0..cards).map(|_| rate * shared.pick(&[1, 2, 8])).collect(),
            // Most are fast; some need longer than an order waits.
            state_write: MS * Rng::new(seed, 7).pick(&[0, 2, 2, 20, 20, 200, 2000]),
            wait_for: early.max(1),
            verify,
            then: if ending.chance(50) { Then::Poweroff } else { Then::Hold },
            kill: None,
            network,
            faults: Vec::new(),
            limit: at_ms(600_000),
            again: false,
            fresh,
            slow: None,
            culprit: None,
        };
        match rng.below(100) {
            0..=2 => scenario.be_corrupted(&mut rng),
            3 | 4 => scenario.drip(&mut rng),
            5 => scenario.be_slow(&mut rng),
            _ => {
                scenario.again = agents.chance(25);
                scenario.draw_faults(&mut rng);
                scenario.kill = ending.chance(10).then(|| Kill {
                    after: MS * ending.between_u32(0, 500),
                    back: (MS * ending.between_u32(20, 5000), ending.chance(50)),
                });
            }
        }
        scenario
    }

    /// A chain of nodes that are alike, of which one damages all that it sends: down only, or up as well. A tail sends nothing down.
    fn be_corrupted(&mut self, rng: &mut Rng) {
        self.alike(usize::try_from(rng.between(4, 8)).unwrap_or(4), rng.pick(&[1_000_000, 4_000_000]));
        let count = self.nodes.len() as u64;
        let all = rng.chance(50);
        let culprit = usize::try_from(rng.below(if all { count } else { count - 1 })).unwrap_or(0);
        self.culprit = Some(culprit);
        self.faults = vec![(at_ms(0), Fault::Corrupt(culprit, Corruption { permille: 1000, all }))];
    }

    /// A chain of nodes that are alike but for one, which has a slow link or a slow disk. It must not hold up the others.
    fn be_slow(&mut self, rng: &mut Rng) {
        self.alike(usize::try_from(rng.between(4, 6)).unwrap_or(4), 1_000_000);
        self.image.blocks = 500;
        // The first to come is the head.
        let slow = if rng.chance(50) { 0 } else { usize::try_from(rng.below(self.nodes.len() as u64)).unwrap_or(0) };
        self.slow = Some(slow);
        // Cards say what the links of the others have: a head that was never faster is told by that.
        self.nodes.iter_mut().for_each(|node| node.mbits = 9);
        let node = &mut self.nodes[slow];
        if rng.chance(50) { node.rate /= 5 } else { node.disk.write_rate /= 10 }
    }

    /// A long run in which the link to one node breaks every seven seconds.
    fn drip(&mut self, rng: &mut Rng) {
        self.alike(usize::try_from(rng.between(2, 5)).unwrap_or(2), 40_000);
        // A block takes 1.6 s on such a link. Two that waited for each other would be silence for a machine that sees whole frames only.
        self.card_rates = vec![320_000];
        let agent = usize::try_from(rng.below(self.nodes.len() as u64)).unwrap_or(0);
        self.faults = (1..14).map(|at| (at_ms(at * 7000), Fault::ResetUpstream(agent))).collect();
    }

    /// Equal nodes behind one card and an image of some megabytes.
    pub(crate) fn alike(&mut self, count: usize, rate: u64) {
        let disk = DiskPlan {
            open: Duration::ZERO,
            write_rate: rate * 2,
            read_rate: rate * 10,
            flush: MS * 10,
            rotational: false,
            old: Old::Blank,
            faults: Vec::new(),
        };
        let node = NodePlan {
            card: 0,
            mbits: 0,
            rate,
            latency: Duration::from_micros(100),
            ring: u64::from(self.image.block) * 16,
            turn: TURN,
            disk,
            boot: at_ms(0),
        };
        self.nodes = vec![node; count];
        self.cards = vec![0];
        (self.server_rate, self.card_rates) = (rate, vec![rate]);
        self.wait_for = u32::try_from(count).unwrap_or(1);
        self.verify = Verify::Full;
        self.image.rotten = None;
        (self.image.blocks, self.image.fill_every) = (60, 0);
        self.image.stored = 60_000..65_536;
    }

    /// A quarter of the runs has no fault; the others have one to four, most while blocks flow.
    fn draw_faults(&mut self, rng: &mut Rng) {
        let bytes = u64::from(self.image.blocks) * u64::from(self.image.stored.end);
        let slowest = self.nodes.iter().map(|node| node.rate.min(node.disk.write_rate)).min().unwrap_or(1).max(1);
        let span_ms = 200 + bytes * 1300 / slowest;
        let faults = if rng.chance(25) { 0 } else { rng.between(1, 4) };
        for _ in 0..faults {
            let agent = usize::try_from(rng.below(self.nodes.len() as u64)).unwrap_or(0);
            let at = at_ms(rng.between(1, span_ms));
            let back = rng.chance(50).then(|| MS * rng.between_u32(10, 8000));
            let short = MS * rng.between_u32(10, 900);
            let mut ticket = rng.below(FAULTS.iter().map(|(weight, _)| weight).sum());
            let drawn = FAULTS.iter().find(|(weight, _)| {
                let is_it = ticket < *weight;
                ticket = ticket.saturating_sub(*weight);
                is_it
            });
            let hosts = self.nodes.len() as u64 + 1;
            match drawn.and_then(|(_, draw)| draw(rng, &Chance { agent, back, short, hosts })) {
                Some(fault) => self.faults.push((at, fault)),
                None => self.draw_disk_fault(agent, rng),
            }
        }
        // Strangers come to a third of the runs, those without any other fault included: what they do must show nowhere.
        if rng.chance(33) {
            for _ in 0..rng.between(1, 4) {
                let agent = usize::try_from(rng.below(self.nodes.len() as u64)).unwrap_or(0);
                let mood = rng.pick(&[Mood::Silent, Mood::Closes, Mood::Garbage]);
                let fault = Fault::FalseHellos(agent, rng.between_u32(1, 8), mood);
                self.faults.push((at_ms(rng.between(1, span_ms)), fault));
            }
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    fn draw_disk_fault(&mut self, agent: usize, rng: &mut Rng) {
        let blocks = self.image.blocks;
        let fault = match rng.below(7) {
            0 => DiskFault::Write(rng.between_u32(1, blocks)),
            1 => DiskFault::Flush(rng.between_u32(1, 3)),
            2 => DiskFault::Read(rng.between_u32(1, blocks)),
            3 => DiskFault::Lost(rng.between_u32(1, blocks)),
            4 => DiskFault::Rotten(rng.between_u32(0, blocks - 1)),
            5 => DiskFault::Misdirected(rng.between_u32(1, blocks)),
            _ => DiskFault::Stuck(rng.between_u32(1, blocks), MS * rng.between_u32(100, 9000)),
        };
        let disk = &mut self.nodes[agent].disk;
        if matches!(fault, DiskFault::Misdirected(_)) {
            // So slow that blocks are read back while others are still written.
            let bytes = u64::from(blocks) * u64::from(self.image.block);
            disk.write_rate = (bytes / 6).max(1);
            disk.rotational = false;
        }
        disk.faults.push(fault);
    }

    /// Whether nothing goes wrong and all come in time.
    pub(crate) fn is_calm(&self) -> bool {
        let whole = self.nodes.iter().all(|node| node.disk.faults.is_empty() && node.boot <= at_ms(30));
        let harmless = self.faults.iter().all(|(_, fault)| matches!(fault, Fault::FalseHellos(..)));
        harmless && whole && self.image.rotten.is_none() && self.kill.is_none()
    }
}
