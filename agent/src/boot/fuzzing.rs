//! The fuzz targets of what a machine reads at boot.

use super::dhcp::{Dhcp, Event, frame};
use super::options::Options;
use slidecast_proto::units::Time;
use std::time::Duration;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What comes to the DHCP client: first the input as an Ethernet frame, then as datagrams, each with a byte of flags and a
/// 16-bit length in front. With flag 1 a datagram answers the last question, the upper bits are seconds that pass before it.
///
/// # Panics
/// If a lease is taken that no host can have, or the client stops asking.
pub fn dhcp(input: &[u8]) {
    let _ = frame::parse(MAC, input);
    let mut now = Time(0);
    let mut dhcp = Dhcp::new(MAC, 1, now);
    let (mut xid, mut rest, mut for_ever) = ([0; 4], input, false);
    while let Some(([flags, low, high], after)) = rest.split_first_chunk() {
        if let Some((_, asked)) = dhcp.poll_transmit(now) {
            xid.copy_from_slice(&asked[4..8]);
        }
        let (datagram, after) = after.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(after.len()));
        let mut datagram = datagram.to_vec();
        if flags & 1 == 1 && datagram.len() >= 34 {
            datagram[..4].copy_from_slice(&[2, 1, 6, 0]);
            datagram[4..8].copy_from_slice(&xid);
            datagram[28..34].copy_from_slice(&MAC);
        }
        now = now.after(Duration::from_secs(u64::from(flags >> 1) * 60));
        dhcp.on_datagram(&datagram, now);
        let event = dhcp.poll_event();
        for_ever =
            event.as_ref().map_or(for_ever, |event| matches!(event, Event::Bound(lease) if lease.time.is_none()));
        if let Some(Event::Bound(lease)) = event {
            assert!(lease.prefix <= 32 && !lease.address.is_unspecified() && !lease.address.is_broadcast());
            assert!(lease.renew.0 <= lease.renew.1 && lease.time.is_none_or(|time| lease.renew.1 <= time));
            assert!(lease.host_name.iter().chain(&lease.search).all(|name| name.bytes().all(|b| b.is_ascii_graphic())));
        }
        rest = after;
    }
    assert!(for_ever || dhcp.poll_transmit(now.after(Duration::from_secs(1 << 33))).is_some());
}

/// The kernel command line.
///
/// # Panics
/// If what is said of it could write anything but text on a console.
pub fn kernel_command_line(input: &[u8]) {
    let options = Options::parse(input);
    let faults = options.faults.iter().map(|fault| &fault.text);
    for line in options.complaints.iter().chain(faults) {
        assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_takes_any_input() {
        for input in [&[][..], &[1], &[0xFF; 64], &[0; 1024], b"slidecast.target=/dev/sda ip=dhcp BOOTIF=1"] {
            dhcp(input);
            kernel_command_line(input);
        }
    }
}
