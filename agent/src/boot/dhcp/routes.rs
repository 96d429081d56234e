//! Routes as a lease gives them: option 121 (RFC 3442), Microsoft's 249 of the same form, or the router of option 3.

use std::net::Ipv4Addr;

/// How many routes of a lease are kept.
const MOST: usize = 64;

/// A way to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The network; its bits behind the prefix are zero.
    pub(crate) to: Ipv4Addr,
    /// How many bits are the network. 0 is the default route.
    pub(crate) prefix: u8,
    /// The router; without one the network is on the wire itself.
    pub(crate) via: Option<Ipv4Addr>,
}

impl Route {
    /// The route to everywhere else.
    pub(crate) fn default_via(router: Ipv4Addr) -> Self {
        Self { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via: Some(router) }
    }

    /// To one machine on the wire itself.
    pub(crate) fn on_link(machine: Ipv4Addr) -> Self {
        Self { to: machine, prefix: 32, via: None }
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        network(address, self.prefix) == self.to
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.to, self.prefix)?;
        match self.via {
            Some(router) => write!(f, " through {router}"),
            None => f.write_str(" on the wire"),
        }
    }
}

/// The bits of `address` that are the network.
pub(crate) fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

/// The value of option 121 or 249: for each route its prefix, as many bytes of the network as the prefix needs, and the router.
/// `None` where it is not of that form.
pub(super) fn parse(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = value.split_first() {
        let needed = usize::from(prefix.div_ceil(8));
        if prefix > 32 || rest.len() < needed + 4 {
            return None;
        }
        let mut to = [0; 4];
        to[..needed].copy_from_slice(&rest[..needed]);
        let via = <[u8; 4]>::try_from(&rest[needed..needed + 4]).ok().map(Ipv4Addr::from)?;
        value = &rest[needed + 4..];
        if routes.len() < MOST {
            let via = (!via.is_unspecified()).then_some(via);
            routes.push(Route { to: network(to.into(), prefix), prefix, via });
        }
    }
    (!routes.is_empty()).then_some(routes)
}

/// The routes in the order in which the kernel takes them: what is on the wire first. A router that neither the own network
/// nor a route reaches gets a route of its own.
pub(crate) fn in_order(routes: &[Route], address: Ipv4Addr, prefix: u8) -> Vec<Route> {
    let (mut ordered, through): (Vec<Route>, Vec<Route>) = routes.iter().partition(|route| route.via.is_none());
    for router in through.iter().filter_map(|route| route.via) {
        let is_near = network(router, prefix) == network(address, prefix);
        if !is_near && !ordered.iter().any(|route| route.has(router)) {
            ordered.push(Route::on_link(router));
        }
    }
    ordered.extend(through);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

    #[test]
    fn classless_routes_are_read_as_rfc_3442_packs_them() {
        let value = [&[32, 10, 9, 0, 1, 0, 0, 0, 0][..], &[0, 10, 9, 0, 1], &[12, 172, 31, 10, 9, 0, 1]].concat();
        let expected = vec![
            Route::on_link(ROUTER),
            Route::default_via(ROUTER),
            // Bits behind the prefix are dropped.
            Route { to: Ipv4Addr::new(172, 16, 0, 0), prefix: 12, via: Some(ROUTER) },
        ];
        assert_eq!(parse(&value), Some(expected));
        for wrong in [&[][..], &[33, 1, 2, 3, 4, 5, 6, 7, 8], &[24, 10, 0, 0, 10, 9, 0], &[0, 10, 9, 0, 1, 8]] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[test]
    fn a_router_outside_the_own_network_gets_a_route_of_its_own_before_it_is_used() {
        let ours = Ipv4Addr::new(10, 9, 0, 77);
        let default = Route::default_via(ROUTER);
        assert_eq!(in_order(&[default], ours, 24), [default]);
        assert_eq!(in_order(&[default], ours, 32), [Route::on_link(ROUTER), default]);
        assert_eq!(in_order(&[default, Route::on_link(ROUTER)], ours, 32), [Route::on_link(ROUTER), default]);
        assert_eq!(in_order(&[default, default], ours, 31).len(), 3);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_every_router_can_be_reached(
            value in proptest::collection::vec(any::<u8>(), 0..300), ours in any::<u32>(), prefix in 0..=32_u8
        ) {
            let ours = Ipv4Addr::from_bits(ours);
            let routes = in_order(&parse(&value).unwrap_or_default(), ours, prefix);
            for (at, route) in routes.iter().enumerate() {
                prop_assert_eq!(route.to, network(route.to, route.prefix));
                if let Some(router) = route.via {
                    let near = network(router, prefix) == network(ours, prefix);
                    prop_assert!(near || routes[..at].iter().any(|other| other.via.is_none() && other.has(router)));
                }
            }
        }
    }
}
