//! What agents and the server tell each other on the control link: inventory, orders, progress, reasons.
//!
//! A message is a tag byte and its fields, little-endian, every text and list bounded; it travels as one message of the
//! encrypted channel. Encoding cuts what is over its limit, parsing refuses it: no text from a peer holds a control
//! character, no number from a peer lies outside the limits of [`crate::units`]. `docs/WIRE.md` has the byte tables.

mod approval;
mod fields;
mod inventory;
mod to_agent;
mod to_server;

use core::time::Duration;

pub use crate::reason::{LinkClass, LinkState, Side};
pub use approval::NotApproved;
pub use inventory::{Card, Disk, Held};
pub use to_agent::{Abort, Finish, Join, LinkSpec, Notice, Prepare, ToAgent, Welcome};
pub use to_server::{BadBlock, Ended, Hello, LinkEvent, LogLine, Progress, Ready, Refused, ToServer};

/// How long an agent that writes, or has written, keeps its state without a server; then it acts by itself.
pub const HOLD: Duration = Duration::from_secs(120);
/// The longest encoded message in bytes; with the channel's tag it fits a Noise message.
pub const MAX_MESSAGE: usize = 65_000;
/// The most cards in a hello.
pub(crate) const MAX_CARDS: u32 = 32;
/// The most addresses of one card in a hello.
pub const MAX_ADDRESSES: u32 = 8;
/// The most disks in a hello; fewer where their texts are so long that the message would be over [`MAX_MESSAGE`].
pub(crate) const MAX_DISKS: u32 = 256;
/// The most further paths that a disk is listed with.
pub(crate) const MAX_PATHS: u32 = 16;
/// The most ranges in one progress.
pub const MAX_RANGES: u32 = 4096;
/// The longest name of a card, a version or a transport, in bytes.
pub const MAX_NAME: u16 = 64;
/// The longest model, serial, world wide name or host name, in bytes.
pub(crate) const MAX_LABEL: u16 = 255;
/// The longest path, selector, detail or log line, in bytes.
pub(crate) const MAX_LINE: u16 = 1024;
