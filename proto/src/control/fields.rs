//! The fields that several messages share.

use crate::units::{BlockNo, DeploymentId, Epoch, MAX_BLOCKS, NodeId};
use crate::wire::{Parsed, array, put_text, text};
use nom::Parser;
use nom::combinator::{fail, map, verify};
use nom::number::complete::{le_u8, le_u16, le_u32, le_u64};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Text of one line: no control characters, so that it can be shown anywhere.
pub(super) fn line<'a>(limit: u16) -> impl FnMut(&'a [u8]) -> Parsed<'a, String> {
    move |input| verify(text(limit), |text: &str| !text.chars().any(char::is_control)).parse(input)
}

/// Appends text of one line; a control character becomes U+FFFD.
pub(super) fn put_line(out: &mut Vec<u8>, line: &str, limit: u16) {
    let clean = if line.chars().any(char::is_control) {
        Cow::Owned(line.replace(char::is_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(line)
    };
    put_text(out, &clean, limit);
}

pub(super) fn deployment(input: &[u8]) -> Parsed<'_, DeploymentId> {
    map(array::<16>, DeploymentId).parse(input)
}

pub(super) fn epoch(input: &[u8]) -> Parsed<'_, Epoch> {
    map(le_u64, Epoch).parse(input)
}

pub(super) fn node(input: &[u8]) -> Parsed<'_, NodeId> {
    map(le_u32, NodeId).parse(input)
}

pub(super) fn block(input: &[u8]) -> Parsed<'_, BlockNo> {
    map(verify(le_u32, |block| *block < MAX_BLOCKS), BlockNo).parse(input)
}

/// 4 or 6, and that kind of address in network order.
pub(super) fn address(input: &[u8]) -> Parsed<'_, IpAddr> {
    match le_u8(input)? {
        (input, 4) => map(array::<4>, IpAddr::from).parse(input),
        (input, 6) => map(array::<16>, IpAddr::from).parse(input),
        (input, _) => fail().parse(input),
    }
}

pub(super) fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend_from_slice(&address.octets());
        }
    }
}

/// An address and a little-endian port. Scope and flow of an IPv6 address mean nothing on another machine and are left out.
pub(super) fn socket_address(input: &[u8]) -> Parsed<'_, SocketAddr> {
    map((address, le_u16), SocketAddr::from).parse(input)
}

pub(super) fn put_socket_address(out: &mut Vec<u8>, address: SocketAddr) {
    put_address(out, address.ip());
    out.extend_from_slice(&address.port().to_le_bytes());
}
