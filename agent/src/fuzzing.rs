//! What the fuzz targets of `fuzz/` call: the readers of foreign bytes that are private to this crate.
//!
//! Each takes one input of any content and checks what must hold whatever it read. Built with `--cfg fuzzing`, which
//! `cargo fuzz` sets, and in unit tests; no program contains it.

pub use crate::boot::fuzzing::{dhcp, kernel_command_line};
