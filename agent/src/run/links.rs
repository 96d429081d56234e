//! The two connections of a run: what comes in, what goes out, and the connection that is being made.

use super::Run;
use crate::conn::{Arrival, Conn, Outgoing};
use crate::event_loop::DOWNSTREAM;
use crate::random::random_bytes;
use mio::Registry;
use slidecast_net::frames::ReadError;
use slidecast_net::text::os_error_text;
use slidecast_proto::control::Side;
use slidecast_proto::link::LinkFault;
use slidecast_proto::node::Take;
use slidecast_proto::run::{RunTransmit, TURN};
use slidecast_proto::units::Time;
use std::net::SocketAddr;
use std::sync::Arc;

impl Run {
    pub(super) fn conn(&mut self, side: Side) -> &mut Option<Conn> {
        match side {
            Side::Upstream => &mut self.upstream,
            Side::Downstream => &mut self.downstream,
        }
    }

    /// Whether the connection down the chain that was being made is there.
    pub(super) fn hear_dialed(&mut self, now: Time) {
        let Some(conn) = self.downstream.as_ref().filter(|_| self.machine.is_dialing()) else { return };
        match conn.is_established() {
            Ok(true) => {
                conn.tune();
                self.machine.on_dialed(random_bytes(), now);
            }
            Ok(false) => {}
            Err(error) => self.machine.on_lost(Side::Downstream, &LinkFault::Broken(os_error_text(&error)), now),
        }
    }

    /// Takes what comes on one side.
    pub(super) fn receive(&mut self, side: Side, registry: &Registry, now: Time) {
        let mut budget = usize::try_from(TURN).unwrap_or(usize::MAX);
        self.carry_out(registry, now);
        while self.make_room(side) {
            let Some(conn) = self.conn(side) else { return };
            let arrival = conn.receive(&mut budget);
            match conn.reader().take_payload_bytes() {
                0 => {}
                bytes => self.machine.on_bytes(side, bytes, now),
            }
            match arrival {
                Ok(None) => return,
                Ok(Some(arrival)) => self.take(side, arrival, now),
                Err(ReadError::Header(error)) => self.machine.on_lost(side, &LinkFault::Header(error), now),
                Err(error) => self.machine.on_lost(side, &LinkFault::Broken(error.to_string()), now),
            }
            self.carry_out(registry, now);
        }
    }

    /// Gives a block that was announced its place in the ring; `false` if it must wait for one.
    fn make_room(&mut self, side: Side) -> bool {
        let announced = self.conn(side).as_mut().and_then(|conn| conn.reader().announced().copied());
        let Some(header) = announced else { return true };
        let Some(slot) = self.ring.reserve(header.payload_len) else { return false };
        if let Some(conn) = self.conn(side) {
            conn.reader().receive_into(slot);
        }
        true
    }

    fn take(&mut self, side: Side, arrival: Arrival, now: Time) {
        match arrival {
            Arrival::Announced(header) => {
                if self.machine.on_announced(side, &header, now) == Some(Take::Control) {
                    self.conn(side).iter_mut().for_each(|conn| conn.reader().skip());
                }
            }
            Arrival::Block { header, payload, crc } => {
                self.machine.on_block(side, &header, crc, payload.freeze(), now);
            }
            Arrival::Skipped(_) => {}
            Arrival::Control(header, payload) => self.machine.on_control(side, &header, payload, now),
        }
    }

    pub(super) fn dial(&mut self, address: SocketAddr, registry: &Registry, now: Time) {
        let connected = Conn::connect(address, self.card.as_deref()).and_then(|mut conn| {
            conn.register(registry, DOWNSTREAM)?;
            Ok(conn)
        });
        match connected {
            Ok(conn) => self.downstream = Some(conn),
            Err(error) => self.machine.on_lost(Side::Downstream, &LinkFault::Broken(os_error_text(&error)), now),
        }
    }

    /// Sends what the machine has for a neighbour; gives whether anything went out.
    pub(super) fn transmit(&mut self, side: Side, now: Time) -> bool {
        let mut moved = false;
        loop {
            let conn = match side {
                Side::Upstream => &mut self.upstream,
                Side::Downstream if self.machine.is_dialing() => return moved,
                Side::Downstream => &mut self.downstream,
            };
            let Some(conn) = conn else { return moved };
            if conn.can_start() {
                let Some(transmit) = self.machine.poll_transmit(side, now) else { return moved };
                conn.start(match transmit {
                    RunTransmit::Bytes(bytes) => Outgoing::Bytes(bytes),
                    RunTransmit::Shared(header, payload) => Outgoing::Shared(header, payload),
                    RunTransmit::Block(header, span) => Outgoing::Block(header, span),
                    RunTransmit::Copy(header, span) => Outgoing::Shared(header, Arc::from(&span[..])),
                });
            } else if conn.is_idle() {
                return moved;
            }
            match conn.flush() {
                Ok(true) => {
                    moved = true;
                    self.machine.on_transmitted(side, now);
                }
                Ok(false) => return moved,
                Err(error) => {
                    self.machine.on_lost(side, &LinkFault::Broken(os_error_text(&error)), now);
                    return moved;
                }
            }
        }
    }
}
