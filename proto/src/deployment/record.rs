//! What the server knows of one node, gathered from its owners.

use super::ledger::Account;
use super::roster::Member;
use super::timers::{HEARD_WINDOW, REPORT_TIMEOUT};
use super::topology::{Rank, Seat};
use super::{Outcome, Place, Standing};
use crate::control::{Hello, Progress};
use crate::plan::CardId;
use crate::reason::{EndState, Phase};
use crate::set::BlockSet;
use crate::units::{NodeId, Time};
use std::net::IpAddr;

/// What the server knows of one node.
#[derive(Clone, Copy, Debug)]
pub struct NodeRecord<'a> {
    /// Its number.
    pub id: NodeId,
    /// Its inventory.
    pub hello: &'a Hello,
    /// The card of the server that it hangs on.
    pub card: &'a CardId,
    /// The address it called from.
    pub address: IpAddr,
    /// How far it is.
    pub standing: &'a Standing,
    /// Its first place, once it had one.
    pub place: Option<Place>,
    /// Its last report.
    pub progress: Option<&'a Progress>,
    /// The blocks that it says are durable.
    pub durable: &'a BlockSet,
    /// How often the chain was repaired around it.
    pub repairs: u32,
    /// Whether it was moved behind the tail.
    pub moved: bool,
    /// Whether it came after the start.
    pub late: bool,
    /// How often it was given up or started again, and came back.
    pub returned: u32,
    /// Whether its control link stands.
    pub connected: bool,
    pub(super) member: &'a Member,
    pub(super) seat: &'a Seat,
    pub(super) account: &'a Account,
}

impl<'a> NodeRecord<'a> {
    pub(super) fn new(member: &'a Member, seat: &'a Seat, account: &'a Account) -> Self {
        Self {
            id: member.id,
            hello: &member.hello,
            card: &member.card,
            address: member.address,
            standing: &member.standing,
            place: member.place,
            progress: account.progress.as_ref(),
            durable: &account.durable,
            repairs: member.repairs,
            moved: seat.rank() == Rank::Slow,
            late: member.late,
            returned: member.returned,
            connected: member.is_connected(),
            member,
            seat,
            account,
        }
    }

    /// The target, where one is known.
    #[must_use]
    pub fn target(&self) -> &'a str {
        match self.standing {
            Standing::Ready(ready) | Standing::Running(ready) => &ready.target,
            Standing::Ended(outcome) => &outcome.ready.target,
            Standing::Preparing | Standing::Refused { .. } => "",
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<&'a Outcome> {
        self.member.outcome()
    }

    /// Whether it is writing.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.member.is_running()
    }

    /// Whether blocks come to it.
    pub(super) fn is_receiving(&self) -> bool {
        self.is_running() && self.progress.is_some_and(|progress| progress.phase == Phase::Receiving)
    }

    /// Whether it has all blocks, so that it needs no upstream any more.
    #[must_use]
    pub fn has_all(&self, blocks: u32) -> bool {
        self.progress.is_some_and(|progress| progress.accepted >= blocks)
    }

    /// The last pass that it was given a place in; 0 for none.
    #[must_use]
    pub fn last_pass(&self) -> u32 {
        self.seat.join().map_or(0, |join| join.pass)
    }

    /// How to name it to a person: host name and address.
    #[must_use]
    pub fn name(&self) -> String {
        self.member.name()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.member.is_lost()
    }

    /// Whether it is to have a place, or had one, and never said anything from there.
    pub(super) fn was_unheard(&self) -> bool {
        self.progress.is_none() && (self.is_running() || self.is_lost())
    }

    /// The chain that it stands in.
    pub(super) fn chain(&self) -> Option<usize> {
        self.seat.chain()
    }

    /// The speed of its card in Mbit/s; 0 if it is not known.
    pub(super) fn mbits(&self) -> u32 {
        let card = self.hello.cards.iter().find(|card| card.addresses.contains(&self.address));
        card.map_or(0, |card| card.mbits)
    }

    /// Its report, if that came after its newest order.
    pub(super) fn newest_report(&self) -> Option<&'a Progress> {
        let epoch = self.seat.join().map(|join| join.epoch);
        self.progress.filter(|progress| Some(progress.epoch) >= epoch)
    }

    /// Whether nothing more comes to it in `pass`.
    pub(super) fn pass_ended(&self, pass: u32) -> bool {
        self.newest_report().is_some_and(|progress| progress.pass_ended >= pass)
    }

    /// Whether it has compared its target with the whole manifest, or need not.
    pub(super) fn has_compared(&self) -> bool {
        !self.is_running() || self.newest_report().is_some_and(|progress| progress.phase != Phase::Preparing)
    }

    /// Whether it says every second how far it is: until it fails or is let go. One that is done passes blocks on until then.
    pub(super) fn is_to_report(&self) -> bool {
        let relays = self.outcome().is_some_and(|end| end.state != EndState::Failed) && !self.member.is_released();
        self.is_running() || relays
    }

    /// It is heard, and has not said for a while how far it is, though it should every second.
    pub(super) fn is_mute(&self, now: Time) -> bool {
        let heard = now.since(self.member.presence.heard()) < HEARD_WINDOW;
        self.is_to_report() && self.connected && heard && now.since(self.account.reported) >= REPORT_TIMEOUT
    }

    /// Its ring is full because of its disk.
    pub(super) fn waits_for_disk(&self) -> bool {
        self.progress.is_some_and(|progress| {
            let (upstream, downstream) = (progress.wait_upstream_ms, progress.wait_downstream_ms);
            progress.wait_disk_ms > upstream.saturating_add(downstream)
        })
    }

    /// What it waits for, in words.
    pub(super) fn waits_for(&self) -> &'static str {
        match self.progress {
            None => "it never reported",
            Some(_) if self.waits_for_disk() => "its disk does not accept writes",
            Some(progress) if progress.wait_downstream_ms > progress.wait_upstream_ms => "it waits for its downstream",
            Some(_) => "it waits for its upstream",
        }
    }
}
