//! One network card: waits for its cable, gets it an address, keeps it.
//!
//! The thread decides nothing: it carries frames between the card and the machines of DHCP and of link-local addresses, and does
//! what comes of it.

use super::linklocal::{self, LinkLocal};
use super::{Ip, Shared};
use crate::boot::dhcp::{Destination, Dhcp, Event, Lease, Route, frame, in_order};
use crate::boot::options::Static;
use crate::random::random_bytes;
use crate::sys::packet::Frames;
use crate::sys::rtnetlink::{Address, RtNetlink};
use nix::sys::socket::{setsockopt, sockopt};
use pnet_datalink::NetworkInterface;
use slidecast_proto::units::Time;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long frames are waited for before cable and clock are looked at again.
const TURN: Duration = Duration::from_millis(200);
/// Where nobody has given an address for so long, the card takes one itself.
const LINK_LOCAL_AFTER: Duration = Duration::from_secs(12);
const SERVER_PORT: u16 = 67;
const OUR_PORT: u16 = 68;

#[derive(Debug)]
pub(super) struct Card {
    pub(super) interface: NetworkInterface,
    pub(super) mac: [u8; 6],
    /// The machine was booted from it.
    pub(super) is_boot: bool,
    /// The metric of its routes.
    pub(super) metric: u32,
}

/// Looks after `card` until it is gone.
pub(super) fn run(card: &Card, shared: &Shared) {
    let netlink = match RtNetlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return log::error!("{}: opening the kernel's tables: {error}", card.interface.name),
    };
    let mut keeper = Keeper {
        card,
        shared,
        netlink,
        began: Instant::now(),
        seed: random_bytes::<8>().map_or(u64::from(card.interface.index), u64::from_le_bytes),
        frames: None,
        complained: false,
        dhcp: None,
        local: None,
        fixed: false,
        leased: None,
        routes: Vec::new(),
        claimed: None,
        socket: None,
    };
    let folder = Path::new("/sys/class/net").join(&card.interface.name);
    let mut has_cable = false;
    while folder.exists() {
        // Reading fails while the card is off.
        let cable = std::fs::read_to_string(folder.join("carrier")).is_ok_and(|text| text.trim() == "1");
        if cable != has_cable {
            has_cable = cable;
            keeper.on_cable(cable);
        }
        if has_cable && !keeper.fixed {
            keeper.turn();
        } else {
            std::thread::sleep(TURN);
        }
    }
    log::warn!("network card {} is gone", card.interface.name);
    shared.board.update(|status| status.links.remove(&card.interface.name));
}

struct Keeper<'a> {
    card: &'a Card,
    shared: &'a Shared,
    netlink: RtNetlink,
    began: Instant,
    seed: u64,
    frames: Option<Frames>,
    /// It was said that there can be none.
    complained: bool,
    dhcp: Option<Dhcp>,
    local: Option<LinkLocal>,
    /// The address was given on the command line: there is nothing to keep.
    fixed: bool,
    leased: Option<Address>,
    /// What came with it, as far as it was done.
    routes: Vec<Route>,
    claimed: Option<Address>,
    /// From where a lease is renewed.
    socket: Option<UdpSocket>,
}

impl Keeper<'_> {
    fn name(&self) -> &str {
        &self.card.interface.name
    }

    fn now(&self) -> Time {
        Time::default().after(self.began.elapsed())
    }

    fn on_cable(&mut self, plugged: bool) {
        if !plugged {
            log::warn!("link {}: no cable", self.name());
            return;
        }
        log::debug!("{}: cable", self.name());
        let now = self.now();
        if self.shared.is_fixed(self.card) {
            if let Ip::Static(fixed) = &self.shared.ip
                && !self.fixed
            {
                self.fixed = true;
                self.fix(fixed);
            }
            return;
        }
        match &mut self.dhcp {
            Some(dhcp) => dhcp.on_carrier(now),
            None if self.shared.ip != Ip::LinkLocal => self.dhcp = Some(Dhcp::new(self.card.mac, self.seed, now)),
            None => {}
        }
        self.let_go_of_local();
    }

    /// Sends what is due, does what came of it, and waits a moment for frames.
    fn turn(&mut self) {
        let now = self.now();
        if self.frames.is_none() {
            match Frames::open(&self.card.interface, TURN) {
                Ok(frames) => self.frames = Some(frames),
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        log::warn!("{}: listening to frames: {error}", self.name());
                    }
                    return std::thread::sleep(TURN);
                }
            }
        }
        if let Some((to, message)) = self.dhcp.as_mut().and_then(|dhcp| dhcp.poll_transmit(now)) {
            self.send(to, &message);
        }
        match self.dhcp.as_mut().and_then(Dhcp::poll_event) {
            Some(Event::Bound(lease)) => self.bind(&lease),
            Some(Event::Lost) => self.lose_lease(),
            None => {}
        }
        self.turn_local(now);
        self.receive();
    }

    fn send(&mut self, to: Destination, message: &[u8]) {
        let result = match (to, &self.socket, &mut self.frames) {
            (Destination::Everybody, Some(socket), _) => {
                socket.send_to(message, SocketAddr::from((Ipv4Addr::BROADCAST, SERVER_PORT))).map(drop)
            }
            (Destination::Server(server), Some(socket), _) => {
                socket.send_to(message, SocketAddr::from((server, SERVER_PORT))).map(drop)
            }
            (_, None, Some(frames)) => frames.send(&frame::broadcast(self.card.mac, message)),
            (_, None, None) => Ok(()),
        };
        if let Err(error) = result {
            log::debug!("{}: asking for an address: {error}", self.name());
        }
    }

    fn receive(&mut self) {
        let Some(frames) = &mut self.frames else { return };
        let result = match frames.receive() {
            Ok(Some(bytes)) => {
                let now = Time::default().after(self.began.elapsed());
                if let (Some((_, payload)), Some(dhcp)) = (frame::parse(self.card.mac, bytes), &mut self.dhcp) {
                    dhcp.on_datagram(payload, now);
                } else if let Some(local) = &mut self.local {
                    local.on_frame(bytes, now);
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            log::debug!("{}: receiving a frame: {error}", self.name());
            self.frames = None;
            std::thread::sleep(TURN);
        }
    }

    /// A link-local address, where nobody gives another one.
    fn turn_local(&mut self, now: Time) {
        let alone = match &self.dhcp {
            Some(dhcp) => dhcp.searching_since().is_some_and(|since| now.since(since) >= LINK_LOCAL_AFTER),
            None => true,
        };
        if self.local.is_none() && alone {
            let seed = self.card.mac.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
            self.local = Some(LinkLocal::new(self.card.mac, seed, now));
        }
        let Some(local) = &mut self.local else { return };
        if let Some(probe) = local.poll_transmit(now)
            && let Some(frames) = &mut self.frames
            && let Err(error) = frames.send(&probe)
        {
            log::debug!("{}: asking who has an address: {error}", self.card.interface.name);
        }
        match local.poll_event() {
            Some(linklocal::Event::Claimed(ip)) => {
                let address = self.address(ip, linklocal::PREFIX);
                if self.take(address, "link-local") {
                    self.claimed = Some(address);
                }
            }
            Some(linklocal::Event::Lost) => {
                log::warn!("link {}: another machine has its address too", self.name());
                self.remove_claimed();
            }
            None => {}
        }
    }

    fn address(&self, ip: Ipv4Addr, prefix: u8) -> Address {
        Address { index: self.card.interface.index, ip, prefix, metric: self.card.metric }
    }

    /// Gives the card an address and says so.
    fn take(&mut self, address: Address, how: &str) -> bool {
        let Address { ip, prefix, .. } = address;
        if let Err(error) = self.netlink.add_address(address) {
            log::error!("link {}: taking {ip}/{prefix}: {error}", self.name());
            return false;
        }
        log::info!("link {} {ip}/{prefix} ({how})", self.name());
        self.shared.board.update(|status| status.links.insert(self.name().to_owned(), format!("{ip}/{prefix}")));
        true
    }

    fn fix(&mut self, fixed: &Static) {
        let address = self.address(fixed.address, fixed.prefix);
        self.take(address, "static");
        let routes: Vec<Route> = fixed.gateway.map(Route::default_via).into_iter().collect();
        self.add_routes(address, &routes);
        self.shared.take_names(self.card.is_boot, fixed.host_name.as_deref(), &fixed.dns, &[]);
    }

    fn bind(&mut self, lease: &Lease) {
        let address = self.address(lease.address, lease.prefix);
        if self.leased == Some(address) {
            log::debug!("link {}: {} was renewed by {}", self.name(), lease.address, lease.server);
            if self.routes != lease.routes {
                self.add_routes(address, &lease.routes);
                self.routes.clone_from(&lease.routes);
            }
            return;
        }
        self.remove_leased();
        // A link-local address that was claimed stays: a deployment may be using it.
        if self.claimed.is_none() {
            self.local = None;
        }
        if !self.take(address, "dhcp") {
            return;
        }
        self.leased = Some(address);
        self.set_mtu(lease.mtu);
        self.add_routes(address, &lease.routes);
        self.routes.clone_from(&lease.routes);
        self.shared.take_names(self.card.is_boot, lease.host_name.as_deref(), &lease.dns, &lease.search);
        match self.open_socket(lease.address) {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => log::warn!("link {}: a socket to renew its address: {error}", self.name()),
        }
    }

    /// Renewals are sent from here. What comes back is heard among the frames; this socket keeps the kernel from answering
    /// that nobody listens.
    fn open_socket(&self, ip: Ipv4Addr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddr::from((ip, OUR_PORT)))?;
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(self.name()))?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Sets routes, each router's own one first where it is outside of the card's network.
    fn add_routes(&mut self, address: Address, routes: &[Route]) {
        for route in in_order(routes, address.ip, address.prefix) {
            match self.netlink.add_route(address, (route.to, route.prefix), route.via) {
                Ok(()) => log::debug!("link {}: route to {route}", self.name()),
                Err(error) => log::warn!("link {}: route to {route}: {error}", self.name()),
            }
        }
    }

    fn set_mtu(&self, mtu: Option<u16>) {
        let Some(mtu) = mtu else { return };
        let path = Path::new("/sys/class/net").join(self.name()).join("mtu");
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == mtu.to_string()) {
            return;
        }
        match std::fs::write(&path, mtu.to_string()) {
            Ok(()) => log::info!("link {}: MTU {mtu}", self.name()),
            Err(error) => log::warn!("link {}: setting the MTU to {mtu}: {error}", self.name()),
        }
    }

    fn lose_lease(&mut self) {
        log::warn!("link {}: its address may not be used any longer", self.name());
        self.remove_leased();
    }

    fn remove_leased(&mut self) {
        self.socket = None;
        self.routes.clear();
        if let Some(address) = self.leased.take() {
            self.remove(address);
        }
    }

    fn remove_claimed(&mut self) {
        if let Some(address) = self.claimed.take() {
            self.remove(address);
        }
    }

    fn let_go_of_local(&mut self) {
        self.local = None;
        self.remove_claimed();
    }

    fn remove(&mut self, address: Address) {
        if let Err(error) = self.netlink.remove_address(address) {
            log::warn!("link {}: removing {}: {error}", self.name(), address.ip);
        }
        self.shared.board.update(|status| status.links.remove(self.name()));
    }
}
