//! What there is once per deployment: its machine, its feeds, its state file, and what is shown of it. It carries; the machine decides.

use super::checker::Checker;
use super::command::{News, Resume, Start, Teller};
use super::event::Finished;
use super::holding::{Holding, Wait};
use super::log_limit::{LogLimit, Said};
use super::state::StateFile;
use crate::clock::Clock;
use crate::feed::{Feed, FeedContext};
use crate::shown::shown;
use crate::view::{Facts, Snapshot, Tracker};
use slidecast_proto::approval::Boot;
use slidecast_proto::control::{LogLine, ToAgent};
use slidecast_proto::deployment::{Deployment, DeploymentEvent};
use slidecast_proto::feed::{FeedEvent, FeedOrder};
use slidecast_proto::noise::PublicKey;
use slidecast_proto::plan::Plan;
use slidecast_proto::reason::EndState;
use slidecast_proto::units::{BlockNo, DeploymentId, NodeId, Time};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a change may be shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is shown that nothing changed.
const MAX_SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// How often the state of a running deployment is kept although nothing happened: it tells when the server was alive.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What a deployment wants of the service.
#[derive(Debug)]
pub(super) enum Act {
    /// Send this to an agent.
    Send(NodeId, ToAgent),
    /// Show this line.
    Line(String),
    /// A machine with these hardware addresses has its image.
    HasImage(Vec<[u8; 6]>),
    /// This agent has no record any longer: its connection is to be closed.
    Forget(NodeId),
    /// This agent is no more: another one is there for it.
    Replaced(NodeId),
    /// It is over.
    Over,
}

/// What is known of runs of agents outside a deployment, and kept with it.
pub(super) trait Known {
    /// The key that an agent has proven to have.
    fn key(&self, boot: &Boot) -> Option<PublicKey>;
    /// Whether a typed code let it in.
    fn was_typed(&self, boot: &Boot) -> bool;
}

/// What the machine wants done.
#[derive(Debug)]
enum Deed {
    Send(NodeId, ToAgent),
    Act(DeploymentEvent),
}

impl Deed {
    /// How long it waits for the state: would a server that was started again have to know of it?
    fn wait(&self) -> Wait {
        match self {
            Self::Send(_, ToAgent::Heartbeat | ToAgent::Welcome(_) | ToAgent::Prepare(_)) => Wait::Not,
            Self::Act(
                DeploymentEvent::NodeChanged(_)
                | DeploymentEvent::Note(_)
                | DeploymentEvent::CheckBlock(_)
                | DeploymentEvent::Forgotten { .. },
            ) => Wait::Not,
            Self::Send(_, ToAgent::Finish(_)) | Self::Act(DeploymentEvent::Over) => Wait::Long,
            Self::Send(..) | Self::Act(_) => Wait::Short,
        }
    }
}

/// A deployment that runs.
#[derive(Debug)]
pub(super) struct Running {
    id: DeploymentId,
    pub(super) machine: Deployment,
    facts: Arc<Facts>,
    context: Arc<FeedContext>,
    checker: Checker,
    /// Keeps what another run of the server needs to go on; nothing if there is no place for it.
    state_file: Option<StateFile>,
    /// When the state was kept last.
    kept: Time,
    /// What waits until a state is kept.
    holding: Holding<Deed>,
    acts: VecDeque<Act>,
    /// The plan, once it is fixed.
    plan: Plan,
    /// The feed of each chain, with its serial number.
    feeds: HashMap<u16, (u64, Feed)>,
    last_feed: u64,
    /// What the run of the server before this one sent, which counts if its deployment goes on.
    earlier_egress: u64,
    log_limit: LogLimit,
    tracker: Tracker,
    began: Time,
    shown: Time,
    /// Something is new since it was shown.
    pub(super) changed: bool,
    over: bool,
}

impl Running {
    pub(super) fn start(start: Start, clock: Clock, teller: &Teller) -> io::Result<Self> {
        let Start { image, facts, config, mut state_file, resume, .. } = start;
        let id = config.prepare.deployment;
        let tell = teller.clone();
        let context = Arc::new(FeedContext {
            shape: Arc::new(image.header().shape()),
            image: image.clone(),
            clock,
            egress: AtomicU64::new(0),
            tell: Box::new(move |serial, event| tell.tell(News::Feed(id, serial, event))),
        });
        let tell = teller.clone();
        let checker = Checker::start(image, move |block, fault| tell.tell(News::Checked(id, block, fault)))?;
        state_file.iter_mut().for_each(|state_file| {
            let tell = teller.clone();
            state_file.start(move || tell.tell(News::Kept));
        });
        let began = clock.now();
        let mut machine = Deployment::new(config, began);
        let mut earlier_egress = 0;
        if let Some(Resume { unfinished, at_once }) = resume {
            earlier_egress = unfinished.egress;
            machine.expect_back(unfinished.saved, at_once, began);
        }
        Ok(Self {
            id,
            machine,
            facts,
            context,
            checker,
            state_file,
            kept: began,
            holding: Holding::default(),
            acts: VecDeque::new(),
            plan: Plan::default(),
            feeds: HashMap::new(),
            last_feed: 0,
            earlier_egress,
            log_limit: LogLimit::default(),
            tracker: Tracker::default(),
            began,
            shown: Time(0),
            changed: true,
            over: false,
        })
    }

    /// When something is due though nothing happened.
    pub(super) fn deadline(&self) -> Time {
        let first = self.show_at().min(self.machine.deadline());
        self.holding.deadline().map_or(first, |deadline| deadline.min(first))
    }

    pub(super) fn on_time(&mut self, known: &dyn Known, now: Time) {
        if now.since(self.kept) >= KEEP_EVERY {
            self.keep(false, known, now);
        }
        if now >= self.machine.deadline() {
            self.machine.on_time(now);
        }
    }

    pub(super) fn on_feed(&mut self, serial: u64, event: FeedEvent, now: Time) {
        self.changed = true;
        // A feed that was replaced may still have something to say; it is about a link that no longer counts.
        let Some(chain) = self.feeds.iter().find(|(_, (running, _))| *running == serial).map(|(chain, _)| *chain)
        else {
            return;
        };
        let event = match event {
            FeedEvent::Broken { detail, damaged } => FeedEvent::Broken { detail: shown(&detail), damaged },
            FeedEvent::Down { detail, damaged } => FeedEvent::Down { detail: shown(&detail), damaged },
            other => other,
        };
        log::debug!("chain {chain}: {event:?}");
        self.machine.on_feed(chain, event, now);
    }

    pub(super) fn on_checked(&mut self, block: BlockNo, fault: Option<&str>, now: Time) {
        self.changed = true;
        self.checker.done(block);
        self.machine.on_block_checked(fault, now);
    }

    /// The next thing to do, each when the state that it follows from is kept.
    pub(super) fn poll(&mut self, known: &dyn Known, now: Time) -> Option<Act> {
        loop {
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            if self.machine.take_unsaved() {
                let number = self.keep(true, known, now);
                self.holding.on_keep(number, now);
            }
            let state_file = self.state_file.as_ref();
            let is_kept = |number| state_file.is_none_or(|state_file| state_file.is_kept(number));
            let due = match self.holding.poll(is_kept, now) {
                Some(deed) => Some(deed),
                None => {
                    let order = self.machine.poll_order().map(|(node, order)| Deed::Send(node, order));
                    let deed = order.or_else(|| self.machine.poll_event().map(Deed::Act))?;
                    let wait = deed.wait();
                    self.holding.enter(deed, wait, is_kept, now)
                }
            };
            match due {
                Some(Deed::Send(node, order)) => return Some(Act::Send(node, order)),
                Some(Deed::Act(event)) => self.on_event(event, now),
                None => {}
            }
        }
    }

    fn keep(&mut self, sync: bool, known: &dyn Known, now: Time) -> Option<u64> {
        self.kept = now;
        if self.over {
            return None;
        }
        let (state_file, saved) = (self.state_file.as_mut()?, self.machine.saved(now)?);
        let egress = self.context.egress.load(Ordering::Relaxed);
        state_file.keep(&saved, |boot| known.key(boot), |boot| known.was_typed(boot), egress, sync)
    }

    fn on_event(&mut self, event: DeploymentEvent, now: Time) {
        self.changed = true;
        match event {
            DeploymentEvent::NodeChanged(node) => self.on_changed(node),
            DeploymentEvent::Note(text) => self.acts.push_back(Act::Line(shown(&text))),
            DeploymentEvent::PlanFixed(plan) => self.plan = plan,
            DeploymentEvent::Resumed => {
                self.context.egress.fetch_add(self.earlier_egress, Ordering::Relaxed);
                let line = "going on with the deployment that an earlier server left";
                self.acts.push_back(Act::Line(line.to_owned()));
                let all: Vec<_> = self.machine.nodes().map(|node| node.id).collect();
                all.into_iter().for_each(|node| self.on_changed(node));
            }
            DeploymentEvent::Forgotten { node, .. } => self.acts.push_back(Act::Forget(node)),
            DeploymentEvent::Replaced { old, new } => {
                let nodes = self.plan.chains.iter_mut().flat_map(|chain| &mut chain.nodes);
                nodes.filter(|node| **node == old).for_each(|node| *node = new);
                self.acts.push_back(Act::Replaced(old));
            }
            DeploymentEvent::StartFeed { chain, terms, address, blocks } => {
                self.start_feed(chain, FeedOrder { terms, address, blocks }, now);
            }
            DeploymentEvent::StopFeed { chain } => drop(self.feeds.remove(&chain)),
            DeploymentEvent::CheckBlock(block) => self.checker.ask(block),
            DeploymentEvent::Over => self.on_over(),
        }
    }

    /// A node that has its image boots from it from now on.
    fn on_changed(&mut self, node: NodeId) {
        let Some(node) = self.machine.node(node) else { return };
        if node.outcome().is_some_and(|end| matches!(end.state, EndState::Done | EndState::Written)) {
            self.acts.push_back(Act::HasImage(node.hello.cards.iter().map(|card| card.mac).collect()));
        }
    }

    fn on_over(&mut self) {
        self.over = true;
        self.feeds.clear();
        // Lines that were left out and followed by no other line.
        for (node, lines) in self.log_limit.untold() {
            self.acts.push_back(Act::Line(format!("node {node}: {lines} lines were left out")));
        }
        self.state_file.iter_mut().for_each(StateFile::remove);
        // Orders that are still waiting go out first; parting comes last.
        let waiting = self.holding.drain().filter_map(|deed| match deed {
            Deed::Send(node, order) => Some((node, order)),
            Deed::Act(_) => None,
        });
        let orders: Vec<_> = waiting.chain(std::iter::from_fn(|| self.machine.poll_order())).collect();
        self.acts.extend(orders.into_iter().map(|(node, order)| Act::Send(node, order)));
        self.acts.push_back(Act::Over);
    }

    fn start_feed(&mut self, chain: u16, order: FeedOrder, now: Time) {
        self.last_feed += 1;
        let serial = self.last_feed;
        // A feed that the chain has already ends where this one begins.
        self.feeds.remove(&chain);
        match Feed::start(serial, chain, order, self.context.clone()) {
            Ok(feed) => drop(self.feeds.insert(chain, (serial, feed))),
            Err(error) => {
                let detail = format!("starting a feed: {error}");
                self.machine.on_feed(chain, FeedEvent::Down { detail, damaged: false }, now);
            }
        }
    }

    pub(super) fn on_log(&mut self, node: NodeId, line: &LogLine, now: Time) {
        let mut line_of = |text: String, level: u8| {
            if level <= 2 {
                self.acts.push_back(Act::Line(text));
            } else {
                log::debug!("{text}");
            }
        };
        // One that says a lot of less weight would fill the server's log too.
        match self.log_limit.on_line(node, now) {
            Said::Shown { left_out } => {
                if left_out > 0 {
                    line_of(format!("node {node}: {left_out} lines before this one were left out"), line.level);
                }
                line_of(format!("node {node}: {}", shown(&line.text)), line.level);
            }
            Said::Silenced => {
                line_of(format!("node {node}: it has said so much that the rest of its lines is left out"), 2);
            }
            Said::LeftOut => {}
        }
    }

    fn show_at(&self) -> Time {
        self.shown.after(if self.changed { SHOW_INTERVAL } else { MAX_SHOW_INTERVAL })
    }

    /// The deployment as it is now, if it is time to show it.
    pub(super) fn show(&mut self, now: Time) -> Option<Snapshot> {
        if self.shown != Time(0) && now < self.show_at() {
            return None;
        }
        (self.shown, self.changed) = (now, false);
        let egress = self.context.egress.load(Ordering::Relaxed);
        Some(self.tracker.snapshot(&self.machine, self.began, egress, now))
    }

    pub(super) fn finish(self) -> Finished {
        let Self { id, machine, plan, facts, began, context, state_file, .. } = self;
        Finished { id, machine, plan, facts, began, context, _state_file: state_file }
    }
}
