//! The bytes of DHCP messages (RFC 2131, options of RFC 2132).

use super::domains;
use super::routes::{self, Route};
use nom::bytes::complete::{tag, take};
use nom::combinator::verify;
use nom::number::complete::{be_u8, be_u32};
use nom::{IResult, Parser};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The least a request has: older relays drop what is shorter.
const MIN_REQUEST: usize = 300;
/// The shortest lease that is believed.
const MIN_LEASE: Duration = Duration::from_secs(30);
/// The smallest packets that every network carries (RFC 791): a smaller MTU is not believed.
const MIN_MTU: u16 = 576;
/// How many servers of names, or of gateways, are kept.
const SERVERS: usize = 3;

mod option {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const MAX_SIZE: u8 = 57;
    pub(super) const T1: u8 = 58;
    pub(super) const T2: u8 = 59;
    pub(super) const VENDOR: u8 = 60;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const MS_ROUTES: u8 = 249;
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// DHCPDISCOVER: look for servers.
    Discover,
    /// DHCPREQUEST of what was offered.
    Select { address: Ipv4Addr, server: Ipv4Addr },
    /// DHCPREQUEST to keep what there is.
    Keep { address: Ipv4Addr },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) ask: Ask,
    pub(super) xid: u32,
    pub(super) mac: [u8; 6],
    /// For how many seconds this is being tried.
    pub(super) seconds: u16,
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let ours = match self.ask {
            Ask::Keep { address } => address,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        // BOOTREQUEST, Ethernet, six bytes of hardware address, no hops.
        let mut out = vec![1, 1, 6, 0];
        out.extend(self.xid.to_be_bytes());
        out.extend(self.seconds.to_be_bytes());
        // No broadcast flag: we see what is sent to our hardware address before we have an address.
        out.extend([0; 2]);
        out.extend(ours.octets());
        out.extend([0; 12]);
        out.extend(self.mac);
        out.extend([0; 10 + 64 + 128]);
        out.extend(COOKIE);
        let kind = if self.ask == Ask::Discover { 1 } else { 3 };
        put(&mut out, option::KIND, &[kind]);
        let [a, b, c, d, e, f] = self.mac;
        // The same name that boot firmware uses, so that the address stays the same.
        put(&mut out, option::CLIENT, &[1, a, b, c, d, e, f]);
        put(&mut out, option::MAX_SIZE, &1472_u16.to_be_bytes());
        put(&mut out, option::VENDOR, b"slidecast");
        if let Ask::Select { address, server } = self.ask {
            put(&mut out, option::REQUESTED, &address.octets());
            put(&mut out, option::SERVER, &server.octets());
        }
        use option::{DNS, DOMAIN, HOST_NAME, LEASE, MASK, MS_ROUTES, MTU, ROUTER, ROUTES, SEARCH, T1, T2};
        // Routes stand before the router (RFC 3442): a server that has room for one of them gives the routes.
        let wanted = [MASK, ROUTES, MS_ROUTES, ROUTER, DNS, HOST_NAME, DOMAIN, SEARCH, MTU, LEASE, T1, T2];
        put(&mut out, option::PARAMETERS, &wanted);
        out.push(255);
        out.resize(out.len().max(MIN_REQUEST), 0);
        out
    }
}

fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    out.push(code);
    out.push(u8::try_from(value.len()).expect("the options made here are short"));
    out.extend(value);
}

/// What a server's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Offer,
    Ack,
    Nak,
}

/// What a server gives: an address, how long it may be used, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    /// How many bits of it are the network.
    pub(crate) prefix: u8,
    /// Routes to other networks.
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Vec<Ipv4Addr>,
    /// The domains in which short names are looked up.
    pub(crate) search: Vec<String>,
    /// The largest packet, in bytes, where that is said.
    pub(crate) mtu: Option<u16>,
    /// What the machine is called.
    pub(crate) host_name: Option<String>,
    /// The server that gave it.
    pub(crate) server: Ipv4Addr,
    /// How long it may be used; `None` for ever.
    pub(crate) time: Option<Duration>,
    /// When the server is asked to prolong it, and when any server is.
    pub(crate) renew: (Duration, Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    pub(super) mac: [u8; 6],
    pub(super) server: Option<Ipv4Addr>,
    pub(super) lease: Option<Lease>,
}

impl Reply {
    /// Reads a message; `None` for whatever is no reply of a DHCP server.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (_, (fixed, options)) = reply(bytes).ok()?;
        let kind = match options.get(&option::KIND)?[..] {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        let server = address(&options, option::SERVER);
        let lease = server.and_then(|server| lease(fixed.yours, server, &options));
        Some(Self { kind, xid: fixed.xid, mac: fixed.mac, server, lease })
    }
}

struct Fixed {
    xid: u32,
    yours: Ipv4Addr,
    mac: [u8; 6],
}

type Options = BTreeMap<u8, Vec<u8>>;

fn reply(input: &[u8]) -> IResult<&[u8], (Fixed, Options)> {
    // BOOTREPLY, Ethernet, six bytes of hardware address.
    let (input, _) = tag(&[2, 1, 6][..]).parse(input)?;
    let (input, (_hops, xid, _secs_flags, _ciaddr, yours, _others)) =
        (be_u8, be_u32, be_u32, be_u32, be_u32, take(8_usize)).parse(input)?;
    let (input, (mac, _padding, name, file)) =
        (take(6_usize), take(10_usize), take(64_usize), take(128_usize)).parse(input)?;
    let (input, _) = tag(&COOKIE[..]).parse(input)?;
    let mut all = Options::new();
    let (rest, ()) = options(&mut all).parse(input)?;
    // The fields for names may hold further options (RFC 2131, section 4.1: file before sname).
    let overload = all.get(&option::OVERLOAD).and_then(|value| value.first().copied()).unwrap_or(0);
    for (flag, field) in [(1, file), (2, name)] {
        if overload & flag != 0 {
            let _ = options(&mut all).parse(field)?;
        }
    }
    let mac = mac.try_into().expect("six were taken");
    Ok((rest, (Fixed { xid, yours: Ipv4Addr::from_bits(yours), mac }, all)))
}

/// Options up to their end mark or the end of the field. What comes more than once is one value (RFC 3396).
fn options<'a>(all: &mut Options) -> impl Parser<&'a [u8], Output = (), Error = nom::error::Error<&'a [u8]>> {
    move |mut input: &'a [u8]| {
        loop {
            let Some((&code, rest)) = input.split_first() else { return Ok((input, ())) };
            match code {
                0 => input = rest,
                255 => return Ok((rest, ())),
                _ => {
                    let (rest, len) = be_u8(rest)?;
                    let (rest, value) = take(len).parse(rest)?;
                    all.entry(code).or_default().extend(value);
                    input = rest;
                }
            }
        }
    }
}

fn lease(address: Ipv4Addr, server: Ipv4Addr, options: &Options) -> Option<Lease> {
    if !is_host(address) {
        return None;
    }
    let mask = word(options, option::MASK);
    let prefix = match mask {
        // Ones, then zeros.
        Some(mask) if mask != 0 && mask.leading_ones() + mask.trailing_zeros() == 32 => mask.leading_ones(),
        _ => default_prefix(address).into(),
    };
    let seconds = word(options, option::LEASE).unwrap_or(u32::MAX);
    let time = (seconds != u32::MAX).then(|| Duration::from_secs(seconds.into()).max(MIN_LEASE));
    let whole = time.unwrap_or(Duration::from_secs(u32::MAX.into()));
    let said = |code| word(options, code).map(|seconds| Duration::from_secs(seconds.into()));
    let renew = match (said(option::T1), said(option::T2)) {
        (Some(t1), Some(t2)) if !t1.is_zero() && t1 < t2 && t2 < whole => (t1, t2),
        _ => (whole / 2, whole / 8 * 7),
    };
    Some(Lease {
        address,
        prefix: u8::try_from(prefix).ok()?,
        routes: routes(options),
        dns: addresses(options, option::DNS).into_iter().filter(|server| is_host(*server)).collect(),
        search: search(options),
        mtu: mtu(options),
        host_name: options.get(&option::HOST_NAME).and_then(|name| host_name(name)),
        server,
        time,
        renew,
    })
}

/// Classless routes where there are any, and then nothing else (RFC 3442); else the first router.
fn routes(options: &Options) -> Vec<Route> {
    let classless = [option::ROUTES, option::MS_ROUTES].iter().find_map(|code| routes::parse(options.get(code)?));
    if let Some(mut routes) = classless {
        routes.retain(|route| route.via.is_none_or(is_host));
        return routes;
    }
    let router = addresses(options, option::ROUTER).into_iter().find(|router| is_host(*router));
    router.map(Route::default_via).into_iter().collect()
}

fn search(options: &Options) -> Vec<String> {
    let list = options.get(&option::SEARCH).map(|value| domains::search_list(value)).unwrap_or_default();
    if list.is_empty() {
        options.get(&option::DOMAIN).map(|value| domains::domain(value)).unwrap_or_default()
    } else {
        list
    }
}

fn mtu(options: &Options) -> Option<u16> {
    let value = options.get(&option::MTU)?.as_slice().try_into().ok()?;
    Some(u16::from_be_bytes(value)).filter(|mtu| *mtu >= MIN_MTU)
}

/// An address that a machine can have.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
        && address.octets()[0] != 0
}

/// What the network part of an address was before there were masks (RFC 791).
pub(crate) fn default_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

fn word(options: &Options, code: u8) -> Option<u32> {
    let value = options.get(&code)?;
    let (_, word) = verify(be_u32::<_, nom::error::Error<&[u8]>>, |_| value.len() == 4).parse(value).ok()?;
    Some(word)
}

fn address(options: &Options, code: u8) -> Option<Ipv4Addr> {
    word(options, code).map(Ipv4Addr::from_bits).filter(|address| is_host(*address))
}

fn addresses(options: &Options, code: u8) -> Vec<Ipv4Addr> {
    let value = options.get(&code).map(Vec::as_slice).unwrap_or_default();
    value.as_chunks::<4>().0.iter().take(SERVERS).map(|octets| Ipv4Addr::from(*octets)).collect()
}

/// A host name as it may be set: one label or more of letters, digits and hyphens.
fn host_name(value: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.len() <= 64 && name.chars().all(fine)).then(|| name.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::boot::dhcp) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    /// A reply as a server would send it.
    pub(in crate::boot::dhcp) fn reply_bytes(kind: u8, xid: u32, yours: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![2, 1, 6, 0];
        out.extend(xid.to_be_bytes());
        out.extend([0; 8]);
        out.extend(yours);
        out.extend([0; 8]);
        out.extend(MAC);
        out.extend([0; 10 + 64 + 128]);
        out.extend(COOKIE);
        put(&mut out, option::KIND, &[kind]);
        options.iter().for_each(|(code, value)| put(&mut out, *code, value));
        out.push(255);
        out
    }

    #[test]
    fn a_lease_is_read_with_what_goes_with_it() {
        let bytes = reply_bytes(
            5,
            7,
            [10, 0, 0, 9],
            &[
                (1, &[255, 255, 252, 0]),
                (3, &[10, 0, 0, 1]),
                (6, &[10, 0, 0, 1, 10, 0, 0, 2]),
                (12, b"node-9"),
                (51, &600_u32.to_be_bytes()),
                (54, &[10, 0, 0, 1]),
            ],
        );
        let reply = Reply::parse(&bytes).unwrap();
        let lease = reply.lease.unwrap();
        assert_eq!((reply.kind, reply.xid, reply.mac), (Kind::Ack, 7, MAC));
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 0, 9), 22));
        assert_eq!(lease.routes, [Route::default_via(Ipv4Addr::new(10, 0, 0, 1))]);
        assert_eq!((lease.dns.len(), lease.host_name.as_deref()), (2, Some("node-9")));
        assert_eq!(lease.time, Some(Duration::from_secs(600)));
        assert_eq!(lease.renew, (Duration::from_secs(300), Duration::from_secs(525)));
    }

    #[test]
    fn options_may_go_on_in_the_fields_for_names() {
        let mut bytes = reply_bytes(2, 7, [10, 0, 0, 9], &[(52, &[3])]);
        bytes[108..115].copy_from_slice(&[54, 4, 10, 0, 0, 1, 255]);
        bytes[44..51].copy_from_slice(&[1, 4, 255, 255, 255, 0, 255]);
        let lease = Reply::parse(&bytes).unwrap().lease.unwrap();
        assert_eq!((lease.server, lease.prefix), (Ipv4Addr::new(10, 0, 0, 1), 24));
    }

    #[test]
    fn odd_values_have_sane_meanings() {
        let server: (u8, &[u8]) = (54, &[10, 0, 0, 1]);
        let lease = |options: &[(u8, &[u8])]| {
            let options: Vec<_> = options.iter().copied().chain([server]).collect();
            Reply::parse(&reply_bytes(5, 7, [10, 0, 0, 9], &options)).unwrap().lease.unwrap()
        };
        assert_eq!(lease(&[(1, &[255, 0, 255, 0])]).prefix, 8, "no mask has holes");
        assert_eq!(lease(&[(1, &[0; 4])]).prefix, 8);
        assert_eq!(lease(&[(51, &[0; 4])]).time, Some(MIN_LEASE));
        assert_eq!(lease(&[(51, &[255; 4])]).time, None);
        assert_eq!(lease(&[(12, b"bad name")]).host_name, None);
        assert_eq!(lease(&[(12, b"a\x1b[2J")]).host_name, None);
        assert_eq!(lease(&[(3, &[255; 4])]).routes, []);
        assert_eq!((lease(&[(26, &[0, 68])]).mtu, lease(&[(26, &[5, 120])]).mtu), (None, Some(1400)));
        assert_eq!(lease(&[(6, &[0, 0, 0, 0, 10, 0, 0, 3])]).dns, [Ipv4Addr::new(10, 0, 0, 3)]);
        let swapped: [(u8, &[u8]); 3] =
            [(51, &100_u32.to_be_bytes()), (58, &90_u32.to_be_bytes()), (59, &80_u32.to_be_bytes())];
        assert_eq!(lease(&swapped).renew.0, Duration::from_secs(50));
        for nobody in [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]] {
            assert_eq!(Reply::parse(&reply_bytes(5, 7, nobody, &[server])).unwrap().lease, None);
        }
    }

    #[test]
    fn classless_routes_go_before_microsofts_and_those_before_the_router() {
        let [first, second, third] = [1, 2, 3].map(|last| Ipv4Addr::new(10, 9, 0, last));
        let all: [(u8, &[u8]); 4] =
            [(54, &[10, 0, 0, 1]), (3, &[10, 9, 0, 3]), (249, &[0, 10, 9, 0, 2]), (121, &[0, 10, 9, 0, 1])];
        let routes = |options: &[(u8, &[u8])]| {
            Reply::parse(&reply_bytes(5, 7, [10, 0, 0, 9], options)).unwrap().lease.unwrap().routes
        };
        assert_eq!(routes(&all), [Route::default_via(first)]);
        assert_eq!(routes(&all[..3]), [Route::default_via(second)]);
        assert_eq!(routes(&all[..2]), [Route::default_via(third)]);
        // What is not of that form counts as if it were not there.
        assert_eq!(routes(&[all[0], all[1], (121, &[33, 1])]), [Route::default_via(third)]);
        // Alone on its net, and with no way out of it.
        assert_eq!(routes(&[all[0], all[1], (121, &[32, 10, 9, 0, 1, 0, 0, 0, 0])]), [Route::on_link(first)]);
    }

    #[test]
    fn masks_of_31_and_32_bits_are_what_they_are() {
        for (mask, prefix) in [([255, 255, 255, 254], 31), ([255; 4], 32)] {
            let bytes = reply_bytes(5, 7, [10, 0, 0, 9], &[(54, &[10, 0, 0, 1]), (1, &mask)]);
            assert_eq!(Reply::parse(&bytes).unwrap().lease.unwrap().prefix, prefix);
        }
    }

    #[test]
    fn short_names_are_looked_up_in_the_search_list_or_else_in_the_domain() {
        let of = |options: &[(u8, &[u8])]| {
            let options: Vec<_> = options.iter().copied().chain([(54, &[10, 0, 0, 1][..])]).collect();
            Reply::parse(&reply_bytes(5, 7, [10, 0, 0, 9], &options)).unwrap().lease.unwrap().search
        };
        assert_eq!(of(&[(15, b"lab.test")]), ["lab.test"]);
        assert_eq!(of(&[(15, b"lab.test"), (119, b"\x01a\x00"), (119, b"\x01b\xc0\x00")]), ["a", "b.a"]);
        assert_eq!(of(&[(15, b"lab.test"), (119, b"\xff")]), ["lab.test"]);
    }

    #[test]
    fn requests_have_the_length_that_relays_want_and_carry_the_hardware_address() {
        let ask = Ask::Select { address: Ipv4Addr::new(10, 0, 0, 9), server: Ipv4Addr::new(10, 0, 0, 1) };
        for ask in [Ask::Discover, ask, Ask::Keep { address: Ipv4Addr::new(10, 0, 0, 9) }] {
            let bytes = Request { ask, xid: 0x0102_0304, mac: MAC, seconds: 5 }.encode();
            assert!(bytes.len() >= MIN_REQUEST);
            assert_eq!(bytes[4..8], [1, 2, 3, 4]);
            assert_eq!(bytes[28..34], MAC);
            assert_eq!(bytes[236..240], COOKIE);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Reply::parse(&bytes);
        }

        #[test]
        fn no_options_make_the_parser_panic(options in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300_usize) {
            let mut bytes = reply_bytes(2, 7, [10, 0, 0, 9], &[]);
            bytes.pop();
            bytes.extend(options);
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = Reply::parse(&bytes);
        }
    }
}
