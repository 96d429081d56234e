//! The addresses that we give out where we are the DHCP server.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Addresses from `first` to `last`, both included. `first` is never above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpRange {
    /// The lowest address.
    pub first: Ipv4Addr,
    /// The highest address.
    pub last: Ipv4Addr,
}

/// Why a range was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// It is not two addresses with a `-` between them.
    Form,
    /// The first address is above the last.
    Order,
    /// It has addresses that no machine can have.
    Unusable(Ipv4Addr),
}

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("expected two addresses such as 10.0.0.100-10.0.0.200"),
            Self::Order => f.write_str("the first address is above the last"),
            Self::Unusable(address) => write!(f, "{address} is no address for a machine"),
        }
    }
}

impl std::error::Error for BadRange {}

impl FromStr for DhcpRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (first, last) = text.split_once('-').ok_or(BadRange::Form)?;
        let parse = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| BadRange::Form);
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(BadRange::Order);
        }
        for address in [first, last] {
            if address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224 {
                return Err(BadRange::Unusable(address));
            }
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for DhcpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What gives out addresses where `deploy` boots machines: the network's own DHCP server (`proxy`), or us from a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// The net's own DHCP server.
    Proxy,
    /// We do.
    Dhcp(DhcpRange),
}

impl FromStr for BootMode {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        if text == "proxy" { Ok(Self::Proxy) } else { text.parse().map(Self::Dhcp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_addresses_in_order() {
        let range: DhcpRange = "10.0.0.100-10.0.0.200".parse().unwrap();
        assert_eq!((range.first, range.last), ([10, 0, 0, 100].into(), [10, 0, 0, 200].into()));
        assert_eq!(range.to_string(), "10.0.0.100-10.0.0.200");
        assert!("10.0.0.7-10.0.0.7".parse::<DhcpRange>().is_ok());
    }

    #[test]
    fn a_mode_is_proxy_or_a_range() {
        assert_eq!("proxy".parse(), Ok(BootMode::Proxy));
        assert!(matches!("10.0.0.1-10.0.0.2".parse(), Ok(BootMode::Dhcp(_))));
        assert_eq!("Proxy".parse::<BootMode>(), Err(BadRange::Form));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        for text in
            ["", "10.0.0.1", "10.0.0.1-", "10.0.0.1-20", "10.0.0.1,10.0.0.2", "a-b", "10.0.0.1-10.0.0.256", "::1-::2"]
        {
            assert_eq!(text.parse::<DhcpRange>(), Err(BadRange::Form), "{text}");
        }
        assert_eq!("10.0.0.9-10.0.0.8".parse::<DhcpRange>(), Err(BadRange::Order));
        for text in ["0.0.0.1-10.0.0.1", "127.0.0.1-127.0.0.9", "10.0.0.1-224.0.0.1", "10.0.0.1-255.255.255.255"] {
            assert!(matches!(text.parse::<DhcpRange>(), Err(BadRange::Unusable(_))), "{text}");
        }
    }
}
