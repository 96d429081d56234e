//! Virtual machines on the lab's network: real firmware, a real kernel, the agent as its first process.
//!
//! [`Lab::machine`](crate::Lab::machine) starts one with the [`Options`] it is given; its cards are taps in the lab's
//! bridges, its disks are raw files that [`compare()`](crate::compare()) can read. A [`Machine`] can be watched (serial
//! console, screenshot), typed at, cut off its power and started again. QEMU emulates the processor (TCG): it works
//! wherever QEMU does, and its rates mean nothing.

pub mod boot_files;
pub mod demo;
pub mod disk;
pub mod kernel;
pub mod options;
pub mod qmp;
pub mod running;
pub mod screen;

pub use boot_files::BootFiles;
pub use disk::{Bus, Disk};
pub use options::{Boot, Card, Firmware, Options, mac};
pub use running::Machine;
