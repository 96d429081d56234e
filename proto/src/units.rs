//! Newtypes for what must not be mixed, and the limits that everything from outside is held to.

use core::fmt;
use core::time::Duration;
use zeroize::Zeroize;

/// The most blocks an image may have.
pub const MAX_BLOCKS: u32 = 1 << 24;
/// The smallest block, in bytes.
pub const BLOCK_MIN: u32 = 64 << 10;
/// The largest block, in bytes.
pub const BLOCK_MAX: u32 = 16 << 20;
/// The smallest grain, in bytes.
pub const GRAIN_MIN: u32 = 4 << 10;
/// The most parts a manifest may have.
pub const MAX_PARTS: u32 = 1 << 16;
/// The longest encoded manifest header, in bytes.
pub const MAX_HEADER_BYTES: u32 = 4 << 20;
/// The longest encoded manifest part, in bytes.
pub const MAX_PART_BYTES: u32 = 1 << 20;
/// The most bytes one fill block may cover.
pub const MAX_FILL_BYTES: u64 = 1 << 30;
/// The largest disk, in bytes (2^60).
pub const MAX_DISK_BYTES: u64 = 1 << 60;

/// A block of the manifest: 0..n-1 in the canonical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNo(pub u32);

/// A part of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNo(pub u32);

/// Raised with every change of a chain; nodes refuse what is below their own highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A node of a deployment. 0 is the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The server, the upstream of every head.
    pub const SERVER: Self = Self(0);
}

/// One deployment of one image to a set of chains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId(pub [u8; 16]);

/// A BLAKE3 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The BLAKE3 hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// The secret that both ends of a chain link prove to know. Never shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey(pub [u8; 32]);

impl Drop for LinkKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                crate::hex::write(f, &self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}
hex_text!(Hash);
hex_text!(DeploymentId);

macro_rules! number_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
number_text!(BlockNo, PartNo, Epoch, NodeId);

/// A point in time: microseconds since an origin that the caller chose. Machines only ever compare and subtract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The time that lies `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; nothing if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
