//! What reaches the deployment: agents, their messages, feeds, the operator, and time.

use super::presence::Presence;
use super::roster::Member;
use super::timers::{HEARTBEAT, SILENCE_TIMEOUT, Timer};
use super::{Deployment, DeploymentEvent, FeedEvent, NodeRecord, Outcome, Stage, Standing};
use crate::control::{Abort, BadBlock, Ended, Hello, Progress, Ready, Refused, ToAgent, ToServer, Welcome};
use crate::plan::CardId;
use crate::reason::{EndState, Reason};
use crate::units::{NodeId, Time};
use core::time::Duration;
use std::net::IpAddr;

impl Deployment {
    /// An agent has said hello over its control link. `id` is its number: [`Self::number_of`] its run where that has one, otherwise one that
    /// no other agent has or had here. `address` is where it called from, `card` the card of the server that it hangs on.
    pub fn on_agent(&mut self, id: NodeId, hello: Hello, card: CardId, address: IpAddr, now: Time) {
        self.last_id = self.last_id.max(id.0);
        let welcome = Welcome { node: id, server_version: self.config.version.clone() };
        self.orders.push_back((id, ToAgent::Welcome(welcome)));
        if let Some(node) = self.roster.get_mut(id) {
            node.presence.on_call(now);
            (node.hello, node.card, node.address) = (hello, card, address);
            // One that returns is to say first whether it kept its state.
            if !node.presence.is_returning() {
                self.greet(id, now);
            }
            return;
        }
        let mut node = Member::new(id, hello, card, address, now);
        node.late = self.stage != Stage::Waiting;
        let expected = self.expected(&node.hello.boot) == Some(id);
        if expected {
            node.presence = Presence::Expected { since: now };
            node.presence.on_call(now);
        }
        self.admit(node, now);
        if !expected {
            self.greet(id, now);
        }
    }

    /// A node gets its record.
    pub(super) fn admit(&mut self, node: Member, now: Time) {
        self.ledger.open(node.id, now);
        self.roster.insert(node);
    }

    /// Tells a node that said hello what is to be deployed, or where it left off.
    pub(super) fn greet(&mut self, id: NodeId, now: Time) {
        let open = self.stage == Stage::Waiting || (self.stage == Stage::Running && self.join_open(now));
        let unheard = self.node(id).is_some_and(|node| node.was_unheard());
        let seat = self.topology.seat(id);
        let (join, seated) = (seat.join().cloned(), seat.chain().is_some());
        let Some(node) = self.roster.get_mut(id) else { return };
        if unheard {
            // It may never have got its first place, and then it knows of nothing: it begins from the start.
            node.begins = true;
            self.orders.push_back((id, ToAgent::Prepare(self.config.prepare.clone())));
        }
        match &node.standing {
            Standing::Running(_) => self.orders.extend(join.map(|join| (id, ToAgent::Join(join)))),
            // It was given up because nothing was heard of it; now it is back.
            Standing::Ended(outcome) if outcome.reason == Reason::NodeLost && self.stage == Stage::Running => {
                self.revive(id, now);
            }
            Standing::Ended(_) => {
                // Others may still need it: it must know of what was changed while it could not be told.
                let was_released = node.set_released(false);
                let join = join.filter(|_| seated && !was_released);
                self.orders.extend(join.map(|join| (id, ToAgent::Join(join))));
            }
            _ if open || node.place.is_some() => {
                (node.standing, node.begins) = (Standing::Preparing, true);
                self.orders.push_back((id, ToAgent::Prepare(self.config.prepare.clone())));
            }
            _ => {
                let detail = "the deployment had started".to_owned();
                node.standing = Standing::Refused { reason: Reason::JoinedTooLate, detail: detail.clone() };
                self.order_abort(id, Reason::JoinedTooLate, detail);
            }
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
    }

    /// Whether late nodes are taken in.
    fn join_open(&self, now: Time) -> bool {
        match (self.config.join_window, self.fixed) {
            (Some(window), Some(fixed)) => now.since(fixed) < window,
            _ => true,
        }
    }

    pub(super) fn order_abort(&mut self, id: NodeId, reason: Reason, detail: String) {
        let deployment = self.config.prepare.deployment;
        self.orders.push_back((id, ToAgent::Abort(Abort { deployment, reason, detail })));
    }

    /// A message of a node's control link.
    pub fn on_message(&mut self, id: NodeId, message: ToServer, now: Time) {
        self.look_up(now);
        self.hear_returned(id, &message, now);
        let Some(node) = self.roster.get_mut(id) else { return };
        let heard = node.presence.on_heard(now);
        if heard.is_back {
            self.greet(id, now);
        }
        let Some(node) = self.roster.get_mut(id) else { return };
        match message {
            ToServer::Hello(_) | ToServer::Heartbeat | ToServer::Log(_) | ToServer::ApprovalShare(_) => return,
            // It was told to begin, and speaks of the run that it drops for that: what this one had done counts no more.
            ToServer::Progress(_) | ToServer::Ended(_) | ToServer::BadBlock(_) | ToServer::Link(_) if node.begins => {
                return;
            }
            ToServer::Ready(ready) => self.on_ready(id, ready, now),
            ToServer::Refused(refused) => self.on_refused(id, refused),
            ToServer::Progress(progress) => {
                self.on_progress(id, progress, now);
                let pause = self.report_pause();
                if now.since(self.settled) < pause {
                    self.timers.set(Timer::Reports, self.settled.after(pause));
                    self.events.push_back(DeploymentEvent::NodeChanged(id));
                    return;
                }
            }
            ToServer::Ended(ended) => self.on_ended(id, ended, now),
            ToServer::BadBlock(bad) => self.on_bad_block(id, &bad),
            ToServer::Link(event) => {
                if event.deployment == self.config.prepare.deployment {
                    self.on_link(id, &event, heard.silence, now);
                }
            }
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        self.settle(now);
    }

    fn on_ready(&mut self, id: NodeId, ready: Ready, now: Time) {
        let Some(node) = self.roster.get_mut(id) else { return };
        if ready.deployment != self.config.prepare.deployment {
            return;
        }
        node.begins = false;
        if node.standing == Standing::Preparing {
            node.standing = Standing::Ready(ready);
            self.replace_lost(id, now);
        }
    }

    fn on_refused(&mut self, id: NodeId, refused: Refused) {
        let Refused { deployment, reason, detail } = refused;
        let Some(node) = self.roster.get_mut(id) else { return };
        if deployment == self.config.prepare.deployment && node.outcome().is_none() && node.place.is_none() {
            node.standing = Standing::Refused { reason, detail };
        }
    }

    fn on_progress(&mut self, id: NodeId, progress: Progress, now: Time) {
        if progress.deployment == self.config.prepare.deployment {
            self.ledger.change(id, |account| account.on_report(progress, now));
            self.on_received(id, now);
        }
    }

    fn on_ended(&mut self, id: NodeId, ended: Ended, now: Time) {
        let prepare = &self.config.prepare;
        let Some(node) = self.roster.get_mut(id).filter(|node| node.is_running()) else { return };
        let Standing::Running(ready) = &node.standing else { return };
        if ended.deployment != prepare.deployment {
            return;
        }
        let ended = if ended.root == prepare.root || ended.state == EndState::Failed {
            ended
        } else {
            let detail = "the node reports another manifest root".to_owned();
            Ended { state: EndState::Failed, reason: Reason::ManifestMismatch, detail, ..ended }
        };
        node.standing = Standing::Ended(Outcome::of(ended, ready.clone(), now));
        if let Some(charge) = self.blame.charge(id) {
            node.accuse(charge);
        }
        self.unsaved = true;
    }

    fn on_bad_block(&mut self, id: NodeId, bad: &BadBlock) {
        let ours = bad.deployment == self.config.prepare.deployment && bad.block.0 < self.config.blocks;
        if ours && self.roster.get(id).is_some_and(Member::is_running) {
            self.events.push_back(DeploymentEvent::CheckBlock(bad.block));
        }
    }

    /// The control link of a node is gone.
    pub fn on_gone(&mut self, id: NodeId, detail: &str, now: Time) {
        self.look_up(now);
        let Some(node) = self.roster.get_mut(id) else { return };
        if !node.presence.on_gone(now) {
            return;
        }
        if matches!(node.standing, Standing::Preparing | Standing::Ready(_)) && self.stage == Stage::Waiting {
            let detail = format!("it left before the start: {detail}");
            node.standing = Standing::Refused { reason: Reason::NodeLost, detail };
        }
        self.events.push_back(DeploymentEvent::NodeChanged(id));
        self.on_control_gone(id, detail, now);
        self.settle(now);
        self.forget_left_over();
    }

    /// Something happened on the feed of `chain`.
    pub fn on_feed(&mut self, chain: u16, event: FeedEvent, now: Time) {
        self.look_up(now);
        match event {
            _ if self.stage != Stage::Running => {}
            FeedEvent::Up => self.on_feed_up(chain),
            FeedEvent::Ended => {}
            FeedEvent::Broken { detail, damaged } => self.on_feed_broken(chain, &detail, damaged, now),
            FeedEvent::Down { detail, damaged } => self.on_feed_down(chain, &detail, damaged, now),
            FeedEvent::ImageCorrupt(detail) => self.fail_all(Reason::ImageCorrupt, &detail, now),
            FeedEvent::Waited { network, of } => {
                if self.topology.get(chain).is_some() {
                    self.ledger.paces_mut(usize::from(chain)).on_feed_waited(network, of);
                }
            }
        }
        self.settle(now);
    }

    /// A block that a node complained of was checked in the image file; `bad` names file and block if it is rotten, which
    /// ends the deployment.
    pub fn on_block_checked(&mut self, bad: Option<&str>, now: Time) {
        if let Some(detail) = bad {
            self.fail_all(Reason::ImageCorrupt, detail, now);
            self.settle(now);
        }
    }

    /// The operator stops it.
    pub fn on_stop(&mut self, now: Time) {
        match self.stage {
            Stage::Waiting => self.call_off("stopped by the operator before the start", true),
            Stage::Running => {
                self.fail_all(Reason::Aborted, "stopped by the operator", now);
                self.finish(true, now);
            }
            Stage::Over { .. } => {}
        }
    }

    /// Lets time pass.
    pub fn on_time(&mut self, now: Time) {
        self.look_up(now);
        // At the end as well: the last orders may wait for a slow disk, and agents must not take that for silence.
        if self.timers.is_due(Timer::Heartbeat, now) {
            self.timers.set(Timer::Heartbeat, now.after(HEARTBEAT));
            let connected: Vec<NodeId> = self.nodes().filter(|node| node.connected).map(|node| node.id).collect();
            self.orders.extend(connected.into_iter().map(|id| (id, ToAgent::Heartbeat)));
        }
        let is_silent =
            |node: &NodeRecord<'_>| node.connected && now.since(node.member.presence.heard()) >= SILENCE_TIMEOUT;
        let silent: Vec<NodeId> = self.nodes().filter(is_silent).map(|node| node.id).collect();
        for id in silent {
            self.on_gone(id, &format!("silent for {} s", SILENCE_TIMEOUT.as_secs()), now);
        }
        if self.stage == Stage::Waiting && self.timers.is_due(Timer::Start, now) && !self.waits_for_others(now) {
            let ready = self.ready().len();
            let detail = format!("{ready} of {} nodes were ready in time", self.config.wait_for);
            return self.call_off(&detail, false);
        }
        if self.stage == Stage::Running {
            self.find_slow(now);
        }
        self.settle(now);
    }

    /// Reports come from all nodes every second, and what follows from one is looked for at all nodes: of very many nodes'
    /// reports some are taken together.
    fn report_pause(&self) -> Duration {
        Duration::from_millis(self.roster.len() as u64 / 50)
    }
}
