//! The machine: who is let in, who waits outside, and what becomes of them.
//!
//! The caller owns the sockets. It brings hellos, messages, typed codes and the time, and acts on [`Approval::poll_event`].

use super::code::{BadCode, Code, Commitment, Share};
use super::list::Identity;
use crate::control::{Hello, NotApproved, ToAgent, ToServer};
use crate::noise::PublicKey;
use crate::plan::CardId;
use crate::units::Time;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// How often whoever waits hears that the server lives.
const BEAT: Duration = Duration::from_millis(500);
/// A control link that is silent for so long counts as gone.
const SILENT: Duration = Duration::from_secs(3);
/// The most agents that wait, however many are wanted.
const PLACES: usize = 1024;
/// Places beyond twice the number that is wanted.
const SPARE: usize = 256;
/// Agents that wait from one address: the next one takes the place of the oldest.
const PER_ADDRESS: usize = 8;
/// For so long nobody that waits gives up its place for an address that has no other.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// Agents that left unapproved and are kept for the report.
const LEFT: usize = 64;
/// Runs of an agent that one entry of the list let in and that may come back.
const RUNS: usize = 4;

/// What an agent draws once per start.
pub type Boot = [u8; 16];

/// What lets an agent in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// These machines, each once at a time.
    pub list: Vec<Identity>,
    /// Any other one with the code that is typed at the server.
    pub codes: bool,
}

/// An agent that has said hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it says.
    pub hello: Hello,
    /// The key that it has proven to have; none with `--insecure`.
    pub key: Option<PublicKey>,
    /// The hash of its handshake.
    pub handshake: [u8; 32],
    /// Where it calls from.
    pub address: IpAddr,
    /// The server's card that it came in on.
    pub card: CardId,
}

impl Caller {
    fn run(&self) -> (Boot, Option<PublicKey>) {
        (self.hello.boot, self.key)
    }

    fn macs(&self) -> Vec<[u8; 6]> {
        let mut macs: Vec<_> = self.hello.cards.iter().map(|card| card.mac).filter(|mac| *mac != [0; 6]).collect();
        macs.sort_unstable();
        macs
    }

    /// Whether it is the same run of an agent, or the same machine as far as can be told.
    fn is_again(&self, other: &Self) -> bool {
        self.run() == other.run() || (!self.macs().is_empty() && self.macs() == other.macs())
    }
}

/// The number of one that waits; no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldId(pub u64);

/// One that waits.
#[derive(Clone, Debug)]
pub struct Held {
    /// Who it is, by its own words.
    pub caller: Caller,
    /// What its screen shows, where a code lets in and it has said its share.
    pub code: Option<Code>,
    /// It is on the list by this, and another run that is here was let in by it.
    pub taken: Option<Identity>,
    /// Since when it waits.
    pub since: Time,
    heard: Time,
    share: Share,
    /// A code would let it in.
    asks: bool,
}

impl Held {
    /// Why it is not let in.
    #[must_use]
    pub fn why(&self) -> String {
        match (&self.taken, self.code) {
            (Some(identity), _) => format!("{identity} is on the list, and another machine that is here has it, too"),
            (None, Some(code)) => format!("its code {code} was not typed"),
            (None, None) if self.asks => "it showed no code".to_owned(),
            (None, None) => "it is not on the list".to_owned(),
        }
    }
}

/// One that was never let in.
#[derive(Clone, Debug)]
pub struct Unapproved {
    /// Who it is, by its own words.
    pub caller: Caller,
    /// Why it was not let in.
    pub why: String,
}

/// What becomes of an agent that has said hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It takes part.
    Approved(Box<Caller>),
    /// It waits.
    Held(HeldId),
    /// So many wait that it gets no place: it may come again.
    TurnedAway,
}

/// What a line that was typed at the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The one that shows this code is let in.
    Approved(HeldId),
    /// Nobody that waits shows it.
    Unknown(Code),
    /// So many show it: at least one of them is not what it seems. All are sent away and come back with other codes.
    Ambiguous(Code, usize),
    /// It is no code.
    Bad(BadCode),
}

/// Something for the caller to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovalEvent {
    /// Say this to one that waits.
    Send(HeldId, ToAgent),
    /// It waits, and all that can be shown of it is known.
    Waits(HeldId),
    /// It waits no more: it takes part.
    Approved(HeldId, Box<Caller>),
    /// It waits no more: its connection is to be closed.
    Close(HeldId, &'static str),
}

/// One entry of the list.
#[derive(Clone, Debug, Default)]
struct Listed {
    /// The runs that it let in, the newest last.
    runs: VecDeque<(Boot, Option<PublicKey>)>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Approval {
    /// Not everybody is let in.
    closed: bool,
    /// Codes let in.
    codes: bool,
    listed: HashMap<Identity, Listed>,
    /// Runs that a typed code let in: as many as somebody typed.
    typed: HashMap<Boot, Option<PublicKey>>,
    held: BTreeMap<HeldId, Held>,
    last: u64,
    places: usize,
    left: VecDeque<Unapproved>,
    beat: Time,
    /// When anything was last brought to this machine.
    looked: Time,
    events: VecDeque<ApprovalEvent>,
}

impl Approval {
    /// Whoever comes is let in.
    #[must_use]
    pub fn everybody() -> Self {
        Self::default()
    }

    /// These rules, where so many machines are wanted.
    #[must_use]
    pub fn by(rules: Rules, wanted: usize) -> Self {
        let listed = rules.list.iter().map(|identity| (identity.clone(), Listed::default())).collect();
        let places = wanted.saturating_mul(2).saturating_add(SPARE).min(PLACES);
        Self { closed: true, codes: rules.codes, listed, places, ..Self::default() }
    }

    /// A run that a code let in at an earlier run of the server. It counts where codes let in now.
    pub fn expect_back(&mut self, boot: Boot, key: Option<PublicKey>) {
        self.typed.insert(boot, key);
    }

    /// Whether a typed code let this run in.
    #[must_use]
    pub fn was_typed(&self, boot: &Boot) -> bool {
        self.typed.contains_key(boot)
    }

    /// Those that wait.
    pub fn held(&self) -> impl Iterator<Item = (HeldId, &Held)> {
        self.held.iter().map(|(id, held)| (*id, held))
    }

    /// One that waits.
    #[must_use]
    pub fn get(&self, id: HeldId) -> Option<&Held> {
        self.held.get(&id)
    }

    /// Those that wait, and the last ones that left without having been let in.
    #[must_use]
    pub fn unapproved(&self) -> Vec<Unapproved> {
        let held = self.held.values().map(|held| Unapproved { caller: held.caller.clone(), why: held.why() });
        self.left.iter().cloned().chain(held).collect()
    }

    /// An agent has said hello. `share` is random and used for nothing else; `is_here` tells whether a run of an agent takes part and
    /// is connected.
    pub fn on_hello(&mut self, caller: Caller, share: Share, is_here: &dyn Fn(&Boot) -> bool, now: Time) -> Entry {
        if !self.closed {
            return Entry::Approved(Box::new(caller));
        }
        self.look_up(now);
        self.left.retain(|left| !left.caller.is_again(&caller));
        // The same run called again: the older link is dead, whether it knows or not.
        let again: Vec<HeldId> =
            self.held().filter(|(_, held)| held.caller.run() == caller.run()).map(|(id, _)| id).collect();
        again.into_iter().for_each(|id| self.close(id, "it called again"));
        let taken = match self.judge(&caller, is_here) {
            Ok(()) => return Entry::Approved(Box::new(caller)),
            Err(taken) => taken,
        };
        if !self.make_room(caller.address, now) {
            return Entry::TurnedAway;
        }
        self.last += 1;
        let id = HeldId(self.last);
        let commitment = self.codes.then(|| Commitment::to(share, &caller.handshake));
        self.events.push_back(ApprovalEvent::Send(id, ToAgent::NotApproved(NotApproved { commitment })));
        if commitment.is_none() {
            self.events.push_back(ApprovalEvent::Waits(id));
        }
        self.held.insert(id, Held { caller, code: None, taken, since: now, heard: now, share, asks: self.codes });
        Entry::Held(id)
    }

    /// Whether this one takes part; if not, the entry of the list that it would have if no other machine had it.
    fn judge(&mut self, caller: &Caller, is_here: &dyn Fn(&Boot) -> bool) -> Result<(), Option<Identity>> {
        if self.codes && self.typed.get(&caller.hello.boot) == Some(&caller.key) {
            return Ok(());
        }
        let known = Identity::all_of(&caller.hello, caller.key).filter(|identity| self.listed.contains_key(identity));
        let known: Vec<Identity> = known.collect();
        let run = caller.run();
        if known.iter().any(|identity| self.listed[identity].runs.contains(&run)) {
            return Ok(());
        }
        let free = known.iter().find(|identity| !self.listed[identity].runs.iter().any(|(boot, _)| is_here(boot)));
        let Some(listed) = free.and_then(|identity| self.listed.get_mut(identity)) else {
            return Err(known.into_iter().next());
        };
        listed.runs.push_back(run);
        if listed.runs.len() > RUNS {
            listed.runs.pop_front();
        }
        Ok(())
    }

    /// Makes room for one more from this address. Where many addresses have one each, whoever has had time to be looked at goes.
    fn make_room(&mut self, address: IpAddr, now: Time) -> bool {
        let of = |from: IpAddr| self.held.values().filter(|held| held.caller.address == from).count();
        // Those that show no code can't be let in at all.
        let oldest = |from: IpAddr| {
            let here = self.held.iter().filter(|(_, held)| held.caller.address == from);
            here.min_by_key(|(id, held)| (held.code.is_some(), **id)).map(|(id, _)| *id)
        };
        let own = of(address);
        let full = self.held.len() >= self.places;
        let goes = if !address.is_loopback() && own >= PER_ADDRESS {
            oldest(address)
        } else if full {
            let mut crowds = HashMap::<IpAddr, usize>::new();
            for held in self.held.values() {
                *crowds.entry(held.caller.address).or_default() += 1;
            }
            let largest = crowds.into_iter().max_by_key(|(from, count)| (*count, *from));
            match largest {
                Some((from, count)) if count > own + 1 => oldest(from),
                _ if own > 0 => oldest(address),
                _ => {
                    let first = self.held.iter().next();
                    first.filter(|(_, held)| now.since(held.since) >= READ_WITHIN).map(|(id, _)| *id)
                }
            }
        } else {
            return true;
        };
        goes.is_some_and(|id| {
            self.leave(id, "others wait");
            true
        })
    }

    /// One that waits has said something.
    pub fn on_message(&mut self, id: HeldId, message: &ToServer, now: Time) {
        self.look_up(now);
        let Some(held) = self.held.get_mut(&id) else { return };
        held.heard = now;
        let ToServer::ApprovalShare(agent) = message else { return };
        if held.code.is_some() || !held.asks {
            return self.leave(id, "it said a share that nobody asked for");
        }
        held.code = Some(Code::of(&held.caller.handshake, *agent, held.share));
        let share = ToAgent::ApprovalShare(held.share);
        self.events.extend([ApprovalEvent::Send(id, share), ApprovalEvent::Waits(id)]);
    }

    /// The connection of one that waits is gone.
    pub fn on_gone(&mut self, id: HeldId) {
        self.remember(id);
    }

    /// Somebody has typed a line at the server.
    pub fn on_typed(&mut self, line: &str, now: Time) -> Typed {
        self.look_up(now);
        let code: Code = match line.parse() {
            Ok(code) => code,
            Err(bad) => return Typed::Bad(bad),
        };
        let show: Vec<HeldId> = self.held().filter(|(_, held)| held.code == Some(code)).map(|(id, _)| id).collect();
        match show.as_slice() {
            [] => Typed::Unknown(code),
            [id] => {
                if let Some(held) = self.held.remove(id) {
                    self.typed.insert(held.caller.hello.boot, held.caller.key);
                    self.events.push_back(ApprovalEvent::Approved(*id, Box::new(held.caller)));
                }
                Typed::Approved(*id)
            }
            all => {
                all.iter().for_each(|id| self.leave(*id, "another machine shows the same code"));
                Typed::Ambiguous(code, all.len())
            }
        }
    }

    /// If the server itself stood still, silence of others means nothing.
    fn look_up(&mut self, now: Time) {
        if now.since(self.looked) >= BEAT * 3 / 2 {
            self.held.values_mut().for_each(|held| held.heard = now);
        }
        self.looked = now;
    }

    /// Lets time pass. Whoever is on the list and waits for another run to be gone is let in when it is.
    pub fn on_time(&mut self, is_here: &dyn Fn(&Boot) -> bool, now: Time) {
        if self.held.is_empty() || now.since(self.beat) < BEAT {
            return;
        }
        self.look_up(now);
        self.beat = now;
        let all: Vec<HeldId> = self.held.keys().copied().collect();
        for id in all {
            let Some(held) = self.held.get(&id) else { continue };
            if now.since(held.heard) >= SILENT {
                self.leave(id, "it is silent");
                continue;
            }
            if held.taken.is_some() {
                let caller = held.caller.clone();
                if self.judge(&caller, is_here).is_ok() {
                    self.held.remove(&id);
                    self.events.push_back(ApprovalEvent::Approved(id, Box::new(caller)));
                    continue;
                }
            }
            self.events.push_back(ApprovalEvent::Send(id, ToAgent::Heartbeat));
        }
    }

    /// When [`Self::on_time`] must be called at the latest; nothing while nobody waits.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        (!self.held.is_empty()).then(|| self.beat.after(BEAT))
    }

    /// The next thing to act on.
    pub fn poll_event(&mut self) -> Option<ApprovalEvent> {
        self.events.pop_front()
    }

    /// It waits no more and is kept for the report.
    fn remember(&mut self, id: HeldId) {
        let Some(held) = self.held.remove(&id) else { return };
        self.left.retain(|left| !left.caller.is_again(&held.caller));
        self.left.push_back(Unapproved { why: held.why(), caller: held.caller });
        if self.left.len() > LEFT {
            self.left.pop_front();
        }
    }

    fn leave(&mut self, id: HeldId, why: &'static str) {
        self.remember(id);
        self.events.push_back(ApprovalEvent::Close(id, why));
    }

    /// As [`Self::leave`], for one of which there is a better record.
    fn close(&mut self, id: HeldId, why: &'static str) {
        self.held.remove(&id);
        self.events.push_back(ApprovalEvent::Close(id, why));
    }
}
