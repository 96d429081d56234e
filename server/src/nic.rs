//! The server's network cards: which there are, how fast they are, and which of them a connection came in on.

use pnet_datalink::NetworkInterface;
use slidecast_proto::plan::{CardId, PlanCard};

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// One network card of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its name, such as `eth0`.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its speed in Mbit/s, 0 if the kernel does not know it (many virtual cards).
    pub mbits: u32,
}

/// The cards that a deployment uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nics {
    cards: Vec<Nic>,
}

/// A card was asked for that this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownInterface {
    /// The name asked for.
    pub name: String,
    /// What there is.
    pub present: Vec<String>,
}

impl fmt::Display for UnknownInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no network interface {:?}; there are: {}", self.name, self.present.join(", "))
    }
}

impl Error for UnknownInterface {}

/// A speed given on the command line, for a card whose own claim is unknown or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardSpeed {
    /// The card's name.
    pub name: String,
    /// Its speed in Mbit/s.
    pub mbits: u32,
}

impl Nics {
    /// The cards of this machine. With `only`, those and no others; `speeds` replace what the kernel claims.
    ///
    /// # Errors
    /// A name in `only` or in `speeds` that no card has.
    pub fn of_this_machine(only: &[String], speeds: &[CardSpeed]) -> Result<Self, UnknownInterface> {
        let cards = pnet_datalink::interfaces().into_iter().map(|card| from_kernel(card, Path::new("/sys"))).collect();
        Self { cards }.narrowed(only, speeds)
    }

    fn narrowed(mut self, only: &[String], speeds: &[CardSpeed]) -> Result<Self, UnknownInterface> {
        for name in only.iter().chain(speeds.iter().map(|speed| &speed.name)) {
            if !self.cards.iter().any(|card| card.name == *name) {
                let present = self.cards.iter().map(|card| card.name.clone()).collect();
                return Err(UnknownInterface { name: name.clone(), present });
            }
        }
        self.cards.retain(|card| only.is_empty() || only.contains(&card.name));
        for card in &mut self.cards {
            if let Some(speed) = speeds.iter().rev().find(|speed| speed.name == card.name) {
                card.mbits = speed.mbits;
            }
        }
        Ok(self)
    }

    /// The card that has `local`, the server's end of a connection. None: the connection came in on a card that this
    /// deployment does not use.
    #[must_use]
    pub fn with_address(&self, local: IpAddr) -> Option<&Nic> {
        let local = local.to_canonical();
        let owner = self.cards.iter().find(|card| card.addresses.contains(&local));
        // All of 127.0.0.0/8 is the loopback card's, though it lists one address of it.
        owner.or_else(|| {
            let loopback = |card: &&Nic| card.addresses.iter().any(IpAddr::is_loopback);
            self.cards.iter().find(loopback).filter(|_| local.is_loopback())
        })
    }

    /// The card with the kernel's number `index`.
    #[must_use]
    pub fn with_index(&self, index: u32) -> Option<&Nic> {
        self.cards.iter().find(|card| card.index == index)
    }

    /// The kernel's numbers of the cards.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.cards.iter().map(|card| card.index)
    }

    /// The cards, as planning wants them.
    #[must_use]
    pub fn plan_cards(&self) -> Vec<PlanCard> {
        self.cards.iter().map(|card| PlanCard { card: CardId(card.name.clone()), mbits: card.mbits }).collect()
    }
}

fn from_kernel(card: NetworkInterface, sys: &Path) -> Nic {
    // The kernel says -1, or fails to answer, where it does not know.
    let speed = std::fs::read_to_string(sys.join("class/net").join(&card.name).join("speed"));
    let mbits = speed.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let addresses = card.ips.iter().map(|network| network.ip()).collect();
    Nic { name: card.name, index: card.index, addresses, mbits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nics() -> Nics {
        let nic = |name: &str, index, address: &str, mbits| Nic {
            name: name.to_owned(),
            index,
            addresses: vec![address.parse().unwrap()],
            mbits,
        };
        Nics {
            cards: vec![
                nic("lo", 1, "127.0.0.1", 0),
                nic("eth0", 2, "10.0.0.1", 1000),
                nic("eth1", 3, "10.1.0.1", 10_000),
            ],
        }
    }

    #[test]
    fn a_connection_belongs_to_the_card_that_has_its_local_address() {
        let nics = nics();
        let name = |address: &str| nics.with_address(address.parse().unwrap()).map(|card| card.name.clone());
        assert_eq!(name("10.1.0.1").as_deref(), Some("eth1"));
        assert_eq!(name("::ffff:10.0.0.1").as_deref(), Some("eth0"));
        assert_eq!(name("127.0.0.9").as_deref(), Some("lo"));
        assert_eq!(name("10.2.0.1"), None);
    }

    #[test]
    fn only_the_cards_asked_for_are_used() {
        let nics = nics().narrowed(&["eth1".to_owned()], &[]).unwrap();
        assert_eq!(nics.plan_cards().len(), 1);
        assert_eq!(nics.with_address("10.0.0.1".parse().unwrap()), None);
        assert_eq!(nics.with_index(2), None);
        assert!(nics.with_index(3).is_some());
    }

    #[test]
    fn an_unknown_interface_is_named_with_what_there_is() {
        let error = nics().narrowed(&["eth7".to_owned()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "no network interface \"eth7\"; there are: lo, eth0, eth1");
        let speed = CardSpeed { name: "eth8".to_owned(), mbits: 1 };
        assert_eq!(nics().narrowed(&[], &[speed]).unwrap_err().name, "eth8");
    }

    #[test]
    fn a_given_speed_replaces_what_the_kernel_claims() {
        let speed = CardSpeed { name: "eth0".to_owned(), mbits: 100 };
        let nics = nics().narrowed(&[], &[speed]).unwrap();
        assert_eq!(nics.with_index(2).unwrap().mbits, 100);
        assert_eq!(nics.with_index(3).unwrap().mbits, 10_000);
    }

    #[test]
    fn this_machine_has_a_loopback_card() {
        let nics = Nics::of_this_machine(&[], &[]).unwrap();
        assert!(nics.with_address(IpAddr::from([127, 0, 0, 1])).is_some());
    }
}
