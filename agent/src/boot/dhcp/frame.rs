//! Ethernet, IPv4 and UDP around a DHCP message, while the card has no address that the kernel would take it for.

use nom::bytes::complete::take;
use nom::combinator::verify;
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};
use std::net::Ipv4Addr;

const BROADCAST: [u8; 6] = [0xff; 6];
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
const OUR_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// A datagram from us to every server on the wire, as a frame.
pub(crate) fn broadcast(mac: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let len = |bytes: usize| u16::try_from(bytes).expect("requests are a few hundred bytes");
    let mut udp = Vec::new();
    for word in [OUR_PORT, SERVER_PORT, len(8 + payload.len()), 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(payload);
    // A sum of zero would mean that there is none.
    let sum = match !ones(&udp, pseudo(from, to, udp.len())) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend(len(20 + udp.len()).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = !ones(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut out = [BROADCAST, mac].concat();
    out.extend(IPV4.to_be_bytes());
    out.extend(ip);
    out.extend(udp);
    out
}

/// What a frame to us or to everybody carries to our port, and from where; `None` for all other frames and for those that
/// are damaged.
pub(crate) fn parse(mac: [u8; 6], frame: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (_, (from, to, udp)) = ip(mac, frame).ok()?;
    let (_, (ports, len, said)) = header(udp).ok()?;
    let udp = udp.get(..usize::from(len))?;
    let payload = udp.get(8..)?;
    if ports != (SERVER_PORT, OUR_PORT) || !is_whole(udp, said, pseudo(from, to, udp.len())) {
        return None;
    }
    Some((from, payload))
}

type Ip<'a> = (Ipv4Addr, Ipv4Addr, &'a [u8]);

fn ip(mac: [u8; 6], frame: &[u8]) -> IResult<&[u8], Ip<'_>> {
    let ours = |to: &[u8]| to == mac || to == BROADCAST;
    let (packet, _) =
        (verify(take(6_usize), ours), take(6_usize), verify(be_u16, |kind| *kind == IPV4)).parse(frame)?;
    let (_, first) = verify(be_u8, |first| first >> 4 == 4 && first & 15 >= 5).parse(packet)?;
    let (body, header) =
        verify(take(usize::from(first & 15) * 4), |header: &[u8]| ones(header, 0) == 0xffff).parse(packet)?;
    let (rest, (_, total, _, _, _, _)) = (
        be_u16,
        be_u16,
        be_u16,
        verify(be_u16, |fragment| fragment & 0x3fff == 0),
        be_u8,
        verify(be_u8, |kind| *kind == UDP),
    )
        .parse(header)?;
    let (_, (_, from, to)) = (be_u16, take(4_usize), take(4_usize)).parse(rest)?;
    let octets = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).expect("four were taken"));
    // What stands behind the packet fills the frame up to its least length.
    let (rest, udp) = take(usize::from(total).saturating_sub(header.len())).parse(body)?;
    Ok((rest, (octets(from), octets(to), udp)))
}

/// The ports from and to, the length, and the checksum.
type Udp = ((u16, u16), u16, u16);

fn header(input: &[u8]) -> IResult<&[u8], Udp> {
    ((be_u16, be_u16), be_u16, be_u16).parse(input)
}

/// Whether the checksum is right, left out, or not filled in yet: a virtual card takes what the host's kernel left to
/// the hardware, which is the sum of the pseudo-header alone.
fn is_whole(udp: &[u8], said: u16, pseudo: u32) -> bool {
    said == 0 || said == fold(pseudo) || ones(udp, pseudo) == 0xffff
}

/// The sum of the pseudo-header of RFC 768.
fn pseudo(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> u32 {
    let halves = |address: Ipv4Addr| (address.to_bits() >> 16) + (address.to_bits() & 0xffff);
    halves(from) + halves(to) + u32::from(UDP) + u32::try_from(len).unwrap_or(0)
}

/// The sum of RFC 1071 over `bytes`, begun with `sum`.
fn ones(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = sum;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    fold(sum)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).expect("folded to sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    /// A reply: our own frame with the ports turned round.
    fn reply(payload: &[u8]) -> Vec<u8> {
        let mut frame = broadcast(OTHER, payload);
        frame.swap(35, 37);
        frame
    }

    #[test]
    fn a_reply_is_taken_out_of_its_frame() {
        let mut frame = reply(b"hello");
        frame.resize(60, 0);
        assert_eq!(parse(MAC, &frame), Some((Ipv4Addr::UNSPECIFIED, &b"hello"[..])));
        frame[..6].copy_from_slice(&MAC);
        assert!(parse(MAC, &frame).is_some());
    }

    #[test]
    fn frames_for_others_and_of_other_kinds_are_none_of_ours() {
        let mut frame = reply(b"hello");
        frame[..6].copy_from_slice(&OTHER);
        assert_eq!(parse(MAC, &frame), None);
        assert_eq!(parse(MAC, &broadcast(OTHER, b"hello")), None, "a request of another machine");
    }

    #[test]
    fn checksums_may_be_left_out_or_not_filled_in_but_not_be_wrong() {
        let with = |sum: u16| {
            let mut frame = reply(b"hello");
            frame[40..42].copy_from_slice(&sum.to_be_bytes());
            parse(MAC, &frame).is_some()
        };
        assert!(with(0));
        assert!(with(fold(pseudo(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 13))));
        assert!(!with(0x1234));
        let mut frame = reply(b"hello");
        frame[22] ^= 1;
        assert_eq!(parse(MAC, &frame), None, "the IP header is damaged");
    }

    proptest! {
        #[test]
        fn every_payload_survives(payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let frame = reply(&payload);
            prop_assert_eq!(parse(MAC, &frame).map(|(_, found)| found), Some(&payload[..]));
        }

        #[test]
        fn no_frame_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..60_usize) {
            let _ = parse(MAC, &bytes);
            let mut frame = reply(b"hello");
            frame.truncate(at);
            let _ = parse(MAC, &frame);
            let mut frame = reply(b"hello");
            let byte = bytes.first().copied().unwrap_or(0);
            if let Some(place) = frame.get_mut(at) { *place = byte }
            let _ = parse(MAC, &frame);
        }
    }
}
