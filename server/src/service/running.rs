//! What there is once per deployment beside its machine ([`Hosted`]): its feeds, its state file, and what is shown of it.

use super::checker::Checker;
use super::command::{News, Resume, Start, Teller};
use super::event::{Event, Finished};
use super::log_limit::{LogLimit, Said};
use super::state::StateFile;
use crate::clock::Clock;
use crate::feed::{Feed, FeedContext};
use crate::shown::shown;
use crate::view::{Facts, Snapshot, Tracker};
use slidecast_proto::approval::Boot;
use slidecast_proto::control::LogLine;
use slidecast_proto::deployment::{Deployment, Saved};
use slidecast_proto::feed::{FeedEvent, FeedOrder};
use slidecast_proto::hosting::{Hosted, HostedAct};
use slidecast_proto::noise::PublicKey;
use slidecast_proto::plan::Plan;
use slidecast_proto::queue::Waits;
use slidecast_proto::reason::EndState;
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a change may be shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);
/// How often it is shown that nothing changed.
const MAX_SHOW_INTERVAL: Duration = Duration::from_secs(1);

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
    facts: Arc<Facts>,
    context: Arc<FeedContext>,
    checker: Checker,
    /// Keeps what another run of the server needs to go on; nothing if there is no place for it.
    state_file: Option<StateFile>,
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
    /// Something is new since the queue was told of it.
    pub(super) unqueued: bool,
    /// Why it does not begin although its nodes are ready.
    pub(super) waits: Option<Waits>,
}

impl Running {
    /// Starts its threads; gives it with its machine.
    pub(super) fn start(start: Start, clock: Clock, teller: &Teller) -> io::Result<(Self, Hosted)> {
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
        machine.deployment_mut().wait_for_turn();
        let mut earlier_egress = 0;
        if let Some(Resume { unfinished, at_once }) = resume {
            earlier_egress = unfinished.egress;
            machine.deployment_mut().expect_back(unfinished.saved, at_once, began);
        }
        let running = Self {
            id,
            facts,
            context,
            checker,
            state_file,
            plan: Plan::default(),
            feeds: HashMap::new(),
            earlier_egress,
            log_limit: LogLimit::default(),
            tracker: Tracker::default(),
            began,
            shown: Time(0),
            changed: true,
            unqueued: true,
            waits: None,
        };
        Ok((running, machine))
    }

    /// When it is to be shown.
    pub(super) fn deadline(&self) -> Time {
        self.shown.after(if self.changed { SHOW_INTERVAL } else { MAX_SHOW_INTERVAL })
    }

    pub(super) fn on_feed(&mut self, serial: u64, event: FeedEvent, machine: &mut Hosted, now: Time) {
        self.changed = true;
        let event = match event {
            FeedEvent::Broken { detail, damaged } => FeedEvent::Broken { detail: shown(&detail), damaged },
            FeedEvent::Down { detail, damaged } => FeedEvent::Down { detail: shown(&detail), damaged },
            other => other,
        };
        if let Some((chain, _)) = self.feeds.get(&serial) {
            log::debug!("chain {chain}: {event:?}");
        }
        machine.on_feed(serial, event, now);
    }

    /// States up to this number are kept.
    pub(super) fn kept(&self) -> u64 {
        self.state_file.as_ref().map_or(u64::MAX, StateFile::kept)
    }

    pub(super) fn keep(&mut self, number: u64, saved: &Saved, sync: bool, known: &dyn Known) {
        let egress = self.context.egress.load(Ordering::Relaxed);
        if let Some(state_file) = &mut self.state_file {
            state_file.keep(number, saved, |boot| known.key(boot), |boot| known.was_typed(boot), egress, sync);
        }
    }

    /// Does what its machine asks for, but for what concerns the whole service.
    pub(super) fn carry_out(&mut self, act: HostedAct, machine: &mut Hosted, events: &mut VecDeque<Event>, now: Time) {
        (self.changed, self.unqueued) = (true, true);
        match act {
            HostedAct::StartFeed { serial, chain, order } => self.start_feed(serial, chain, *order, machine, now),
            HostedAct::StopFeed(serial) => drop(self.feeds.remove(&serial)),
            HostedAct::CheckBlock(block) => self.checker.ask(block),
            HostedAct::RemoveState => {
                // Lines that were left out and followed by no other line.
                for (node, lines) in self.log_limit.untold() {
                    events.push_back(self.line(format!("node {node}: {lines} lines were left out")));
                }
                self.state_file.iter_mut().for_each(StateFile::remove);
            }
            HostedAct::PlanFixed(plan) => self.plan = plan,
            HostedAct::NodeChanged(node) => events.extend(self.has_image(node, machine.deployment())),
            HostedAct::Note(text) => events.push_back(self.line(shown(&text))),
            HostedAct::Resumed => {
                self.context.egress.fetch_add(self.earlier_egress, Ordering::Relaxed);
                let line = "going on with the deployment that an earlier server left";
                events.push_back(self.line(line.to_owned()));
                let all = machine.deployment().nodes().map(|node| node.id);
                events.extend(all.filter_map(|node| self.has_image(node, machine.deployment())));
            }
            HostedAct::Replaced { old, new } => {
                let nodes = self.plan.chains.iter_mut().flat_map(|chain| &mut chain.nodes);
                nodes.filter(|node| **node == old).for_each(|node| *node = new);
            }
            HostedAct::Send(..) | HostedAct::Keep { .. } | HostedAct::Forgotten(_) | HostedAct::Over => {}
        }
    }

    fn line(&self, text: String) -> Event {
        Event::Line(Some(self.id), text)
    }

    /// A node that has its image boots from it from now on.
    fn has_image(&self, node: NodeId, machine: &Deployment) -> Option<Event> {
        let node = machine.node(node)?;
        let has = node.outcome().is_some_and(|end| matches!(end.state, EndState::Done | EndState::Written));
        has.then(|| Event::HasImage(self.id, node.hello.cards.iter().map(|card| card.mac).collect()))
    }

    fn start_feed(&mut self, serial: u64, chain: u16, order: FeedOrder, machine: &mut Hosted, now: Time) {
        match Feed::start(serial, chain, order, self.context.clone()) {
            Ok(feed) => drop(self.feeds.insert(serial, (chain, feed))),
            Err(error) => {
                let detail = format!("starting a feed: {error}");
                machine.on_feed(serial, FeedEvent::Down { detail, damaged: false }, now);
            }
        }
    }

    pub(super) fn on_log(&mut self, node: NodeId, line: &LogLine, events: &mut VecDeque<Event>, now: Time) {
        let mut line_of = |text: String, level: u8| {
            if level <= 2 {
                events.push_back(Event::Line(Some(self.id), text));
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

    /// The deployment as it is now, if it is time to show it.
    pub(super) fn show(&mut self, machine: &Deployment, now: Time) -> Option<Snapshot> {
        if self.shown != Time(0) && now < self.deadline() {
            return None;
        }
        (self.shown, self.changed) = (now, false);
        let egress = self.context.egress.load(Ordering::Relaxed);
        let waits = self.waits.clone();
        Some(Snapshot { waits, ..self.tracker.snapshot(machine, self.began, egress, now) })
    }

    pub(super) fn finish(self, machine: Hosted) -> Finished {
        let Self { id, plan, facts, began, context, state_file, .. } = self;
        let machine = machine.into_deployment();
        Finished { id, machine, plan, facts, began, context, _state_file: state_file }
    }
}
