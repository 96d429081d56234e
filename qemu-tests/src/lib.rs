//! The lab: what system tests, the demo and the benchmarks run the real programs in.
//!
//! A [`Lab`] is a server with one or more network cards and nodes behind them, each in a network namespace of its own,
//! on links that can be shaped, cut and mended; nodes have loop devices or files as disks. `Lab::new(2)` makes the
//! network, [`Lab::node`] adds a machine, [`Lab::agent`] and [`Lab::deploy`] start the programs, [`compare()`] looks at
//! the disks afterwards. Everything is removed at the end of a run, however it ends ([`run`]).

pub mod cgroup;
pub mod chaos;
pub mod compare;
pub mod demo;
pub mod disk;
pub mod error;
pub mod floods;
pub mod forge;
pub mod lab;
pub mod machine;
pub mod net;
pub mod noise;
mod peer;
pub mod privilege;
pub mod process;
pub mod programs;
pub mod pxe;
pub mod report;
pub mod run;
pub mod slowest;
pub mod standing;
pub mod target;
pub mod tool;
pub mod web;

pub use compare::{Compared, compare, compare_data};
pub use error::{LabError, Result};
pub use lab::{Deploy, Lab, Node, NodeOptions};
pub use machine::Machine;
pub use process::{Exit, Process};
pub use report::Report;
pub use target::TargetKind;
