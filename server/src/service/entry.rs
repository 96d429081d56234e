//! How an agent comes in: its hello, approval, and the fleet, which lends it to a deployment or lets it wait.

use super::event::{Event, MachineView};
use super::event_loop::{Service, is_here};
use super::gate::{Admitted, GateDeed};
use super::link::Standing;
use mio::Token;
use slidecast_proto::approval::Caller;
use slidecast_proto::control::Hello;
use slidecast_proto::fleet::FleetEvent;
use slidecast_proto::plan::CardId;
use slidecast_proto::units::{DeploymentId, NodeId, Time};
use std::net::IpAddr;

impl Service {
    pub(super) fn on_hello(&mut self, token: Token, hello: Hello, now: Time) {
        let Some(link) = self.port.link(token) else { return };
        let (key, address, card) = (link.peer_key(), link.address, CardId(link.card.clone()));
        let Some(handshake) = link.handshake_hash() else { return };
        if self.fleet.has_other_key(&hello.boot, key) {
            return self.send_away(token, address, "it claims to be a run of an agent that has another key", now);
        }
        let caller = Caller { hello, key, handshake, address, card };
        let Self { gate, fleet, running, .. } = self;
        match gate.on_hello(token, caller, &|boot| is_here(fleet, running, boot), now) {
            Admitted::In(caller) => self.enter(token, *caller, now),
            Admitted::Away => self.send_away(token, address, "too many agents wait for approval", now),
            Admitted::Waits(id) => {
                if let Some(link) = self.port.link(token) {
                    link.standing = Standing::Waiting(id);
                }
                self.on_changed();
            }
        }
    }

    fn send_away(&mut self, token: Token, address: IpAddr, why: &str, now: Time) {
        self.port.part(token, now);
        self.turn_away(address, &format!("an agent at {address}"), why);
    }

    /// An agent that may take part.
    fn enter(&mut self, token: Token, caller: Caller, now: Time) {
        let address = caller.address;
        let destination = match self.fleet.destination(&caller) {
            Ok(destination) => destination,
            Err(no_place) => return self.send_away(token, address, &no_place.to_string(), now),
        };
        if let Some(running) = destination.and_then(|id| self.running.get_mut(&id))
            && let Err(full) = running.machine_mut().make_room(&caller.hello, address)
        {
            return self.send_away(token, address, &full.to_string(), now);
        }
        let Some(link) = self.port.link(token) else { return };
        let node = self.fleet.on_agent(caller, now);
        link.standing = Standing::Node(node);
        if let Some(old) = self.nodes.insert(node, token) {
            // The same run called again: the older link is dead, whether it knows or not.
            self.port.drop_link(old);
        }
        self.carry_fleet(now);
    }

    /// Does what the approval of agents asks for.
    pub(super) fn carry_gate(&mut self, now: Time) {
        while let Some(deed) = self.gate.poll(now) {
            match deed {
                GateDeed::Send(token, order) => self.send_on(token, &order, now),
                GateDeed::Enter(token, caller) if self.closing.is_none() => self.enter(token, *caller, now),
                GateDeed::Enter(token, _) => self.port.drop_link(token),
                GateDeed::Close(token, why) => {
                    log::debug!("an agent that was not approved is sent away: {why}");
                    self.port.part(token, now);
                    self.on_changed();
                }
                GateDeed::Tell(view, left_out) => {
                    if left_out > 0 {
                        let line = format!("{left_out} others that wait for approval were not shown");
                        self.events.push_back(Event::Line(None, line));
                    }
                    self.events.push_back(Event::Unapproved(Box::new(view)));
                }
            }
        }
    }

    /// Does what the fleet asks for.
    pub(super) fn carry_fleet(&mut self, now: Time) {
        while let Some(event) = self.fleet.poll_event() {
            match event {
                FleetEvent::Lent { node, deployment } => self.lend(node, deployment, now),
                FleetEvent::Idle(node) => self.tell_of_machine(node),
                FleetEvent::Silent(node) => {
                    let token = self.nodes.get(&node).copied();
                    token.into_iter().for_each(|token| self.port.drop_link(token));
                    self.on_gone(node, "silent", now);
                }
            }
        }
        while let Some((node, order)) = self.fleet.poll_order() {
            self.send(node, &order, now);
        }
    }

    fn lend(&mut self, node: NodeId, deployment: DeploymentId, now: Time) {
        let Some(agent) = self.fleet.agent(node) else { return };
        let (Some(running), Some(here)) = (self.running.get_mut(&deployment), agent.here.clone()) else { return };
        if let Err(full) = running.machine_mut().make_room(&here.hello, here.address) {
            log::warn!("deployment {deployment} does not take agent {node}: {full}");
            return self.fleet.give_back(node);
        }
        running.changed = true;
        running.machine_mut().on_agent(node, here.hello, here.card, here.address, now);
        self.tell_of_machine(node);
    }

    fn tell_of_machine(&mut self, node: NodeId) {
        let Some(agent) = self.fleet.agent(node) else { return };
        let Some(here) = agent.here.clone() else { return };
        let view = MachineView {
            node,
            hello: here.hello,
            key: agent.key,
            address: here.address,
            card: here.card.0,
            deployment: agent.loan,
        };
        self.events.push_back(Event::Machine(Box::new(view)));
    }
}
