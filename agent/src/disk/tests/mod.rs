//! The engine as a whole, on targets that record and break.
//!
//! | file | what is shown |
//! | --- | --- |
//! | `whole` | every kind of block, target and option ends with the disk that the image says |
//! | `power_cut` | what a cut at any write leaves: untouched, marked, or complete |
//! | `faults` | errors and lies of the disk, each with its reason |
//! | `trust` | disks that put writes in the wrong place, or are smaller than they say |
//! | `resume` | blocks that stand on the disk already are kept |
//! | `real` | regular files and loop devices |
//! | `image`, `manifest`, `recorder`, `rig` | made-up images, a target in memory with a log, and the driving of an engine |

mod faults;
mod image;
pub(super) mod manifest;
mod power_cut;
mod real;
mod recorder;
mod resume;
mod rig;
mod trust;
mod whole;
