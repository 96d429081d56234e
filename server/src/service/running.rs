//! What there is once per deployment: its machine, its feeds, its state file, and what is shown of it. It carries; the machine
//! ([`Hosted`]) decides.

use super::checker::Checker;
use super::command::{News, Resume, Start, Teller};
use super::event::Finished;
use super::log_limit::{LogLimit, Said};
use super::state::StateFile;
use crate::clock::Clock;
use crate::feed::{Feed, FeedContext};
use crate::shown::shown;
use crate::view::{Facts, Snapshot, Tracker};
use slidecast_proto::approval::Boot;
use slidecast_proto::control::{LogLine, ToAgent};
use slidecast_proto::deployment::{Deployment, Saved};
use slidecast_proto::feed::{FeedEvent, FeedOrder};
use slidecast_proto::hosting::{Hosted, HostedAct};
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

/// A deployment that runs.
#[derive(Debug)]
pub(super) struct Running {
    id: DeploymentId,
    machine: Hosted,
    facts: Arc<Facts>,
    context: Arc<FeedContext>,
    checker: Checker,
    /// Keeps what another run of the server needs to go on; nothing if there is no place for it.
    state_file: Option<StateFile>,
    acts: VecDeque<Act>,
    /// The plan, once it is fixed.
    plan: Plan,
    /// The feeds, each with its chain, by serial number.
    feeds: HashMap<u64, (u16, Feed)>,
    /// What the run of the server before this one sent, which counts if its deployment goes on.
    earlier_egress: u64,
    log_limit: LogLimit,
    tracker: Tracker,
    began: Time,
    shown: Time,
    /// Something is new since it was shown.
    pub(super) changed: bool,
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
        let mut machine = Hosted::new(config, began);
        let mut earlier_egress = 0;
        if let Some(Resume { unfinished, at_once }) = resume {
            earlier_egress = unfinished.egress;
            machine.deployment_mut().expect_back(unfinished.saved, at_once, began);
        }
        Ok(Self {
            id,
            machine,
            facts,
            context,
            checker,
            state_file,
            acts: VecDeque::new(),
            plan: Plan::default(),
            feeds: HashMap::new(),
            earlier_egress,
            log_limit: LogLimit::default(),
            tracker: Tracker::default(),
            began,
            shown: Time(0),
            changed: true,
        })
    }

    /// What is known of the deployment.
    pub(super) fn machine(&self) -> &Deployment {
        self.machine.deployment()
    }

    /// For what agents say and the operator wants.
    pub(super) fn machine_mut(&mut self) -> &mut Deployment {
        self.machine.deployment_mut()
    }

    /// When something is due though nothing happened.
    pub(super) fn deadline(&self) -> Time {
        self.show_at().min(self.machine.deadline())
    }

    pub(super) fn on_time(&mut self, now: Time) {
        self.machine.on_time(now);
    }

    pub(super) fn on_feed(&mut self, serial: u64, event: FeedEvent, now: Time) {
        self.changed = true;
        let event = match event {
            FeedEvent::Broken { detail, damaged } => FeedEvent::Broken { detail: shown(&detail), damaged },
            FeedEvent::Down { detail, damaged } => FeedEvent::Down { detail: shown(&detail), damaged },
            other => other,
        };
        if let Some((chain, _)) = self.feeds.get(&serial) {
            log::debug!("chain {chain}: {event:?}");
        }
        self.machine.on_feed(serial, event, now);
    }

    pub(super) fn on_checked(&mut self, block: BlockNo, fault: Option<&str>, now: Time) {
        self.changed = true;
        self.machine.on_checked(block, fault, now);
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self, known: &dyn Known, now: Time) -> Option<Act> {
        self.machine.on_kept(self.state_file.as_ref().map_or(u64::MAX, StateFile::kept));
        loop {
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            let act = self.machine.poll(now)?;
            self.carry_out(act, known, now);
        }
    }

    fn carry_out(&mut self, act: HostedAct, known: &dyn Known, now: Time) {
        let act = match act {
            HostedAct::Keep { number, saved, sync } => return self.keep(number, &saved, sync, known),
            HostedAct::StartFeed { serial, chain, order } => return self.start_feed(serial, chain, *order, now),
            HostedAct::StopFeed(serial) => return drop(self.feeds.remove(&serial)),
            HostedAct::CheckBlock(block) => {
                self.changed = true;
                return self.checker.ask(block);
            }
            HostedAct::RemoveState => return self.end(),
            HostedAct::PlanFixed(plan) => {
                self.changed = true;
                self.plan = plan;
                return;
            }
            HostedAct::NodeChanged(node) => return self.on_changed(node),
            HostedAct::Resumed => return self.on_resumed(),
            HostedAct::Replaced { old, new } => {
                let nodes = self.plan.chains.iter_mut().flat_map(|chain| &mut chain.nodes);
                nodes.filter(|node| **node == old).for_each(|node| *node = new);
                Act::Replaced(old)
            }
            HostedAct::Send(node, order) => Act::Send(node, order),
            HostedAct::Note(text) => Act::Line(shown(&text)),
            HostedAct::Forgotten(node) => Act::Forget(node),
            HostedAct::Over => Act::Over,
        };
        self.changed |= !matches!(act, Act::Send(..));
        self.acts.push_back(act);
    }

    fn keep(&mut self, number: u64, saved: &Saved, sync: bool, known: &dyn Known) {
        let egress = self.context.egress.load(Ordering::Relaxed);
        if let Some(state_file) = &mut self.state_file {
            state_file.keep(number, saved, |boot| known.key(boot), |boot| known.was_typed(boot), egress, sync);
        }
    }

    fn on_resumed(&mut self) {
        self.context.egress.fetch_add(self.earlier_egress, Ordering::Relaxed);
        let line = "going on with the deployment that an earlier server left";
        self.acts.push_back(Act::Line(line.to_owned()));
        let all: Vec<_> = self.machine().nodes().map(|node| node.id).collect();
        all.into_iter().for_each(|node| self.on_changed(node));
    }

    /// A node that has its image boots from it from now on.
    fn on_changed(&mut self, node: NodeId) {
        self.changed = true;
        let Some(node) = self.machine.deployment().node(node) else { return };
        if node.outcome().is_some_and(|end| matches!(end.state, EndState::Done | EndState::Written)) {
            self.acts.push_back(Act::HasImage(node.hello.cards.iter().map(|card| card.mac).collect()));
        }
    }

    /// The deployment is over; its last orders follow.
    fn end(&mut self) {
        self.changed = true;
        // Lines that were left out and followed by no other line.
        for (node, lines) in self.log_limit.untold() {
            self.acts.push_back(Act::Line(format!("node {node}: {lines} lines were left out")));
        }
        self.state_file.iter_mut().for_each(StateFile::remove);
    }

    fn start_feed(&mut self, serial: u64, chain: u16, order: FeedOrder, now: Time) {
        self.changed = true;
        match Feed::start(serial, chain, order, self.context.clone()) {
            Ok(feed) => drop(self.feeds.insert(serial, (chain, feed))),
            Err(error) => {
                let detail = format!("starting a feed: {error}");
                self.machine.on_feed(serial, FeedEvent::Down { detail, damaged: false }, now);
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
        Some(self.tracker.snapshot(self.machine.deployment(), self.began, egress, now))
    }

    pub(super) fn finish(self) -> Finished {
        let Self { id, machine, plan, facts, began, context, state_file, .. } = self;
        let machine = machine.into_deployment();
        Finished { id, machine, plan, facts, began, context, _state_file: state_file }
    }
}
