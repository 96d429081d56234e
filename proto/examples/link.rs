//! Two ends of a chain link, without a socket: they prove that they know the link's key, the lower end says which blocks it
//! lacks and how much it can take, and blocks flow until it has everything.
//!
//! The caller of a machine moves bytes and tells the time; every decision is the machine's.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use slidecast_proto::frame::{HEADER_LEN, Header, Kind};
use slidecast_proto::link::{LinkFault, Receiver, ReceiverEvent, Sender, SenderEvent, Terms};
use slidecast_proto::reason::LinkClass;
use slidecast_proto::set::BlockSet;
use slidecast_proto::units::{BlockNo, DeploymentId, Epoch, LinkKey, NodeId, Time};
use std::time::Duration;

const BLOCKS: u32 = 4;
const RING: u64 = 64 << 10;

fn main() -> Result<(), LinkFault> {
    // What the server told both nodes.
    let terms = Terms {
        deployment: DeploymentId([1; 16]),
        epoch: Epoch(1),
        pass: 0,
        from: NodeId(1),
        to: NodeId(2),
        key: LinkKey([42; 32]),
        class: LinkClass::Paced,
    };
    let mut now = Time(0);
    let mut upstream = Sender::new(terms.clone(), [7; 16], now);
    upstream.set_universe(BLOCKS);

    let hello = upstream.poll_control().expect("a new link has a Hello to send");
    let (header, payload) = split(&hello)?;
    let mut downstream = Receiver::answer(terms.clone(), &header, payload, false, [9; 16], now)?;

    // The lower end holds block 1 already.
    let mut have = BlockSet::empty(BLOCKS);
    have.insert(BlockNo(1));

    while !have.is_full() {
        now = now.after(Duration::from_millis(50));
        while let Some(bytes) = upstream.poll_control() {
            let (header, payload) = split(&bytes)?;
            println!("down  {:?}", header.kind);
            if downstream.on_frame(&header, payload, now)? == ReceiverEvent::Proven {
                downstream.say_lacks(&have.complement());
            }
        }
        while let Some(bytes) = downstream.poll_control() {
            let (header, payload) = split(&bytes)?;
            println!("  up  {:?}", header.kind);
            if upstream.on_frame(&header, payload, now)? == SenderEvent::Open {
                println!("      {} of {BLOCKS} blocks are lacking", upstream.lacking().count());
            }
        }
        for no in (0..BLOCKS).map(BlockNo) {
            let payload = [u8::try_from(no.0).unwrap_or(0); 4096];
            let header = Header::with_payload(Kind::Block, terms.deployment, no.0, &payload);
            let header = Header { raw_len: header.payload_len, ..header };
            if upstream.is_open() && upstream.lacks(no) && !have.contains(no) && upstream.may_send(header.charge()) {
                upstream.sent_block(&header);
                downstream.on_block(&header, now)?;
                downstream.on_block_complete(no);
                have.insert(no);
                println!("down  block {no}");
            }
        }
        // The ring of the lower end is empty again; what it received goes up as an acknowledgement.
        downstream.on_time(downstream.received(), RING, RING, now)?;
        upstream.on_time(now)?;
    }
    println!("      the lower end has every block");
    Ok(())
}

fn split(frame: &[u8]) -> Result<(Header, &[u8]), LinkFault> {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().ok_or(LinkFault::Malformed("frame"))?;
    Ok((Header::parse(header)?, payload))
}
