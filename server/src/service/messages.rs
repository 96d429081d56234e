//! Control links: what comes on them, what is sent on them, and their end.

use super::event::Event;
use super::event_loop::Service;
use super::link::{Broken, Standing};
use crate::shown::shown;
use mio::Token;
use slidecast_proto::control::{ToAgent, ToServer};
use slidecast_proto::noise::ChannelError;
use slidecast_proto::units::{NodeId, Time};
use slidecast_proto::wire::Malformed;
use std::net::IpAddr;

/// Addresses of callers that were told of as not let in; beyond that they are left untold.
const MAX_TOLD: usize = 256;

impl Service {
    pub(super) fn accept(&mut self, now: Time) {
        for refused in self.port.accept(self.closing.is_some(), now) {
            self.turn_away(refused.address, &format!("a caller from {}", refused.address), &refused.why);
        }
    }

    pub(super) fn serve_link(&mut self, token: Token, now: Time) {
        let mut messages = Vec::new();
        let read = self.port.read(token, &mut messages);
        for message in messages {
            self.on_message(token, message, now);
        }
        let wrote = self.port.write(token, now);
        if let Err(broken) = read.and(wrote) {
            self.on_broken(token, &broken, now);
        }
    }

    fn on_broken(&mut self, token: Token, broken: &Broken, now: Time) {
        let Some(link) = self.port.link(token) else { return };
        let (address, standing) = (link.address, link.standing);
        if let (
            Broken::Channel(_) | Broken::Malformed(_),
            Standing::Stranger | Standing::Waiting(_) | Standing::Node(_),
        ) = (broken, standing)
        {
            // What is wrong was put into words for the other end: it gets them before the link goes.
            link.part(now);
        } else {
            self.port.drop_link(token);
        }
        match standing {
            Standing::Node(node) => self.on_gone(node, &shown(&broken.to_string()), now),
            Standing::Waiting(id) => {
                log::debug!("agent at {address} that was not approved: {broken}");
                self.on_changed();
                self.gate.on_gone(id);
            }
            Standing::Stranger => self.tell_of_stranger(address, broken),
            Standing::Parting => {}
        }
    }

    /// The control link of an agent is gone.
    pub(super) fn on_gone(&mut self, node: NodeId, why: &str, now: Time) {
        self.nodes.remove(&node);
        match self.host.of_agent(node).and_then(|id| self.running.get_mut(&id)) {
            Some(running) => running.changed = true,
            None => log::debug!("idle agent {node}: {why}"),
        }
        self.host.on_gone(node, why, now);
        self.events.push_back(Event::MachineGone(node));
    }

    /// An agent that does not fit is worth a line; noise is not.
    fn tell_of_stranger(&mut self, address: IpAddr, broken: &Broken) {
        let worth = match broken {
            Broken::Channel(error) => !matches!(error, ChannelError::Garbage { .. } | ChannelError::Busy),
            _ => false,
        };
        if worth {
            self.turn_away(address, &format!("an agent at {address}"), &broken.to_string());
        } else {
            log::debug!("caller at {address}: {broken}");
        }
    }

    /// Tells, once for each address, who was not let in and why.
    pub(super) fn turn_away(&mut self, address: IpAddr, who: &str, why: &str) {
        let line = format!("{who} was turned away: {why}");
        if self.told.len() < MAX_TOLD && self.told.insert(address) {
            self.events.push_back(Event::TurnedAway(line));
        } else {
            log::debug!("{line}");
        }
    }

    fn on_message(&mut self, token: Token, message: ToServer, now: Time) {
        let Some(standing) = self.port.link(token).map(|link| link.standing) else { return };
        match (standing, message) {
            (Standing::Stranger, ToServer::Hello(hello)) => self.on_hello(token, hello, now),
            (Standing::Node(_) | Standing::Waiting(_), ToServer::Hello(_)) | (Standing::Stranger, _) => {
                self.on_broken(token, &Broken::Malformed(Malformed { what: "order of messages" }), now);
            }
            (Standing::Node(node), message) => self.on_node_message(node, message, now),
            (Standing::Waiting(id), message) => self.gate.on_message(id, &message, now),
            (Standing::Parting, _) => {}
        }
    }

    fn on_node_message(&mut self, node: NodeId, message: ToServer, now: Time) {
        let Self { host, running, events, .. } = self;
        let running = host.of_agent(node).and_then(|id| running.get_mut(&id));
        match (running, &message) {
            (Some(running), ToServer::Log(line)) => return running.on_log(node, line, events, now),
            (Some(running), _) => running.changed = true,
            (None, ToServer::Log(line)) => log::debug!("idle agent {node}: {}", shown(&line.text)),
            (None, _) => {}
        }
        host.on_message(node, message, now);
    }

    pub(super) fn send(&mut self, node: NodeId, order: &ToAgent, now: Time) {
        self.nodes.get(&node).copied().into_iter().for_each(|token| self.send_on(token, order, now));
    }

    pub(super) fn send_on(&mut self, token: Token, order: &ToAgent, now: Time) {
        if let Err(broken) = self.port.send(token, order) {
            self.on_broken(token, &broken, now);
        }
    }
}
