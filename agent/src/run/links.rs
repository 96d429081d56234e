//! The two connections of a run: what comes in, what goes out, and the connection that is being made.

use super::{Downstream, Run, fresh};
use crate::conn::Conn;
use crate::event_loop::DOWNSTREAM;
use crate::framing::{Arrival, Outgoing, ReadError};
use crate::target::plain;
use mio::Registry;
use slidecast_proto::control::Side;
use slidecast_proto::link::LinkFault;
use slidecast_proto::node::{Take, Transmit};
use slidecast_proto::units::Time;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How much is read from a neighbour, and how much is written to one, before anything else has its turn, in bytes.
const TURN: usize = 2 << 20;
/// How long the downstream may take to accept a connection.
const CONNECT_MOST: Duration = Duration::from_secs(2);

impl Run {
    pub(super) fn conn(&mut self, side: Side) -> Option<&mut Conn> {
        match side {
            Side::Upstream => self.upstream.as_mut(),
            Side::Downstream => self.downstream.as_mut().map(|down| &mut down.conn),
        }
    }

    pub(super) fn drop_conn(&mut self, side: Side) {
        match side {
            Side::Upstream => self.upstream = None,
            Side::Downstream => self.downstream = None,
        }
    }

    /// The connection on `side` is of no more use.
    pub(super) fn lose(&mut self, side: Side, fault: &LinkFault, now: Time) {
        log::debug!("{side} link: {fault}");
        self.drop_conn(side);
        self.node.on_link_lost(side, fault, now);
    }

    /// Whether the connection down the chain that was being made is there.
    pub(super) fn connected(&mut self, now: Time) {
        let Some(down) = &mut self.downstream else { return };
        let Some((attempt, until)) = down.connecting else { return };
        let fault = match down.conn.is_established() {
            Ok(true) => {
                down.connecting = None;
                down.conn.tune();
                let wanted = fresh().is_some_and(|nonce| self.node.on_connected(attempt, nonce, now));
                if !wanted {
                    self.downstream = None;
                }
                return;
            }
            Ok(false) if now < until => return,
            Ok(false) => format!("no answer within {} s", CONNECT_MOST.as_secs()),
            Err(error) => plain(&error),
        };
        self.lose(Side::Downstream, &LinkFault::Broken(fault), now);
    }

    /// Takes what comes on one side.
    pub(super) fn receive(&mut self, side: Side, registry: &Registry, now: Time) {
        let mut budget = TURN;
        while self.make_room(side) {
            let Some(conn) = self.conn(side) else { return };
            let arrival = conn.receive(&mut budget);
            match conn.reader().take_payload_bytes() {
                0 => {}
                bytes => self.node.on_bytes(side, bytes, now),
            }
            let result = match arrival {
                Ok(None) => return,
                Ok(Some(arrival)) => self.take(side, arrival, now),
                Err(ReadError::Header(error)) => Err(LinkFault::Header(error)),
                Err(error) => Err(LinkFault::Broken(error.to_string())),
            };
            if let Err(fault) = result {
                self.lose(side, &fault, now);
            }
            self.carry_out(registry, now);
        }
    }

    /// Gives a block that was announced its place in the ring; `false` if it must wait for one.
    pub(super) fn make_room(&mut self, side: Side) -> bool {
        let announced = self.conn(side).and_then(|conn| conn.reader().announced().copied());
        let Some(header) = announced else { return true };
        let Some(slot) = self.ring.reserve(header.payload_len) else { return false };
        if let Some(conn) = self.conn(side) {
            conn.reader().receive_into(slot);
        }
        true
    }

    pub(super) fn take(&mut self, side: Side, arrival: Arrival, now: Time) -> Result<(), LinkFault> {
        match arrival {
            Arrival::Announced(header) => {
                if self.node.on_header(side, &header, now)? == Take::Control {
                    self.conn(side).into_iter().for_each(|conn| conn.reader().skip());
                }
            }
            Arrival::Block { header, payload, crc } => {
                if let Some(id) = self.node.on_block(&header, crc)? {
                    self.spans.push_back((id, payload.freeze()));
                }
            }
            Arrival::Skipped(_) => {}
            Arrival::Control(header, payload) => {
                self.node.on_header(side, &header, now)?;
                self.node.on_control(side, &header, payload, now)?;
            }
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, attempt: u64, address: SocketAddr, registry: &Registry, now: Time) {
        let connected = Conn::connect(address, self.card.as_deref()).and_then(|mut conn| {
            conn.register(registry, DOWNSTREAM)?;
            Ok(conn)
        });
        match connected {
            Ok(conn) => {
                let connecting = Some((attempt, now.after(CONNECT_MOST)));
                self.downstream = Some(Downstream { conn, connecting, sending: None });
            }
            Err(error) => self.lose(Side::Downstream, &LinkFault::Broken(plain(&error)), now),
        }
    }

    /// Sends what the machine has for the upstream; gives whether anything went out.
    pub(super) fn transmit_upstream(&mut self, now: Time) -> bool {
        let mut moved = false;
        while let Some(conn) = &mut self.upstream {
            if conn.can_start() {
                let Some(Transmit::Bytes(bytes)) = self.node.poll_transmit(Side::Upstream) else { return moved };
                conn.start(Outgoing::Bytes(bytes));
            }
            match conn.flush() {
                Ok(true) => {
                    moved = true;
                    self.node.on_transmitted(Side::Upstream, &Transmit::Bytes(Vec::new()), now);
                }
                Ok(false) => return moved,
                Err(error) => self.lose(Side::Upstream, &LinkFault::Broken(plain(&error)), now),
            }
        }
        moved
    }

    /// Sends what the machine has for the downstream; gives whether anything went out.
    pub(super) fn transmit_downstream(&mut self, now: Time) -> bool {
        let mut budget = TURN;
        let mut moved = false;
        while budget > 0 {
            let Some(Downstream { connecting: None, conn, sending }) = &mut self.downstream else { return moved };
            if sending.is_none() {
                if !conn.can_start() {
                    return moved;
                }
                let Some(transmit) = self.node.poll_transmit(Side::Downstream) else { return moved };
                let frame = match &transmit {
                    Transmit::Bytes(bytes) => Outgoing::Bytes(bytes.clone()),
                    Transmit::Shared(header, payload) => Outgoing::Shared(header.encode(), Arc::clone(payload)),
                    Transmit::Entry(header, id) => {
                        let at = self.spans.partition_point(|(other, _)| other < id);
                        let (_, span) = &self.spans[at];
                        // A follower that takes its time must not hold up the ring with the one frame it is at.
                        if self.node.is_followed() {
                            Outgoing::Shared(header.encode(), Arc::from(&span[..]))
                        } else {
                            Outgoing::Block(header.encode(), span.clone())
                        }
                    }
                };
                budget = budget.saturating_sub(frame.len());
                conn.start(frame);
                *sending = Some(transmit);
            }
            match conn.flush() {
                Ok(true) => {
                    if let Some(transmit) = sending.take() {
                        moved = true;
                        self.node.on_transmitted(Side::Downstream, &transmit, now);
                    }
                }
                Ok(false) => return moved,
                Err(error) => self.lose(Side::Downstream, &LinkFault::Broken(plain(&error)), now),
            }
        }
        moved
    }
}
