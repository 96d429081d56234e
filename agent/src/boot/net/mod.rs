//! The network: every card is switched on as soon as it is there, and looked after by a thread of its own.

mod card;
mod linklocal;

use super::options::{Ip, Options};
use crate::status::Board;
use crate::sys::rtnetlink::RtNetlink;
use card::Card;
use pnet_datalink::{MacAddr, NetworkInterface};
use slidecast_proto::hex;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often new cards are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How many cards are used.
const CARDS: usize = 32;
/// How long the card of `BOOTIF=` may take to turn up before that is said.
const BOOT_CARD_LATEST: Duration = Duration::from_secs(15);
/// How much the card that the machine was booted from is preferred over the others (a smaller metric wins).
const METRIC_BOOT: u32 = 10;
const METRIC_OTHERS: u32 = 100;

/// What all cards share.
#[derive(Debug)]
struct Shared {
    ip: Ip,
    boot_card: Option<[u8; 6]>,
    board: Board,
    names: Mutex<Names>,
}

/// The card that set the settings of which a machine has one each; the card that it was booted from may overrule it.
#[derive(Debug, Default)]
struct Names {
    host: Option<bool>,
    resolver: Option<bool>,
    /// The card that has the static address.
    fixed: Option<u32>,
}

/// Starts the thread that looks for cards.
///
/// # Errors
/// There is no room for a thread.
pub(super) fn start(options: &Options, board: &Board) -> io::Result<()> {
    let Options { ip, boot_card, .. } = options;
    let shared =
        Shared { ip: ip.clone(), boot_card: *boot_card, board: board.clone(), names: Mutex::new(Names::default()) };
    std::thread::Builder::new().name("slidecast-net".to_owned()).spawn(move || run(&Arc::new(shared)))?;
    Ok(())
}

fn run(shared: &Arc<Shared>) {
    let mut netlink = match RtNetlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return log::error!("opening the kernel's tables of network cards: {error}"),
    };
    let began = Instant::now();
    let mut threads: BTreeMap<u32, JoinHandle<()>> = BTreeMap::new();
    let mut missed = false;
    loop {
        threads.retain(|_, thread| !thread.is_finished());
        for interface in in_order(pnet_datalink::interfaces(), shared.boot_card) {
            if threads.contains_key(&interface.index) || threads.len() >= CARDS {
                continue;
            }
            if let Err(error) = netlink.set_up(interface.index) {
                log::debug!("switching {} on: {error}", interface.name);
                continue;
            }
            if let Some(thread) = spawn(&interface, shared) {
                threads.insert(interface.index, thread);
            }
        }
        if let Some(mac) = shared.boot_card
            && !missed
            && began.elapsed() >= BOOT_CARD_LATEST
        {
            missed = true;
            if !pnet_datalink::interfaces().iter().any(|card| card.mac.map(octets) == Some(mac)) {
                log::warn!(
                    "BOOTIF={}: this machine has no such network card (or no driver for it)",
                    MacAddr::from(mac)
                );
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Ethernet cards (and the loopback), the one that the machine was booted from first.
fn in_order(mut cards: Vec<NetworkInterface>, boot_card: Option<[u8; 6]>) -> Vec<NetworkInterface> {
    cards.retain(|card| card.is_loopback() || is_ethernet(Path::new("/sys/class/net"), card));
    cards.sort_by_key(|card| (card.mac.map(octets) != boot_card || boot_card.is_none(), card.index));
    cards
}

/// A card of the machine itself, no bridge or tunnel.
fn is_ethernet(folder: &Path, card: &NetworkInterface) -> bool {
    let folder = folder.join(&card.name);
    let kind = std::fs::read_to_string(folder.join("type")).unwrap_or_default();
    kind.trim() == "1" && folder.join("device").exists() && card.mac.is_some_and(|mac| mac != MacAddr::zero())
}

fn octets(mac: MacAddr) -> [u8; 6] {
    [mac.0, mac.1, mac.2, mac.3, mac.4, mac.5]
}

fn spawn(interface: &NetworkInterface, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let mac = interface.mac.map(octets).unwrap_or_default();
    let is_boot = shared.boot_card == Some(mac);
    let metric = if is_boot { METRIC_BOOT } else { METRIC_OTHERS.saturating_add(interface.index) };
    if !interface.is_loopback() {
        name_host(shared, &hex::text(&mac));
        log::info!(
            "network card {} ({}){}",
            interface.name,
            MacAddr::from(mac),
            if is_boot { ", booted from" } else { "" }
        );
    }
    let card = Card { interface: interface.clone(), mac, is_boot, metric };
    let (name, shared) = (format!("slidecast-{}", interface.name), Arc::clone(shared));
    // The loopback needs to be on, and nothing more; its thread keeps its place.
    let body = move || if card.interface.is_loopback() { std::thread::park() } else { card::run(&card, &shared) };
    std::thread::Builder::new().name(name).spawn(body).map_err(|error| log::error!("starting a thread: {error}")).ok()
}

/// Until somebody gives the machine a name, the first card does.
fn name_host(shared: &Shared, digits: &str) {
    let mut names = shared.names.lock().unwrap_or_else(PoisonError::into_inner);
    if names.host.is_none() && nix::unistd::sethostname(format!("node-{digits}")).is_ok() {
        names.host = Some(false);
    }
}

impl Shared {
    /// Takes what came with an address: the machine's name and the servers of names.
    fn take_names(&self, is_boot: bool, host: Option<&str>, dns: &[Ipv4Addr], search: &[String]) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = host
            && (is_boot || names.host != Some(true))
        {
            match nix::unistd::sethostname(host) {
                Ok(()) => names.host = Some(true),
                Err(error) => log::warn!("setting the host name to {host}: {error}"),
            }
        }
        if !dns.is_empty() && (is_boot || names.resolver.is_none()) {
            names.resolver = Some(is_boot);
            let _ = std::fs::create_dir_all("/etc");
            if let Err(error) = std::fs::write("/etc/resolv.conf", resolv_conf(dns, search)) {
                log::warn!("writing /etc/resolv.conf: {error}");
            }
        }
    }

    /// Whether this card is the one that the address of `ip=` is for. Asked once it has a cable.
    fn is_fixed(&self, card: &Card) -> bool {
        let Ip::Static(fixed) = &self.ip else { return false };
        match (&fixed.card, self.boot_card) {
            (Some(name), _) => *name == card.interface.name,
            (None, Some(_)) => card.is_boot,
            (None, None) => {
                let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                *names.fixed.get_or_insert(card.interface.index) == card.interface.index
            }
        }
    }
}

/// What tells the C library where names are looked up. It waits for an answer two seconds twice: a person is waiting.
fn resolv_conf(dns: &[Ipv4Addr], search: &[String]) -> String {
    let mut text: String = dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text + "options timeout:2 attempts:2\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_looked_up_in_the_domains_of_the_lease() {
        let text = resolv_conf(&[[10, 0, 0, 1].into(), [10, 0, 0, 2].into()], &["a.test".to_owned(), "b".to_owned()]);
        assert_eq!(text, "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.test b\noptions timeout:2 attempts:2\n");
        assert!(!resolv_conf(&[[10, 0, 0, 1].into()], &[]).contains("search"));
    }

    fn card(name: &str, index: u32, mac: [u8; 6]) -> NetworkInterface {
        NetworkInterface {
            name: name.to_owned(),
            description: String::new(),
            index,
            mac: Some(mac.into()),
            ips: Vec::new(),
            flags: 0,
        }
    }

    #[test]
    fn only_ethernet_cards_of_the_machine_are_used() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("eth0/type", "1\n");
        write("eth0/device/vendor", "x");
        write("br0/type", "1\n");
        write("ib0/type", "32\n");
        write("ib0/device/vendor", "x");
        let fits = |name: &str| is_ethernet(folder.path(), &card(name, 1, [2; 6]));
        assert!(fits("eth0") && !fits("br0") && !fits("ib0") && !fits("gone"));
        assert!(!is_ethernet(folder.path(), &card("eth0", 1, [0; 6])));
    }

    #[test]
    fn a_static_address_without_a_card_goes_to_the_one_booted_from_or_the_first_with_a_cable() {
        let Ip::Static(fixed) = Options::parse(b"ip=10.0.0.9").ip else { panic!() };
        let shared = |boot_card| Shared {
            ip: Ip::Static(fixed.clone()),
            boot_card,
            board: Board::default(),
            names: Mutex::new(Names::default()),
        };
        let of = |index: u32, is_boot| Card { interface: card("e", index, [2; 6]), mac: [2; 6], is_boot, metric: 1 };
        let booted = shared(Some([3; 6]));
        assert!(!booted.is_fixed(&of(1, false)) && booted.is_fixed(&of(2, true)));
        let first = shared(None);
        assert!(first.is_fixed(&of(5, false)) && !first.is_fixed(&of(4, false)) && first.is_fixed(&of(5, false)));
    }
}
