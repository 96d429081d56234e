//! The network card on which machines boot: its address and net.

use super::error::BootError;
use super::event::Mac;
use super::range::DhcpRange;
use pnet_datalink::NetworkInterface;
use std::net::{IpAddr, Ipv4Addr};

/// A card with the address that machines reach us by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: Option<Mac>,
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
}

impl Card {
    /// The card called `name`. With `range`, the address whose net the range is in, otherwise its first one.
    pub(super) fn find(name: &str, range: Option<DhcpRange>) -> Result<Self, BootError> {
        Self::among(&pnet_datalink::interfaces(), name, range)
    }

    fn among(cards: &[NetworkInterface], name: &str, range: Option<DhcpRange>) -> Result<Self, BootError> {
        let Some(card) = cards.iter().find(|card| card.name == name) else {
            let present = cards.iter().map(|card| card.name.clone()).collect();
            return Err(BootError::Interface(crate::nic::UnknownInterface { name: name.to_owned(), present }));
        };
        let addresses = card.ips.iter().filter_map(|network| match network.ip() {
            IpAddr::V4(address) => Some(Self {
                name: card.name.clone(),
                index: card.index,
                mac: card.mac.map(|mac| Mac(mac.octets())),
                address,
                prefix: network.prefix(),
            }),
            IpAddr::V6(_) => None,
        });
        let addresses: Vec<_> = addresses.collect();
        let Some(first) = addresses.first() else {
            return Err(BootError::NoAddress { interface: name.to_owned() });
        };
        let Some(range) = range else { return Ok(first.clone()) };
        let fitting = addresses.iter().find(|card| card.holds(range));
        fitting.cloned().ok_or_else(|| BootError::RangeElsewhere {
            range,
            interface: name.to_owned(),
            net: format!("{}/{}", first.network(), first.prefix),
        })
    }

    /// Whether every address of `range` is one that a machine in this card's net may have.
    fn holds(&self, range: DhcpRange) -> bool {
        let inside = |address: Ipv4Addr| address.to_bits() & self.mask().to_bits() == self.network().to_bits();
        let broadcast = Ipv4Addr::from_bits(self.network().to_bits() | !self.mask().to_bits());
        inside(range.first) && inside(range.last) && range.first != self.network() && range.last != broadcast
    }

    /// The net's mask.
    pub(super) fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// The net's address.
    pub(super) fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask().to_bits())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::boot) fn card() -> Card {
        Card {
            name: "eth1".to_owned(),
            index: 3,
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            address: [10, 0, 0, 1].into(),
            prefix: 24,
        }
    }

    fn cards(ips: &[&str]) -> Vec<NetworkInterface> {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        vec![NetworkInterface {
            name: "eth1".to_owned(),
            description: String::new(),
            index: 3,
            mac: Some(pnet_datalink::MacAddr::new(2, 0, 0, 0, 0, 1)),
            ips,
            flags: 0,
        }]
    }

    #[test]
    fn the_first_ipv4_address_counts() {
        let found = Card::among(&cards(&["fd00::1/64", "10.0.0.1/24", "10.1.0.1/16"]), "eth1", None).unwrap();
        assert_eq!(found, card());
        assert_eq!((found.mask(), found.network()), ([255, 255, 255, 0].into(), [10, 0, 0, 0].into()));
    }

    #[test]
    fn with_a_range_its_net_counts() {
        let range = "10.1.2.3-10.1.2.9".parse().ok();
        let found = Card::among(&cards(&["10.0.0.1/24", "10.1.0.1/16"]), "eth1", range).unwrap();
        assert_eq!(found.address, Ipv4Addr::from([10, 1, 0, 1]));
    }

    #[test]
    fn a_range_that_is_not_in_the_net_is_refused() {
        for text in ["10.1.0.5-10.1.0.9", "10.0.0.5-10.0.1.9", "10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.255"] {
            let error = Card::among(&cards(&["10.0.0.1/24"]), "eth1", text.parse().ok()).unwrap_err();
            assert_eq!(error.to_string(), format!("the range {text} does not fit the net of eth1, 10.0.0.0/24"));
        }
    }

    #[test]
    fn a_card_that_is_missing_or_has_no_address_is_named() {
        let error = Card::among(&cards(&[]), "eth7", None).unwrap_err();
        assert_eq!(error.to_string(), "no network interface \"eth7\"; there are: eth1");
        let error = Card::among(&cards(&["fe80::1/64"]), "eth1", None).unwrap_err();
        assert!(error.to_string().starts_with("eth1 has no IPv4 address"), "{error}");
    }

    #[test]
    fn odd_prefixes_make_no_trouble() {
        let with = |prefix| Card { prefix, ..card() };
        assert_eq!(with(0).mask(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(with(32).mask(), Ipv4Addr::BROADCAST);
    }
}
