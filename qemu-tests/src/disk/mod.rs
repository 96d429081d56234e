//! Sample disks, made with tools only and without mounting anything: GPT, an EFI partition with FAT, an ext4 root, swap.
//!
//! [`synthetic`] makes a small one out of generated files in a second or two; [`debian`] makes a real Debian system.
//! Both have a second state, a few per cent away from the first, for an increment ([`change`]).

pub mod change;
pub mod debian;
pub mod layout;
pub mod loader;
pub mod random;
pub mod synthetic;

pub use layout::Layout;
