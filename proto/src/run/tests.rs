use super::*;
use crate::control::{LinkClass, LinkSpec};
use crate::deployment::tests;
use crate::feed::{BlockFrame, Feed, FeedOrder, FeedTransmit, Source};
use crate::frame::HEADER_LEN;
use crate::node::{PartShape, Shape, Take};
use crate::reason::{LookedAt, Verified};
use crate::schedule::{DiskFailure, Event};
use crate::set::BlockSet;
use crate::units::{Hash, LinkKey};

const T0: Time = Time(1_000_000);
const DEPLOYMENT: DeploymentId = DeploymentId([7; 16]);
const BLOCKS: u32 = 4;

/// An image of four blocks in one part, whose payloads are their numbers.
struct Four;

impl Four {
    fn shape() -> Shape {
        Shape { blocks: BLOCKS, parts: vec![PartShape { first: 0, hash: Hash::of(&[2; 8]) }] }
    }
}

impl Source for Four {
    type Payload = u32;

    fn manifest(&self) -> Arc<[u8]> {
        [1; 8].into()
    }

    fn part(&self, _: PartNo) -> Arc<[u8]> {
        [2; 8].into()
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame<u32>> {
        Some(BlockFrame { codec: 0, raw_len: 4096, stored_len: 4096, crc: block.0, payload: block.0 })
    }
}

fn run(front: Front) -> Run<u32> {
    let (root, disk_bytes, block) = (Hash::of(&[1; 8]), 1 << 20, 4096);
    let prepare = Prepare { deployment: DEPLOYMENT, root, disk_bytes, block, ..tests::prepare() };
    Run::new(prepare, RunConfig { node: NodeId(1), ring: 1 << 20, front, turn: TURN }, T0)
}

fn join(pass: u32, class: LinkClass, downstream: bool) -> Join {
    let key = LinkKey([u8::try_from(pass).unwrap() + 1; 32]);
    let spec = |node, class| LinkSpec {
        node: NodeId(node),
        address: "10.0.0.2:4000".parse().unwrap(),
        key: key.clone(),
        class,
    };
    Join {
        deployment: DEPLOYMENT,
        epoch: Epoch(1 + u64::from(pass)),
        pass,
        chain: 0,
        position: 1,
        chain_len: 2,
        upstream: spec(0, LinkClass::Paced),
        downstream: downstream.then(|| spec(2, class)),
    }
}

fn after(millis: u64) -> Time {
    T0.after(Duration::from_millis(millis))
}

fn acts(run: &mut Run<u32>, now: Time) -> Vec<RunAct<u32>> {
    std::iter::from_fn(|| run.poll(|_, _| None, now)).collect()
}

fn messages(run: &mut Run<u32>) -> Vec<ToServer> {
    std::iter::from_fn(|| run.poll_message()).collect()
}

/// The server's end of the link, and what a caller of the machine does for it.
struct Link {
    feed: Feed,
    candidate: Option<Candidate>,
}

impl Link {
    fn new(join: &Join) -> Self {
        let LinkSpec { key, class, .. } = join.upstream.clone();
        let Join { deployment, epoch, pass, .. } = *join;
        let terms = Terms { deployment, epoch, pass, from: NodeId::SERVER, to: NodeId(1), key, class };
        let order = FeedOrder { terms, address: "10.0.0.1:4000".parse().unwrap(), blocks: BlockSet::full(BLOCKS) };
        let mut feed = Feed::new(order, Arc::new(Four::shape()), T0);
        feed.on_calling([3; 16], T0);
        Self { feed, candidate: None }
    }

    /// Takes frames to and fro until nothing moves; gives what the machine asked for.
    fn pump(&mut self, run: &mut Run<u32>) -> Vec<RunAct<u32>> {
        let mut all = Vec::new();
        loop {
            // Every turn of the caller brings the time: that is when credit is given.
            run.on_time(T0);
            all.extend(acts_of_disk(run));
            if let Some(bytes) = self.candidate.as_mut().and_then(Candidate::poll_control) {
                self.tell(&bytes);
                continue;
            }
            if let Some(RunTransmit::Bytes(bytes)) = run.poll_transmit(Side::Upstream, T0) {
                self.tell(&bytes);
                run.on_transmitted(Side::Upstream, T0);
                continue;
            }
            match self.feed.poll_transmit(&Four) {
                None => return all,
                Some(FeedTransmit::Bytes(bytes)) => self.hand(run, &bytes),
                Some(FeedTransmit::Shared(header, bytes)) => self.hand(run, &[&header[..], &bytes].concat()),
                Some(FeedTransmit::Block(header, _, payload)) => {
                    let header = Header::parse(&header).unwrap();
                    assert_eq!(run.on_announced(Side::Upstream, &header, T0), Some(Take::Ring));
                    run.on_block(Side::Upstream, &header, payload, payload, T0);
                }
            }
            self.feed.on_transmitted(true, T0);
        }
    }

    fn tell(&mut self, bytes: &[u8]) {
        let (header, payload) = cut(bytes);
        self.feed.on_frame(&header, payload, T0);
    }

    fn hand(&mut self, run: &mut Run<u32>, bytes: &[u8]) {
        let (header, payload) = cut(bytes);
        match self.candidate.take() {
            _ if header.kind == crate::frame::Kind::Hello => {
                self.candidate = Some(run.on_hello(&header, payload, [4; 16], T0).unwrap());
            }
            Some(mut candidate) => {
                assert!(candidate.on_frame(&header, payload, T0).unwrap());
                run.on_proven(candidate).unwrap();
            }
            None => run.on_control(Side::Upstream, &header, payload.to_vec(), T0),
        }
    }
}

fn cut(bytes: &[u8]) -> (Header, &[u8]) {
    let (head, payload) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
    (Header::parse(head).unwrap(), payload)
}

/// Carries out what is about the manifest.
fn acts_of_disk(run: &mut Run<u32>) -> Vec<RunAct<u32>> {
    let mut all = Vec::new();
    while let Some(act) = run.poll(|_, _| None, T0) {
        match &act {
            RunAct::UseManifest(_) => run.on_manifest(Ok(Four::shape()), T0),
            RunAct::StartDisk => run.on_disk_started(Ok(())),
            RunAct::UsePart(no, _, of) => run.on_part(*no, *of, Ok([]), T0),
            _ => {}
        }
        all.push(act);
    }
    all
}

fn at(acts: &[RunAct<u32>], is: impl Fn(&RunAct<u32>) -> bool) -> usize {
    acts.iter().position(is).unwrap_or_else(|| panic!("not among {acts:?}"))
}

#[test]
fn a_disk_begins_once_it_has_a_manifest_and_a_place_and_ends_when_all_is_read_back() {
    let mut run = run(Front::Blank);
    let join = join(1, LinkClass::Paced, false);
    run.on_join(&join, T0);
    let mut link = Link::new(&join);
    let all = link.pump(&mut run);
    let order = [
        at(&all, |act| matches!(act, RunAct::Trust(Side::Upstream))),
        at(&all, |act| matches!(act, RunAct::StartDisk)),
        at(&all, |act| matches!(act, RunAct::BeginDisk)),
        at(&all, |act| matches!(act, RunAct::UsePart(_, _, PartUse::Keep { to_disk: true }))),
        at(&all, |act| matches!(act, RunAct::Write(..))),
    ];
    assert!(order.is_sorted(), "{all:?}");
    let blocks: Vec<BlockNo> = (0..BLOCKS).map(BlockNo).collect();
    assert_eq!(run.payloads().count(), 4);
    blocks.iter().for_each(|block| run.on_disk(Event::Written(*block)));
    assert_eq!(acts_of_disk(&mut run), [], "nothing is proven yet");
    assert_eq!(run.payloads().count(), 0, "a tail lets go of what is written");
    run.on_disk(Event::Durable(blocks.clone()));
    run.on_disk(Event::Verified(blocks.clone()));
    assert_eq!(acts_of_disk(&mut run), [RunAct::Settled(blocks), RunAct::FinishDisk]);
    let (verified, last_look) = (Verified::Direct, (LookedAt::Sample, 1));
    run.on_disk(Event::Ended { verified, written: BLOCKS, kept: 0, last_look, note: String::new() });
    acts_of_disk(&mut run);
    assert_eq!(run.ended(), Some(EndState::Done));
    assert!(messages(&mut run).iter().any(|message| matches!(message, ToServer::Ended(_))));
}

#[test]
fn a_disk_that_may_hold_something_is_compared_before_it_is_written() {
    let mut run = run(Front::Other);
    let zero = join(0, LinkClass::Paced, false);
    run.on_join(&zero, T0);
    let all = Link::new(&zero).pump(&mut run);
    assert!(all.iter().any(|act| matches!(act, RunAct::Compare { sampled: true, .. })), "{all:?}");
    assert!(!all.contains(&RunAct::BeginDisk));
    let same = vec![BlockNo(0), BlockNo(2)];
    run.on_disk(Event::Compared { first: BlockNo(0), same: same.clone() });
    assert_eq!(acts_of_disk(&mut run), [RunAct::Settled(same)]);
    let main = join(1, LinkClass::Paced, false);
    run.on_join(&main, T0);
    let all = Link::new(&main).pump(&mut run);
    let written = all.iter().filter(|act| matches!(act, RunAct::Write(..))).count();
    assert_eq!((at(&all, |act| *act == RunAct::BeginDisk), written), (0, 2), "{all:?}");
}

#[test]
fn a_disk_that_is_lost_takes_no_more_and_the_node_goes_on() {
    let mut run = run(Front::Blank);
    let join = join(1, LinkClass::Paced, false);
    run.on_join(&join, T0);
    let mut link = Link::new(&join);
    link.pump(&mut run);
    run.on_disk(Event::Failed(DiskFailure { reason: Reason::DiskWrite, detail: "writing block 1".to_owned() }));
    assert_eq!(acts_of_disk(&mut run), [RunAct::StopDisk]);
    assert_eq!((run.ended(), run.is_untouched()), (Some(EndState::Failed), false));
    assert_eq!(run.payloads().count(), 0, "nothing waits for the disk");
    assert!(run.poll(|_, _| None, T0).is_none());
}

#[test]
fn a_downstream_that_does_not_answer_is_given_up_and_dialed_again() {
    let mut run = run(Front::Blank);
    run.on_join(&join(1, LinkClass::Paced, true), T0);
    run.on_time(T0);
    assert!(matches!(acts(&mut run, T0)[..], [RunAct::Dial(_)]));
    assert!(run.is_dialing() && run.poll_transmit(Side::Downstream, T0).is_none());
    run.on_time(after(1999));
    assert_eq!(acts(&mut run, after(1999)), []);
    run.on_time(after(2000));
    let all = acts(&mut run, after(2000));
    assert!(matches!(all[..], [RunAct::Hangup(Side::Downstream, Some(LinkFault::Broken(_)))]), "{all:?}");
    assert!(!run.is_dialing());
    run.on_time(after(2100));
    assert!(matches!(acts(&mut run, after(2100))[..], [RunAct::Dial(_)]));
    run.on_dialed(None, after(2100));
    assert_eq!(acts(&mut run, after(2100)), [RunAct::Hangup(Side::Downstream, None)], "no link without random bytes");
}

#[test]
fn the_server_is_told_once_a_second_how_far_a_node_with_a_place_is() {
    let mut run = run(Front::Blank);
    run.report(0, after(5000));
    assert_eq!(messages(&mut run), []);
    run.on_join(&join(1, LinkClass::Paced, false), after(5000));
    let told = [5000, 5001, 5999, 6000, 6500].map(|at| {
        run.report(7, after(at));
        messages(&mut run).len()
    });
    assert_eq!(told, [1, 0, 0, 1, 0]);
}

#[test]
fn a_server_that_is_away_misses_reports_and_no_other_word() {
    let mut run = run(Front::Blank);
    run.on_join(&join(1, LinkClass::Paced, false), T0);
    (0..300).for_each(|second| run.report(0, after(1000 * second)));
    assert!(run.waiting_messages() <= words::OUTBOX);
    run.fail(Reason::ServerLost, "the server is gone");
    let told = messages(&mut run);
    assert!(matches!(told.last(), Some(ToServer::Ended(ended)) if ended.reason == Reason::ServerLost));
}

#[test]
fn silence_is_told_with_what_the_kernel_of_the_neighbour_does() {
    let event = |state, reason| {
        ToServer::Link(LinkEvent {
            deployment: DEPLOYMENT,
            epoch: Epoch(1),
            peer: NodeId(2),
            side: Side::Downstream,
            state,
            reason,
            detail: "silent".to_owned(),
        })
    };
    let explained = |state, reason, acknowledged: Option<bool>| {
        let mut message = event(state, reason);
        words::explain_silence(&mut message, |side, _| acknowledged.filter(|_| side == Side::Downstream));
        let ToServer::Link(event) = message else { unreachable!() };
        (event.reason, event.detail.contains("kernel"))
    };
    use LinkState::{Down, Suspect};
    assert_eq!(explained(Suspect, Reason::None, Some(true)), (Reason::None, true));
    assert_eq!(explained(Suspect, Reason::None, Some(false)), (Reason::TimedOut, true));
    assert_eq!(explained(Suspect, Reason::None, None), (Reason::None, false));
    assert_eq!(explained(Suspect, Reason::LinkCorrupt, Some(false)), (Reason::LinkCorrupt, false));
    assert_eq!(explained(Down, Reason::TimedOut, Some(true)), (Reason::TimedOut, true));
    assert_eq!(explained(Down, Reason::UpstreamLost, Some(false)), (Reason::UpstreamLost, false));
}
