//! Kernel modules: whatever the kernel finds, the module that says it can drive it is loaded, with all it depends on.
//!
//! The tables are those of depmod(8) in the boot image: `modules.dep`, `modules.alias`, `modules.softdep`. A device says what it
//! is in `MODALIAS` of its `uevent` file, and in the kernel's message when it turns up.

mod load;
mod tables;
mod watch;

pub(crate) use watch::start;
