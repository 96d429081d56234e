//! Options of sockets that both programs set.

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{SetStruct, TcpUserTimeout};
use std::os::fd::AsFd;
use std::time::Duration;

/// `TCP_NOTSENT_LOWAT`, tcp(7).
#[derive(Clone, Debug)]
struct NotSentLowat;

nix::setsockopt_impl!(NotSentLowat, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, u32, SetStruct<'_, u32>);

/// The kernel takes no more for a socket that holds `bytes` it could not send yet, so that what is said next is never far behind.
///
/// # Errors
/// Those of the kernel.
pub fn limit_unsent(socket: &impl AsFd, bytes: u32) -> Result<(), Errno> {
    setsockopt(socket, NotSentLowat, &bytes)
}

/// The kernel gives a connection up when what it sent is not acknowledged for so long; it looks when a retransmission is due, so that
/// takes up to one more. It also gives up one whose other end acknowledges but has had no room for so long (tcp(7),
/// `TCP_USER_TIMEOUT`).
///
/// # Errors
/// Those of the kernel.
pub fn limit_unacknowledged(socket: &impl AsFd, timeout: Duration) -> Result<(), Errno> {
    setsockopt(socket, TcpUserTimeout, &u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))
}
