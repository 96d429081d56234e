//! What happens when: events in the order of their time, and of their making where the time is the same.

use crate::network::ConnId;
use slidecast_proto::units::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// The process of this agent begins.
    Boot(usize),
    /// An agent wanted to be woken.
    Agent(usize),
    /// The target of an agent is open, for this run.
    Opened(usize, u64),
    /// The server wanted to be woken.
    Server,
    /// This write of the server's state folder is done.
    Written(u64),
    /// The server is killed, and is started again after this time; the flag as for `Restart`.
    Kill(Duration, bool),
    /// The server is started again; the flag says whether it is told to go on.
    Restart(bool),
    /// A feed wanted to be woken.
    Feed(u64),
    /// A call reaches the host that was called.
    Syn(ConnId),
    /// The answer to a call comes back.
    Called { conn: ConnId, accepted: bool },
    /// The wire of one direction is free for the next frame.
    Wire(ConnId, usize),
    /// The header of a frame whose payload takes its time.
    Head(ConnId, usize),
    /// Some bytes of the payload that is arriving.
    Trickle(ConnId, usize),
    /// A frame is complete at the other end.
    Arrive(ConnId, usize),
    /// The other end is told that nobody is there any more.
    Reset(ConnId, usize),
    /// A disk has done something: of which agent, in which run, what.
    Disk(usize, u64, DiskOp),
    /// Fault number so much of the scenario.
    Fault(usize),
    /// A host that stood still goes on.
    Resume(usize),
}

/// What an engine does with its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DiskOp {
    Write,
    /// The sort window has written its next block.
    Sweep,
    /// The control thread is through.
    Control,
    Read(u8),
    /// The control thread waited for this time.
    Timer,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Time, u64, Event)>>,
    made: u64,
}

impl Queue {
    /// Lets `event` happen at `at`.
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        self.made += 1;
        self.heap.push(Reverse((at, self.made, event)));
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
