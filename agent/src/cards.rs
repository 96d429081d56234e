//! The network cards of this node, as the server is told about them and as discovery uses them.

use crate::error::AgentError;
use pnet_datalink::NetworkInterface;
use slidecast_proto::control::Card;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The cards that may be used: every one that is no loopback, or only those named.
///
/// # Errors
/// [`AgentError::NoSuchInterface`] for a name that no card has.
pub(crate) fn interfaces(only: &[String]) -> Result<Vec<NetworkInterface>, AgentError> {
    let all = pnet_datalink::interfaces();
    if let Some(missing) = only.iter().find(|name| all.iter().all(|card| card.name != **name)) {
        return Err(AgentError::NoSuchInterface { name: missing.clone() });
    }
    let wanted =
        |card: &NetworkInterface| if only.is_empty() { !card.is_loopback() } else { only.contains(&card.name) };
    Ok(all.into_iter().filter(wanted).collect())
}

/// These cards, as the server is told about them. `mbits` is said of all of them in place of what their drivers say.
#[must_use]
pub(crate) fn inventory(cards: &[NetworkInterface], mbits: Option<u32>) -> Vec<Card> {
    cards
        .iter()
        .map(|card| Card {
            name: card.name.clone(),
            mac: card.mac.map_or([0; 6], |mac| [mac.0, mac.1, mac.2, mac.3, mac.4, mac.5]),
            addresses: card.ips.iter().map(|network| network.ip()).collect(),
            mbits: mbits.unwrap_or_else(|| speed(Path::new("/sys/class/net"), &card.name)),
            up: card.is_up() && card.is_running(),
        })
        .collect()
}

/// What the driver says in `/sys/class/net/NAME/speed`, in Mbit/s; 0 where it says nothing (link down, wireless, bridges).
fn speed(folder: &Path, name: &str) -> u32 {
    let text = std::fs::read_to_string(folder.join(name).join("speed")).unwrap_or_default();
    text.trim().parse::<i64>().ok().and_then(|mbits| u32::try_from(mbits).ok()).unwrap_or(0)
}

/// Where to shout on this card: everybody on the wire, and everybody in its IPv4 networks. Networks of one or two machines
/// have no broadcast of their own (RFC 3021).
#[must_use]
pub(crate) fn broadcasts(card: &NetworkInterface) -> Vec<Ipv4Addr> {
    let networks = card.ips.iter().filter_map(|network| match (network.ip(), network.broadcast()) {
        (IpAddr::V4(_), IpAddr::V4(broadcast)) if network.prefix() < 31 => Some(broadcast),
        _ => None,
    });
    let mut addresses: Vec<Ipv4Addr> = networks.collect();
    if card.ips.iter().any(|network| network.is_ipv4()) && !card.is_loopback() {
        addresses.insert(0, Ipv4Addr::BROADCAST);
    }
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_used_only_when_it_is_named() {
        assert!(interfaces(&[]).unwrap().iter().all(|card| !card.is_loopback()));
        let named = interfaces(&["lo".to_owned()]).unwrap();
        assert_eq!(named.len(), 1);
        assert!(broadcasts(&named[0]).iter().all(Ipv4Addr::is_loopback));
    }

    #[test]
    fn a_card_whose_network_is_one_or_two_machines_shouts_to_everybody_on_the_wire() {
        let card = |network: &str| NetworkInterface {
            name: "e".to_owned(),
            description: String::new(),
            index: 2,
            mac: None,
            ips: vec![network.parse().unwrap()],
            flags: 0,
        };
        for network in ["10.0.0.9/32", "10.0.0.9/31"] {
            assert_eq!(broadcasts(&card(network)), [Ipv4Addr::BROADCAST]);
        }
        assert_eq!(broadcasts(&card("10.0.0.9/24")), [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)]);
        assert!(broadcasts(&card("fe80::1/64")).is_empty());
    }

    #[test]
    fn a_name_no_card_has_is_refused() {
        assert!(interfaces(&["no-such-card".to_owned()]).is_err());
    }

    #[test]
    fn a_driver_that_tells_no_speed_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("down", "-1\n"), ("fast", "10000\n"), ("odd", "fast\n")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("speed"), text).unwrap();
        }
        assert_eq!(speed(folder.path(), "down"), 0);
        assert_eq!(speed(folder.path(), "odd"), 0);
        assert_eq!(speed(folder.path(), "fast"), 10_000);
        assert_eq!(speed(folder.path(), "none"), 0);
    }
}
