//! DHCP (RFC 2131): an address for each card, and its renewal for as long as the machine runs.
//!
//! | file | what it is |
//! | --- | --- |
//! | `message` | the bytes of requests and replies |
//! | `frame` | Ethernet, IPv4 and UDP around them, for as long as there is no address |
//! | `routes`, `domains` | the two options that have a form of their own |
//! | `machine` | what is asked when, and what a reply means |

mod domains;
pub(crate) mod frame;
mod machine;
mod message;
mod routes;

pub(crate) use machine::{Destination, Dhcp, Event};
pub(crate) use message::{Lease, default_prefix};
pub(crate) use routes::{Route, in_order};
