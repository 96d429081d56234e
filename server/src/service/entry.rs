//! How an agent comes in: its hello, approval, and the machine of fleet and deployments, which gives it its place.

use super::event::{Event, MachineView};
use super::event_loop::Service;
use super::gate::{Admitted, GateDeed};
use super::link::Standing;
use mio::Token;
use slidecast_proto::approval::Caller;
use slidecast_proto::control::Hello;
use slidecast_proto::plan::CardId;
use slidecast_proto::units::{NodeId, Time};
use std::net::IpAddr;

impl Service {
    pub(super) fn on_hello(&mut self, token: Token, hello: Hello, now: Time) {
        let Some(link) = self.port.link(token) else { return };
        let (key, address, card) = (link.peer_key(), link.address, CardId(link.card.clone()));
        let Some(handshake) = link.handshake_hash() else { return };
        if self.host.fleet().has_other_key(&hello.boot, key) {
            return self.send_away(token, address, "it claims to be a run of an agent that has another key", now);
        }
        let caller = Caller { hello, key, handshake, address, card };
        let Self { gate, host, .. } = self;
        match gate.on_hello(token, caller, &|boot| host.is_here(boot), now) {
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
        if self.port.link(token).is_none() {
            return;
        }
        let node = match self.host.on_agent(caller, now) {
            Ok(node) => node,
            Err(refused) => return self.send_away(token, address, &refused.to_string(), now),
        };
        self.port.link(token).into_iter().for_each(|link| link.standing = Standing::Node(node));
        if let Some(old) = self.nodes.insert(node, token) {
            // The same run called again: the older link is dead, whether it knows or not.
            self.port.drop_link(old);
        }
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

    /// An agent is there, idle or lent.
    pub(super) fn tell_of_machine(&mut self, node: NodeId) {
        let Some(agent) = self.host.fleet().agent(node) else { return };
        let Some(here) = agent.here.clone() else { return };
        let running = agent.loan.and_then(|id| self.running.get_mut(&id));
        running.into_iter().for_each(|running| running.changed = true);
        let view = MachineView {
            node,
            hello: here.hello,
            key: agent.key,
            address: here.address,
            card: here.card.0,
            deployment: agent.loan,
            contested: self.host.fleet().is_contested(node),
        };
        self.events.push_back(Event::Machine(Box::new(view)));
    }
}
