//! One [`Deployment`] at its server.
//!
//! The caller owns control links, feeds, the state folder and the image. It brings what happens and the time, and does what
//! [`Hosted::poll`] gives, in that order.

use super::holding::{Holding, Wait};
use crate::bug::{self, Bug};
use crate::control::ToAgent;
use crate::deployment::{Deployment, DeploymentConfig, DeploymentEvent, Saved};
use crate::feed::{FeedEvent, FeedOrder};
use crate::plan::Plan;
use crate::units::{BlockNo, NodeId, Time};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often the state of a running deployment is kept although nothing happened: it tells when the server was alive.
pub(super) const KEEP_EVERY: Duration = Duration::from_secs(1);
/// The most blocks that wait to be checked.
pub const MAX_CHECKS: usize = 64;

/// Something for the caller to do.
#[derive(Debug)]
pub enum HostedAct {
    /// Send this to an agent.
    Send(NodeId, ToAgent),
    /// Have this state kept for another run of the server, instead of one that still waits to be; then [`Hosted::on_kept`].
    Keep {
        /// States are numbered from 1 on.
        number: u64,
        /// The state.
        saved: Box<Saved>,
        /// It is to survive a power cut.
        sync: bool,
    },
    /// Nothing is to be kept any more.
    RemoveState,
    /// Connect to the head of a chain and feed it; then [`Hosted::on_feed`].
    StartFeed {
        /// Tells it from the other feeds that the chain had or will have.
        serial: u64,
        /// The chain.
        chain: u16,
        /// What to send, and where to.
        order: Box<FeedOrder>,
    },
    /// Stop this feed.
    StopFeed(u64),
    /// Check this block in the image; then [`Hosted::on_checked`].
    CheckBlock(BlockNo),
    /// The plan is fixed.
    PlanFixed(Plan),
    /// Something about this node is new.
    NodeChanged(NodeId),
    /// A line for the operator.
    Note(String),
    /// A deployment that another run of the server began goes on.
    Resumed,
    /// A node that was lost is back as another one.
    Replaced {
        /// The one that is no more.
        old: NodeId,
        /// The one that is there for it.
        new: NodeId,
    },
    /// This record is no more: its connection is to be closed.
    Forgotten(NodeId),
    /// All is over, and every order was given.
    Over,
}

/// What may have to wait until the state is kept.
#[derive(Debug)]
enum Deed {
    Send(NodeId, ToAgent),
    Event(DeploymentEvent),
}

impl Deed {
    /// How long it waits for the state: would a server that was started again have to know of it?
    fn wait(&self) -> Wait {
        match self {
            Self::Send(_, ToAgent::Heartbeat | ToAgent::Welcome(_) | ToAgent::Prepare(_)) => Wait::Not,
            Self::Event(
                DeploymentEvent::NodeChanged(_)
                | DeploymentEvent::Note(_)
                | DeploymentEvent::CheckBlock(_)
                | DeploymentEvent::Forgotten { .. },
            ) => Wait::Not,
            Self::Send(_, ToAgent::Finish(_)) if bug::is(Bug::LetGoBeforeState) => Wait::Not,
            Self::Send(_, ToAgent::Finish(_)) | Self::Event(DeploymentEvent::Over) => Wait::Long,
            Self::Send(..) | Self::Event(_) => Wait::Short,
        }
    }
}

/// A deployment at its server.
#[derive(Debug)]
pub struct Hosted {
    deployment: Deployment,
    holding: Holding<Deed>,
    /// The number of the newest state.
    last_state: u64,
    /// When a state was kept last.
    kept: Time,
    /// The feed of each chain.
    feeds: BTreeMap<u16, u64>,
    last_feed: u64,
    /// Blocks that are being checked.
    checking: BTreeSet<BlockNo>,
    acts: VecDeque<HostedAct>,
    over: bool,
}

impl Hosted {
    /// A deployment that waits for its nodes.
    #[must_use]
    pub fn new(config: DeploymentConfig, now: Time) -> Self {
        Self {
            deployment: Deployment::new(config, now),
            holding: Holding::default(),
            last_state: 0,
            kept: now,
            feeds: BTreeMap::new(),
            last_feed: 0,
            checking: BTreeSet::new(),
            acts: VecDeque::new(),
            over: false,
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// For what agents say and the operator wants. What follows comes from [`Self::poll`].
    pub fn deployment_mut(&mut self) -> &mut Deployment {
        &mut self.deployment
    }

    /// The deployment itself, when nothing more is to be done.
    #[must_use]
    pub fn into_deployment(self) -> Deployment {
        self.deployment
    }

    /// Something happened on a feed.
    pub fn on_feed(&mut self, serial: u64, event: FeedEvent, now: Time) {
        // A feed that was replaced may still have something to say; it is about a link that no longer counts.
        let chain = self.feeds.iter().find(|(_, of_chain)| **of_chain == serial).map(|(chain, _)| *chain);
        if let Some(chain) = chain {
            self.deployment.on_feed(chain, event, now);
        }
    }

    /// A block was checked; what is wrong with it, if anything is.
    pub fn on_checked(&mut self, block: BlockNo, fault: Option<&str>, now: Time) {
        self.checking.remove(&block);
        self.deployment.on_block_checked(fault, now);
    }

    /// States up to this number are kept, or could not be. Where there is no place for a state: [`u64::MAX`].
    pub fn on_kept(&mut self, number: u64) {
        self.holding.on_kept(number);
    }

    /// Lets time pass.
    pub fn on_time(&mut self, now: Time) {
        if !self.over && now >= self.kept.after(KEEP_EVERY) {
            self.keep(false, now);
        }
        if now >= self.deployment.deadline() {
            self.deployment.on_time(now);
        }
    }

    /// When [`Self::on_time`] and [`Self::poll`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let keep = (!self.over).then(|| self.kept.after(KEEP_EVERY));
        keep.into_iter().chain(self.holding.deadline()).fold(self.deployment.deadline(), Time::min)
    }

    /// The next thing to do. What follows from a state comes after that is kept.
    pub fn poll(&mut self, now: Time) -> Option<HostedAct> {
        loop {
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            if self.deployment.take_unsaved() {
                let number = self.keep(true, now);
                self.holding.on_keep(number, now);
                continue;
            }
            let due = match self.holding.poll(now) {
                Some(deed) => Some(deed),
                None => {
                    let order = self.deployment.poll_order().map(|(node, order)| Deed::Send(node, order));
                    let deed = order.or_else(|| self.deployment.poll_event().map(Deed::Event))?;
                    let wait = deed.wait();
                    self.holding.enter(deed, wait, now)
                }
            };
            match due {
                Some(Deed::Send(node, order)) => return Some(HostedAct::Send(node, order)),
                Some(Deed::Event(event)) => self.on_event(event),
                None => {}
            }
        }
    }

    /// Has the state kept, if there is one; gives its number.
    pub(super) fn keep(&mut self, sync: bool, now: Time) -> Option<u64> {
        self.kept = now;
        let saved = self.deployment.saved(now).filter(|_| !self.over)?;
        self.last_state += 1;
        self.acts.push_back(HostedAct::Keep { number: self.last_state, saved: Box::new(saved), sync });
        Some(self.last_state)
    }

    pub(super) fn on_event(&mut self, event: DeploymentEvent) {
        let act = match event {
            DeploymentEvent::PlanFixed(plan) => HostedAct::PlanFixed(plan),
            DeploymentEvent::NodeChanged(node) => HostedAct::NodeChanged(node),
            DeploymentEvent::Note(text) => HostedAct::Note(text),
            DeploymentEvent::Resumed => HostedAct::Resumed,
            DeploymentEvent::Replaced { old, new } => HostedAct::Replaced { old, new },
            DeploymentEvent::Forgotten { node, .. } => HostedAct::Forgotten(node),
            DeploymentEvent::StartFeed { chain, terms, address, blocks } => {
                return self.start_feed(chain, FeedOrder { terms, address, blocks });
            }
            DeploymentEvent::StopFeed { chain } => return self.stop_feed(chain),
            // Whoever complains of a block that is not checked, because too many are, complains again.
            DeploymentEvent::CheckBlock(block) => {
                if self.checking.len() >= MAX_CHECKS || !self.checking.insert(block) {
                    return;
                }
                HostedAct::CheckBlock(block)
            }
            DeploymentEvent::Over => return self.end(),
        };
        self.acts.push_back(act);
    }

    pub(super) fn start_feed(&mut self, chain: u16, order: FeedOrder) {
        // A feed that the chain has already ends where this one begins.
        self.stop_feed(chain);
        self.last_feed += 1;
        let serial = self.last_feed;
        self.feeds.insert(chain, serial);
        self.acts.push_back(HostedAct::StartFeed { serial, chain, order: Box::new(order) });
    }

    fn stop_feed(&mut self, chain: u16) {
        let serial = self.feeds.remove(&chain);
        self.acts.extend(serial.map(HostedAct::StopFeed));
    }

    fn end(&mut self) {
        self.over = true;
        let feeds = core::mem::take(&mut self.feeds);
        self.acts.extend(feeds.into_values().map(HostedAct::StopFeed));
        self.acts.push_back(HostedAct::RemoveState);
        // Orders that still wait go out first; parting comes last.
        let waiting = self.holding.drain().filter_map(|deed| match deed {
            Deed::Send(node, order) => Some((node, order)),
            Deed::Event(_) => None,
        });
        let orders: Vec<_> = waiting.chain(core::iter::from_fn(|| self.deployment.poll_order())).collect();
        self.acts.extend(orders.into_iter().map(|(node, order)| HostedAct::Send(node, order)));
        self.acts.push_back(HostedAct::Over);
    }
}
