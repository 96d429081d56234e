use super::*;
use crate::control::LinkClass;
use crate::frame::Kind;
use crate::link::{Receiver, ReceiverEvent};
use crate::node::PartShape;
use crate::units::{DeploymentId, Epoch, Hash, LinkKey, NodeId};

const T0: Time = Time(1_000_000);
const RING: u64 = 64 << 20;

/// An image of eight blocks whose payloads are their numbers.
struct Eight;

impl Source for Eight {
    type Payload = u32;

    fn manifest(&self) -> Arc<[u8]> {
        [1; 8].into()
    }

    fn part(&self, _: PartNo) -> Arc<[u8]> {
        [2; 8].into()
    }

    fn block(&self, block: BlockNo) -> Option<BlockFrame<u32>> {
        Some(BlockFrame { codec: 0, raw_len: 1024, stored_len: 1024, crc: 0, payload: block.0 })
    }
}

fn order() -> FeedOrder {
    let terms = Terms {
        deployment: DeploymentId([1; 16]),
        epoch: Epoch(1),
        pass: 1,
        from: NodeId::SERVER,
        to: NodeId(1),
        key: LinkKey([7; 32]),
        class: LinkClass::Paced,
    };
    FeedOrder { terms, address: "10.0.0.7:7000".parse().unwrap(), blocks: BlockSet::full(8) }
}

fn feed() -> Feed {
    let shape = Shape { blocks: 8, parts: vec![PartShape { first: 0, hash: Hash([0; 32]) }] };
    Feed::new(order(), Arc::new(shape), T0)
}

fn after(millis: u64) -> Time {
    T0.after(Duration::from_millis(millis))
}

fn events(feed: &mut Feed) -> Vec<FeedEvent> {
    std::iter::from_fn(|| feed.poll_event()).collect()
}

fn reset() -> LinkFault {
    LinkFault::Broken("connection reset".into())
}

/// The head's end of the link; it lacks what the feed is to send, or less.
struct Head {
    receiver: Receiver,
    lacks: BlockSet,
}

impl Head {
    /// Takes a frame; gives the block that it was.
    fn take(&mut self, transmit: FeedTransmit<u32>, now: Time) -> Option<u32> {
        let bytes = match transmit {
            FeedTransmit::Block(header, block, payload) => {
                assert_eq!(block.0, payload, "the payload is that of the block");
                self.receiver.on_block(&Header::parse(&header).unwrap(), now).unwrap();
                self.receiver.on_block_complete(block);
                return Some(payload);
            }
            FeedTransmit::Bytes(bytes) => bytes,
            FeedTransmit::Shared(header, bytes) => [&header[..], &bytes].concat(),
        };
        let (header, payload) = cut(&bytes);
        if self.receiver.on_frame(&header, &payload, now).unwrap() == ReceiverEvent::Manifest {
            self.receiver.say_lacks(&self.lacks);
        }
        self.receiver.on_time(0, RING, RING, now).unwrap();
        None
    }

    fn answer(&mut self, feed: &mut Feed, now: Time) -> Option<BlockNo> {
        let mut again = None;
        while let Some(bytes) = self.receiver.poll_control() {
            let (header, payload) = cut(&bytes);
            again = again.or(feed.on_frame(&header, &payload, now));
        }
        again
    }
}

fn cut(bytes: &[u8]) -> (Header, Vec<u8>) {
    let header = Header::parse(bytes[..HEADER_LEN].try_into().unwrap()).unwrap();
    (header, bytes[HEADER_LEN..].to_vec())
}

/// The feed calls, and the head answers.
fn call(feed: &mut Feed, lacks: BlockSet, now: Time) -> Head {
    assert!(feed.wants_call(now));
    feed.on_calling([3; 16], now);
    let Some(FeedTransmit::Bytes(hello)) = feed.poll_transmit(&Eight) else { panic!("no Hello") };
    feed.on_transmitted(true, now);
    let (header, payload) = cut(&hello);
    let receiver = Receiver::answer(order().terms, &header, &payload, false, [9; 16], now).unwrap();
    let mut head = Head { receiver, lacks };
    head.answer(feed, now);
    head
}

/// Sends up to `most` blocks, or all and the end.
fn send(feed: &mut Feed, head: &mut Head, most: usize, now: Time) -> Vec<u32> {
    let mut blocks = Vec::new();
    while blocks.len() < most {
        let Some(transmit) = feed.poll_transmit(&Eight) else { break };
        feed.on_transmitted(true, now);
        blocks.extend(head.take(transmit, now));
        head.answer(feed, now);
    }
    blocks
}

fn set(blocks: &[u32]) -> BlockSet {
    let mut set = BlockSet::empty(8);
    for block in blocks {
        set.insert(BlockNo(*block));
    }
    set
}

#[test]
fn a_head_gets_what_it_lacks_in_order() {
    let mut feed = feed();
    let mut head = call(&mut feed, set(&[0, 1, 2, 4, 5, 6, 7]), T0);
    assert_eq!(send(&mut feed, &mut head, usize::MAX, T0), [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!(events(&mut feed), [FeedEvent::Up, FeedEvent::Ended]);
}

#[test]
fn a_link_that_breaks_is_made_again_and_goes_on_with_what_the_head_lacks() {
    let mut feed = feed();
    let mut head = call(&mut feed, BlockSet::full(8), T0);
    assert_eq!(send(&mut feed, &mut head, 4, T0), [0, 1, 2, 3]);
    feed.on_closed(&reset(), after(5));
    assert!(!feed.wants_call(after(5)) && feed.deadline() == after(105), "it pauses before it calls again");
    // Two blocks were lost with the link.
    let mut head = call(&mut feed, set(&[2, 3, 4, 5, 6, 7]), after(105));
    assert_eq!(send(&mut feed, &mut head, usize::MAX, after(105)), [2, 3, 4, 5, 6, 7]);
    let broken = FeedEvent::Broken { detail: "connection reset".into(), damaged: false };
    assert_eq!(events(&mut feed), [FeedEvent::Up, broken, FeedEvent::Ended]);
}

#[test]
fn each_link_that_stood_renews_the_patience() {
    let mut feed = feed();
    for round in 0..5 {
        let now = after(round * 2500);
        let mut head = call(&mut feed, BlockSet::full(8), now);
        send(&mut feed, &mut head, 1, now);
        feed.on_closed(&reset(), after(round * 2500 + 2400));
        assert!(!feed.is_over());
    }
}

#[test]
fn a_head_that_is_not_there_is_called_for_three_seconds_and_given_up_by_name() {
    let mut feed = feed();
    let (mut now, mut calls) = (T0, 0);
    while !feed.is_over() {
        assert!(feed.wants_call(now));
        calls += 1;
        feed.on_closed(&LinkFault::Broken("connection refused".into()), now);
        now = now.max(feed.deadline());
    }
    assert_eq!(calls, 31);
    let down = "link to node 1 at 10.0.0.7:7000: connection refused";
    assert_eq!(
        events(&mut feed),
        [FeedEvent::Down { detail: down.into(), damaged: false }],
        "nothing broke that never stood"
    );
    assert!(!feed.wants_call(after(60_000)));
}

#[test]
fn a_head_whose_kernel_answers_and_says_nothing_itself_is_called_once() {
    let mut feed = feed();
    feed.on_calling([3; 16], T0);
    while feed.has_link() {
        feed.on_time(feed.deadline());
    }
    assert!(feed.is_over());
    assert!(
        matches!(&events(&mut feed)[..], [FeedEvent::Down { detail, damaged: false }] if detail.contains("handshake"))
    );
}

#[test]
fn damage_is_told_apart_from_a_break() {
    let mut feed = feed();
    let _head = call(&mut feed, BlockSet::full(8), T0);
    let damaged = Header { payload_crc: 1, ..Header::with_payload(Kind::Ack, order().terms.deployment, 0, &[0; 24]) };
    assert_eq!(feed.on_frame(&damaged, &[0; 24], T0), None);
    assert!(!feed.has_link());
    assert!(matches!(events(&mut feed)[..], [FeedEvent::Up, FeedEvent::Broken { damaged: true, .. }]));
}

#[test]
fn a_fault_of_the_image_file_is_no_break_and_ends_the_feed() {
    let mut feed = feed();
    let mut head = call(&mut feed, BlockSet::full(8), T0);
    send(&mut feed, &mut head, 1, T0);
    feed.on_image_fault("block 1 of disk.slide".into());
    assert!(feed.is_over() && !feed.has_link());
    feed.on_closed(&reset(), T0);
    assert_eq!(events(&mut feed), [FeedEvent::Up, FeedEvent::ImageCorrupt("block 1 of disk.slide".into())]);
}

#[test]
fn only_sleep_with_something_to_send_counts_as_waiting_for_the_network() {
    let mut feed = feed();
    let _head = call(&mut feed, BlockSet::full(8), T0);
    feed.on_slept(T0, after(100));
    assert!(feed.poll_transmit(&Eight).is_some());
    feed.on_slept(after(100), after(400));
    feed.on_transmitted(false, after(400));
    feed.on_slept(after(400), after(600));
    feed.on_transmitted(true, after(600));
    feed.on_slept(after(600), after(1000));
    feed.on_time(after(1000));
    let waited = FeedEvent::Waited { network: Duration::from_millis(500), of: Duration::from_secs(1) };
    assert_eq!(events(&mut feed), [FeedEvent::Up, waited]);
}
