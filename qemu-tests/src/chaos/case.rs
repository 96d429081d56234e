//! A case of chaos: what happens, to the node at which place of the chain, and how far that node is then.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::liar::Lie;
use crate::disk::random::Random;

/// What happens to the struck node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// SIGKILL of its agent.
    Kill,
    /// SIGKILL of its agent, which is started again within half a second.
    Restart,
    /// SIGSTOP of its agent, and SIGCONT 0.5 to 3 s later.
    Stop,
    /// Its cable is out for 0.2 to 0.9 s: too short to be given up.
    Blip,
    /// Its cable is out for 2.2 to 3 s: long enough to be given up.
    Flap,
    /// Its card is switched off for 0.2 to 3 s.
    Carrier,
    /// Its cable is pulled for good.
    Pulled,
    /// Whatever is sent to it vanishes, for good.
    DropIn,
    /// Whatever it sends vanishes, for good.
    DropOut,
    /// It is gone at once and without a word: SIGKILL, and no reset leaves the machine.
    PowerOff,
    /// The flow of its upstream link vanishes both ways; new connections go through.
    HalfOpen,
    /// The rate of its link falls to a tenth, for good.
    SlowLink,
    /// A proxy on its upstream link changes one byte on its way down.
    Flip,
    /// A proxy on its upstream link changes one byte on its way up.
    FlipUp,
    /// A proxy on its upstream link changes a byte on its way down every few blocks, for good.
    Garble,
    /// A proxy resets its upstream link.
    Reset,
    /// A proxy ends the stream of its upstream link in order, in the middle of a frame.
    Close,
    /// Its disk has no more room.
    DiskFull,
    /// Every write to its disk fails.
    WriteError,
    /// Every flush of its disk fails.
    FlushError,
    /// Every read of its disk fails.
    ReadError,
    /// Its disk is gone: whatever is asked of it fails.
    DiskGone,
    /// Its disk answers nothing for 1 to 3 s.
    DiskHangs,
    /// SIGKILL of the server, which is started again with the same command; the node is only looked at for how far it is.
    Server,
    /// SIGKILL of the server and of the agent at once; both are started again.
    ServerAndNode,
    /// SIGKILL of two neighbours at once.
    TwoNeighbours,
    /// SIGKILL of a node, and of its downstream up to 0.15 s later: while the chain is being closed.
    OneAfterAnother,
    /// SIGKILL of three neighbours of six at once.
    ThreeAtOnce,
    /// A proxy changes one bit of what the node sends down.
    FlipOut,
    /// A proxy changes a bit of what the node sends down every half MiB, for good: bad memory or a bad card.
    GarbleOut,
    /// The same, and no frame that the node sends up arrives whole either.
    GarbleOwn,
    /// A proxy changes one bit of a part of the manifest that the node sends down.
    PartOut,
    /// A proxy changes one bit of the manifest's header that the node sends down.
    HeaderOut,
    /// The node takes nothing of the image any more, but lives and says so.
    StuckTail,
    /// The node never says how far it is any more, but lives and says so.
    Mute,
    /// The node says over and over that the link to its downstream broke, though it did not.
    FalseBreak,
    /// Seeks flood the server, each from another address; meanwhile the node's agent is killed and started again.
    SpoofFlood,
    /// A stranger floods the node with hellos that have the right numbers, and the server with hellos.
    HelloFlood,
    /// A stranger says sixty hellos a second to the node, of which every twelfth has the right numbers.
    FalseHello,
    /// One write to its disk lands lower than it should, once, and the disk says that all went well.
    Misdirect,
    /// Its disk has half the size that it says: what is written beyond lands at the beginning.
    Wrap,
    /// The same at a size that is no part of what it says, and no power of two.
    WrapOdd,
}

/// What becomes of the struck nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// They end as done, like everybody else.
    Done,
    /// They end as done if they were back in time, else as lost.
    Back,
    /// They end as failed with one of these reasons; or as done, if they had ended before they were struck.
    Failed(&'static [&'static str]),
    /// Either they end as done or as failed with one of these reasons: both are right.
    Either(&'static [&'static str]),
}

/// What a machine must have for a kind to be possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Network namespaces.
    Network,
    /// nftables.
    Firewall,
    /// Loop devices over a file that QEMU's storage daemon shows.
    FaultyDisk,
    /// Loop devices over a file that the lab itself shows.
    MisplacingDisk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 42] = [
        Self::Kill,
        Self::Restart,
        Self::Stop,
        Self::Blip,
        Self::Flap,
        Self::Carrier,
        Self::Pulled,
        Self::DropIn,
        Self::DropOut,
        Self::PowerOff,
        Self::HalfOpen,
        Self::SlowLink,
        Self::Flip,
        Self::FlipUp,
        Self::Garble,
        Self::Reset,
        Self::Close,
        Self::DiskFull,
        Self::WriteError,
        Self::FlushError,
        Self::ReadError,
        Self::DiskGone,
        Self::DiskHangs,
        Self::Server,
        Self::ServerAndNode,
        Self::TwoNeighbours,
        Self::OneAfterAnother,
        Self::ThreeAtOnce,
        Self::FlipOut,
        Self::GarbleOut,
        Self::GarbleOwn,
        Self::PartOut,
        Self::HeaderOut,
        Self::StuckTail,
        Self::Mute,
        Self::FalseBreak,
        Self::SpoofFlood,
        Self::HelloFlood,
        Self::FalseHello,
        Self::Misdirect,
        Self::Wrap,
        Self::WrapOdd,
    ];

    /// Its word in a case's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Blip => "blip",
            Self::Flap => "flap",
            Self::Carrier => "carrier",
            Self::Pulled => "pulled",
            Self::DropIn => "drop-in",
            Self::DropOut => "drop-out",
            Self::PowerOff => "power-off",
            Self::HalfOpen => "half-open",
            Self::SlowLink => "slow-link",
            Self::Flip => "flip",
            Self::FlipUp => "flip-up",
            Self::Garble => "garble",
            Self::Reset => "reset",
            Self::Close => "close",
            Self::DiskFull => "disk-full",
            Self::WriteError => "write-error",
            Self::FlushError => "flush-error",
            Self::ReadError => "read-error",
            Self::DiskGone => "disk-gone",
            Self::DiskHangs => "disk-hangs",
            Self::Server => "server",
            Self::ServerAndNode => "server-and-node",
            Self::TwoNeighbours => "two-neighbours",
            Self::OneAfterAnother => "one-after-another",
            Self::ThreeAtOnce => "three-at-once",
            Self::FlipOut => "flip-out",
            Self::GarbleOut => "garble-out",
            Self::GarbleOwn => "garble-own",
            Self::PartOut => "part-out",
            Self::HeaderOut => "header-out",
            Self::StuckTail => "stuck-tail",
            Self::Mute => "mute",
            Self::FalseBreak => "false-break",
            Self::SpoofFlood => "spoof-flood",
            Self::HelloFlood => "hello-flood",
            Self::FalseHello => "false-hello",
            Self::Misdirect => "misdirect",
            Self::Wrap => "wrap",
            Self::WrapOdd => "wrap-odd",
        }
    }

    /// What the machine must have.
    pub fn needs(self) -> Needs {
        match self {
            Self::DropIn
            | Self::DropOut
            | Self::PowerOff
            | Self::HalfOpen
            | Self::Flip
            | Self::FlipUp
            | Self::Garble
            | Self::Reset
            | Self::Close
            | Self::FlipOut
            | Self::GarbleOut
            | Self::GarbleOwn
            | Self::PartOut
            | Self::HeaderOut
            | Self::StuckTail => Needs::Firewall,
            Self::WriteError | Self::FlushError | Self::ReadError | Self::DiskGone | Self::DiskHangs => {
                Needs::FaultyDisk
            }
            Self::Misdirect | Self::Wrap | Self::WrapOdd => Needs::MisplacingDisk,
            _ => Needs::Network,
        }
    }

    /// How many nodes the chain has, and how many of them are struck.
    pub fn nodes(self) -> (usize, usize) {
        match self {
            Self::TwoNeighbours | Self::OneAfterAnother => (5, 2),
            Self::ThreeAtOnce => (6, 3),
            Self::PartOut | Self::HeaderOut | Self::FalseHello => (5, 1),
            Self::GarbleOut | Self::GarbleOwn => (6, 1),
            _ => (4, 1),
        }
    }

    /// The rate of every link in Mbit/s. Who is to come back needs time for it before the others end.
    pub fn mbits(self) -> u32 {
        match self {
            Self::Flap | Self::SpoofFlood | Self::HelloFlood | Self::FalseHello => 40,
            _ if self.end() == End::Back => 80,
            _ => 200,
        }
    }

    /// What becomes of the struck nodes.
    pub fn end(self) -> End {
        match self {
            Self::Restart | Self::Stop | Self::Flap | Self::Carrier | Self::ServerAndNode | Self::SpoofFlood => {
                End::Back
            }
            Self::Kill
            | Self::Pulled
            | Self::DropIn
            | Self::DropOut
            | Self::PowerOff
            | Self::TwoNeighbours
            | Self::OneAfterAnother
            | Self::ThreeAtOnce => End::Failed(&["node-lost"]),
            Self::GarbleOut | Self::GarbleOwn => End::Either(&["link-corrupt"]),
            Self::StuckTail => End::Failed(&["timed-out", "node-lost", "upstream-lost"]),
            Self::Mute => End::Either(&["timed-out", "node-lost", "protocol-error"]),
            Self::FalseBreak => {
                End::Either(&["timed-out", "node-lost", "protocol-error", "downstream-lost", "upstream-lost"])
            }
            Self::Garble => End::Either(&["link-corrupt", "upstream-lost"]),
            Self::DiskFull | Self::WriteError => End::Failed(&["disk-write"]),
            Self::FlushError => End::Failed(&["disk-flush"]),
            Self::ReadError => End::Failed(&["disk-read"]),
            Self::Misdirect => End::Either(&["disk-mismatch", "disk-wraps"]),
            Self::Wrap => End::Failed(&["disk-wraps"]),
            Self::WrapOdd => End::Failed(&["disk-wraps", "disk-mismatch"]),
            Self::DiskGone => End::Failed(&["disk-open", "disk-write", "disk-flush", "disk-read"]),
            Self::Blip
            | Self::HalfOpen
            | Self::SlowLink
            | Self::Flip
            | Self::FlipUp
            | Self::Reset
            | Self::Close
            | Self::DiskHangs
            | Self::Server
            | Self::FlipOut
            | Self::PartOut
            | Self::HeaderOut
            | Self::HelloFlood
            | Self::FalseHello => End::Done,
        }
    }

    /// Whether a proxy does it, at a byte of the stream.
    pub fn by_proxy(self) -> bool {
        let inward =
            matches!(self, Self::Flip | Self::FlipUp | Self::Garble | Self::Reset | Self::Close | Self::StuckTail);
        inward || self.is_outward()
    }

    /// Whether it strikes what the node sends down.
    pub fn is_outward(self) -> bool {
        matches!(self, Self::FlipOut | Self::GarbleOut | Self::GarbleOwn | Self::PartOut | Self::HeaderOut)
    }

    /// Whether it damages all that the node sends, so that the node must be named.
    pub fn is_corrupting(self) -> bool {
        matches!(self, Self::GarbleOut | Self::GarbleOwn)
    }

    /// What the node's agent seems to say to the server though it does not, if this is about a node that lies.
    pub fn lie(self) -> Option<Lie> {
        match self {
            Self::Mute => Some(Lie::Mute),
            Self::FalseBreak => Some(Lie::Broken),
            _ => None,
        }
    }

    /// Whether a stranger does it, from a machine of its own.
    pub fn by_stranger(self) -> bool {
        matches!(self, Self::SpoofFlood | Self::HelloFlood | Self::FalseHello)
    }

    /// How much later than usual the survivors may be done, in seconds, where that is judged.
    pub fn patience(self) -> Option<f64> {
        let judged = self.is_outward()
            || self.needs() == Needs::MisplacingDisk
            || self.lie().is_some()
            || self.by_stranger()
            || self == Self::StuckTail;
        judged.then_some(20.0)
    }

    /// Longer than this a deployment hangs. A node on which nothing moves has 120 s.
    pub fn limit(self) -> Duration {
        Duration::from_secs(if self == Self::StuckTail { 150 } else { 90 })
    }
}

/// Where in the chain the struck node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// The first node: its upstream is the server.
    Head,
    /// One that is neither first nor last.
    Middle,
    /// The last node.
    Tail,
}

impl Position {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Head, Self::Middle, Self::Tail];

    /// Its word in a case's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Middle => "middle",
            Self::Tail => "tail",
        }
    }

    /// Which `struck` neighbours of a chain of `nodes` these are; of several in the middle the seed says which.
    pub fn places(self, nodes: usize, struck: usize, random: &mut Random) -> std::ops::Range<usize> {
        let last = nodes - struck;
        let first = match self {
            Self::Head => 0,
            Self::Middle => 1 + usize::try_from(random.below(last as u64 - 1)).expect("below the number of nodes"),
            Self::Tail => last,
        };
        first..first + struck
    }
}

/// How far the struck node is when it is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The plan has just been fixed: links are made, disks compared and marked.
    Opening,
    /// 5 to 25 % of its disk are written.
    Early,
    /// 40 to 60 % of its disk are written.
    Middle,
    /// 80 to 95 % of its disk are written.
    Late,
    /// Every block is written: it is flushing, reading back and writing the head.
    Finishing,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Opening, Self::Early, Self::Middle, Self::Late, Self::Finishing];

    /// Its word in a case's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Early => "early",
            Self::Middle => "mid",
            Self::Late => "late",
            Self::Finishing => "finishing",
        }
    }

    /// The thousandth of the disk at which it comes, as the seed has it.
    pub fn at(self, random: &mut Random) -> u64 {
        match self {
            Self::Opening => 0,
            Self::Early => 50 + random.below(200),
            Self::Middle => 400 + random.below(200),
            Self::Late => 800 + random.below(150),
            Self::Finishing => 1000,
        }
    }
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Case {
    /// What happens.
    pub kind: Kind,
    /// To whom.
    pub position: Position,
    /// When.
    pub phase: Phase,
}

impl Case {
    /// The product of kinds, positions and phases, without what cannot be.
    pub fn all() -> Vec<Self> {
        let positions = |kind| Position::ALL.into_iter().map(move |position| (kind, position));
        let phases = |(kind, position)| Phase::ALL.into_iter().map(move |phase| Self { kind, position, phase });
        Kind::ALL.into_iter().flat_map(positions).flat_map(phases).filter(Self::can_be).collect()
    }

    /// A disk on which every block stands needs no more room, and its node takes nothing more: it needs no upstream that a stranger
    /// could replace, nobody waits for what it reports, and it is too late for a flood of seeks. A tail sends nothing down. The manifest
    /// comes first. A disk has one size.
    fn can_be(&self) -> bool {
        match self.kind {
            Kind::DiskFull | Kind::StuckTail => self.phase != Phase::Finishing,
            Kind::Wrap | Kind::WrapOdd => self.phase == Phase::Opening,
            kind if kind.lie().is_some() || kind.by_stranger() => self.phase != Phase::Finishing,
            Kind::PartOut | Kind::HeaderOut => self.position != Position::Tail && self.phase == Phase::Opening,
            // A tail that has every block has said its last ack.
            Kind::GarbleOwn => (self.position, self.phase) != (Position::Tail, Phase::Finishing),
            kind if kind.is_outward() => self.position != Position::Tail,
            _ => true,
        }
    }

    /// Everything about the case that the seed decides is drawn from here.
    pub fn random(&self, seed: u64) -> Random {
        // FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/): the same on every machine and in every version.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Random::new(self.to_string().bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, step))
    }

    /// Whether `name` is this case's, or the beginning of it up to a slash.
    pub fn is_called(&self, name: &str) -> bool {
        let full = self.to_string();
        full == name || full.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.position.as_str(), self.phase.as_str())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::all().into_iter().find(|case| case.to_string() == text);
        found.ok_or_else(|| format!("no case is called {text} (KIND/POSITION/PHASE, as kill/head/early)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_has_a_name_of_its_own_that_leads_back_to_it() {
        let all = Case::all();
        let names: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
        for case in all {
            assert_eq!(case.to_string().parse(), Ok(case));
            assert!(case.is_called(case.kind.as_str()) && !case.is_called("kil"));
        }
    }

    #[test]
    fn struck_nodes_are_neighbours_inside_the_chain_and_a_middle_has_somebody_on_both_sides() {
        for (kind, seed) in Kind::ALL.into_iter().flat_map(|kind| (0..50).map(move |seed| (kind, seed))) {
            let (nodes, struck) = kind.nodes();
            let places = |position: Position| position.places(nodes, struck, &mut Random::new(seed));
            assert_eq!(places(Position::Head), 0..struck);
            assert_eq!(places(Position::Tail), nodes - struck..nodes);
            let middle = places(Position::Middle);
            assert!(middle.start > 0 && middle.end < nodes && middle.len() == struck, "{middle:?}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_case_draws_something_else() {
        let draw = |name: &str, seed| name.parse::<Case>().unwrap().random(seed).word();
        assert_eq!(draw("kill/head/early", 7), draw("kill/head/early", 7));
        assert_ne!(draw("kill/head/early", 7), draw("kill/head/early", 8));
        assert_ne!(draw("kill/head/early", 7), draw("kill/tail/early", 7));
    }
}
