//! Where control links wait for approval: the [`Approval`] machine, and which link each of those that wait has.

use crate::approve::{Heard, Telling, UnapprovedView, describe};
use crate::shown::shown;
use mio::Token;
use slidecast_proto::approval::{Approval, ApprovalEvent, Boot, Caller, Entry, HeldId, Share, Typed, Unapproved};
use slidecast_proto::control::{ToAgent, ToServer};
use slidecast_proto::noise::PublicKey;
use slidecast_proto::units::Time;
use std::collections::HashMap;

/// Those that wait and are listed when somebody asks for them.
const LISTED: usize = 100;

/// What became of a hello.
#[derive(Debug)]
pub(super) enum Admitted {
    /// It takes part.
    In(Box<Caller>),
    /// It waits, under this number.
    Waits(HeldId),
    /// It has no place, not even to wait in.
    Away,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum GateDeed {
    /// Say this on a link.
    Send(Token, ToAgent),
    /// The agent of this link takes part now.
    Enter(Token, Box<Caller>),
    /// Close this link.
    Close(Token, &'static str),
    /// Tell of one that waits, and of how many before it were not told of.
    Tell(UnapprovedView, u64),
}

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    approval: Approval,
    waiting: HashMap<HeldId, Token>,
    telling: Telling,
}

impl Gate {
    pub(super) fn new(approval: Approval, now: Time) -> Self {
        Self { approval, waiting: HashMap::new(), telling: Telling::new(now) }
    }

    /// A run of an agent that a code let in at an earlier run of the server.
    pub(super) fn expect_back(&mut self, boot: Boot, key: Option<PublicKey>) {
        self.approval.expect_back(boot, key);
    }

    /// An agent has said hello on this link.
    pub(super) fn on_hello(
        &mut self,
        token: Token,
        caller: Caller,
        is_here: &dyn Fn(&Boot) -> bool,
        now: Time,
    ) -> Admitted {
        let mut share = Share([0; 16]);
        if getrandom::fill(&mut share.0).is_err() {
            // A share that can be guessed is worse than none.
            return Admitted::Away;
        }
        match self.approval.on_hello(caller, share, is_here, now) {
            Entry::Approved(caller) => Admitted::In(caller),
            Entry::TurnedAway => Admitted::Away,
            Entry::Held(id) => {
                self.waiting.insert(id, token);
                Admitted::Waits(id)
            }
        }
    }

    /// One that waits has said something.
    pub(super) fn on_message(&mut self, id: HeldId, message: &ToServer, now: Time) {
        self.approval.on_message(id, message, now);
    }

    /// The link of one that waits is gone.
    pub(super) fn on_gone(&mut self, id: HeldId) {
        self.waiting.remove(&id);
        self.approval.on_gone(id);
    }

    /// Lets time pass.
    pub(super) fn on_time(&mut self, is_here: &dyn Fn(&Boot) -> bool, now: Time) {
        self.approval.on_time(is_here, now);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.approval.deadline()
    }

    /// Somebody has typed something; gives what to answer.
    pub(super) fn on_heard(&mut self, heard: &Heard, now: Time) -> Vec<String> {
        let line = match heard {
            Heard::End => {
                return vec!["standard input has ended: no other machine can be approved by its code".to_owned()];
            }
            Heard::Line(line) if line.trim().is_empty() => return self.list(),
            Heard::Line(line) => line,
        };
        let names: HashMap<HeldId, String> =
            self.approval.held().map(|(id, held)| (id, describe(&held.caller))).collect();
        vec![match self.approval.on_typed(line, now) {
            Typed::Approved(id) => format!("{} is approved", names.get(&id).map_or("a machine", String::as_str)),
            Typed::Unknown(code) => format!("no machine that waits shows the code {code}"),
            Typed::Bad(bad) => format!("{:?} was typed: {bad}", shown(line.trim())),
            Typed::Ambiguous(code, count) => {
                format!("{count} machines show the code {code}: none is approved, and all will show other codes")
            }
        }]
    }

    fn list(&self) -> Vec<String> {
        let count = self.approval.held().count();
        let mut lines: Vec<String> =
            self.approval.held().take(LISTED).map(|(_, held)| UnapprovedView::of(held).line()).collect();
        match count {
            0 => lines.push("no machine waits for approval".to_owned()),
            count if count > LISTED => lines.push(format!("and {} more", count - LISTED)),
            _ => {}
        }
        lines
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// The links of all that wait.
    pub(super) fn all(&self) -> Vec<Token> {
        self.waiting.values().copied().collect()
    }

    /// Those that were never approved.
    pub(super) fn unapproved(&self) -> Vec<Unapproved> {
        self.approval.unapproved()
    }

    /// Whether a typed code let this run in.
    pub(super) fn was_typed(&self, boot: &Boot) -> bool {
        self.approval.was_typed(boot)
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self, now: Time) -> Option<GateDeed> {
        loop {
            let deed = match self.approval.poll_event()? {
                ApprovalEvent::Send(id, order) => self.waiting.get(&id).map(|token| GateDeed::Send(*token, order)),
                ApprovalEvent::Approved(id, caller) => {
                    self.waiting.remove(&id).map(|token| GateDeed::Enter(token, caller))
                }
                ApprovalEvent::Close(id, why) => self.waiting.remove(&id).map(|token| GateDeed::Close(token, why)),
                ApprovalEvent::Waits(id) => {
                    let view = self.approval.get(id).map(UnapprovedView::of);
                    view.and_then(|view| Some(GateDeed::Tell(view, self.telling.one(now)?)))
                }
            };
            if deed.is_some() {
                return deed;
            }
        }
    }
}
