//! What agents and the server tell each other on the control link: inventory, orders, progress, reasons.
//!
//! A message travels as one message of the encrypted channel.

mod inventory;
mod to_agent;
mod to_server;

pub use crate::reason::{LinkClass, LinkState, Side};
pub use inventory::{Card, Disk, Held};
pub use to_agent::{Abort, Finish, Join, LinkSpec, Prepare, Resend, ToAgent, Welcome};
pub use to_server::{BadBlock, Ended, Hello, LinkEvent, LogLine, Progress, Ready, Refused, ToServer};
