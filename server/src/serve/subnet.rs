//! Subnets, as rules name them: `10.1.7.0/24`, `fd00:7::/64`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    first: IpAddr,
    bits: u8,
}

impl Subnet {
    /// Whether it has this address. An IPv4 address in the clothes of IPv6 is an IPv4 address.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => masked_4(address.into(), self.bits) == u32::from(first),
            (IpAddr::V6(first), IpAddr::V6(address)) => masked_6(address.into(), self.bits) == u128::from(first),
            _ => false,
        }
    }
}

fn masked_4(address: u32, bits: u8) -> u32 {
    address & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn masked_6(address: u128, bits: u8) -> u128 {
    address & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// Why a text is no subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoSubnet {
    /// It has another form.
    Form,
    /// Bits after the first `bits` are set.
    HostBits(Subnet),
}

impl fmt::Display for NoSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("expected a subnet such as 10.1.7.0/24 or fd00:7::/64"),
            Self::HostBits(meant) => write!(f, "this is an address in a subnet; the subnet is {meant}"),
        }
    }
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        let (address, bits) = text.trim().split_once('/').ok_or(NoSubnet::Form)?;
        let address: IpAddr = address.parse().map_err(|_| NoSubnet::Form)?;
        let bits: u8 = bits.parse().map_err(|_| NoSubnet::Form)?;
        let first: IpAddr = match address {
            IpAddr::V4(address) if bits <= 32 => std::net::Ipv4Addr::from(masked_4(address.into(), bits)).into(),
            IpAddr::V6(address) if bits <= 128 => std::net::Ipv6Addr::from(masked_6(address.into(), bits)).into(),
            _ => return Err(NoSubnet::Form),
        };
        let subnet = Self { first, bits };
        if first == address { Ok(subnet) } else { Err(NoSubnet::HostBits(subnet)) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_the_addresses_that_begin_with_its_bits() {
        let has = |subnet: &str, address: &str| subnet.parse::<Subnet>().unwrap().has(address.parse().unwrap());
        assert!(has("10.1.7.0/24", "10.1.7.255") && !has("10.1.7.0/24", "10.1.8.0"));
        assert!(has("10.1.7.0/24", "::ffff:10.1.7.9"));
        assert!(has("0.0.0.0/0", "255.1.2.3") && !has("0.0.0.0/0", "fd00::1"));
        assert!(has("10.1.7.3/32", "10.1.7.3") && !has("10.1.7.3/32", "10.1.7.2"));
        assert!(has("fd00:7::/64", "fd00:7::9") && !has("fd00:7::/64", "fd00:7:0:1::"));
        assert!(has("::/0", "fd00::1"));
    }

    #[test]
    fn what_is_no_subnet_is_refused_and_the_one_that_was_meant_is_named() {
        for wrong in ["", "10.1.7.0", "10.1.7.0/33", "10.1.7/24", "fd00::/129", "10.1.7.0/-1", "a/8"] {
            assert_eq!(wrong.parse::<Subnet>(), Err(NoSubnet::Form), "{wrong}");
        }
        let said = "10.1.7.5/24".parse::<Subnet>().unwrap_err().to_string();
        assert!(said.ends_with("10.1.7.0/24"), "{said}");
    }
}
