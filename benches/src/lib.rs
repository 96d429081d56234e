//! Benchmarks: the figures that SlideCast promises, measured in the lab and shown as ratios, each with its bar and the
//! command that was measured. Peers and floors run in the same run on the same data.
//!
//! `./check.sh bench [NAME...]` builds what is needed and runs them: a release build of the server, the agent as the
//! static program that is shipped. But for those of `boot` and `boot-size`, whose machines are virtual, targets are in memory: the disk is not the point. Timings are the report's own, from
//! the fixed plan to the last node's end.

pub mod boot;
pub mod boot_size;
pub mod cpu;
pub mod create;
pub mod import;
pub mod incompressible;
pub mod last_look;
pub mod memory;
pub mod redeploy;
pub mod repair;
pub mod setup;
pub mod system;
pub mod table;
pub mod usage;
pub mod workstation;
