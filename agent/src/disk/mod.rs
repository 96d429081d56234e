//! The disk engine: unpacks blocks, checks them, writes them to every place, flushes, reads back, and gives the disk its
//! head only when everything else is proven.
//!
//! ```text
//!  block() ---> jobs --+                                    +--> flusher --> Durable --> read-back --> Verified
//!  part() ----> fills -+--> writers: unpack, BLAKE3, pwrite -+     (256 MiB or 2 s)       (live hash of every place)
//!                           \ places in the head: shadow in memory, written last
//! ```
//!
//! | file | what it is |
//! | --- | --- |
//! | `engine` | the handle: starts the threads, takes jobs, gives events; never blocks its caller |
//! | `shared` | the threads' way to `slidecast_proto::schedule`, which decides what is done next |
//! | `layout`, `shadow` | which bytes of the target are head, body or backup table; the head in memory |
//! | `mark` | what stands in sector 0 of a disk that is not complete |
//! | `order` | the control thread: flushes, and the steps around the body that promise 5 rests on |
//! | `writer`, `fill`, `runs` | from a block to its writes |
//! | `job` | what the engine is given: options, blocks |
//! | `used` | what `--free zero` must leave alone |
//! | `behind` | signatures behind the image on a larger target |
//! | `window` | for disks with heads: writes gathered and sorted |
//! | `readback` | what stands on the disk against the manifest |
//! | `look` | which spots are read once more before the head is written |
//! | `probe` | whether the disk is as large as it says |
//! | `fault` | what can go wrong, with operation, object and position |
//!
//! # Memory
//! Fixed when the engine starts: with 1 MiB blocks, two writers and two readers 6 MiB, or 37 MiB
//! for a disk with heads (one reader, and a sort window of 32 MiB). Besides, manifest parts with blocks that are not read back yet are held, up to
//! `RETAINED_LIMIT` of the schedule and one window's worth; when there are more, writing waits for reading. `--free zero` takes one bit for
//! each grain of the target. For the last look packed parts are kept, up to [`EngineOptions::ledger_bytes`]
//! (16 MiB, or a sixteenth of the memory that the node can spare and at most 256 MiB), and at most 2,048 spots.

mod behind;
mod engine;
mod fault;
mod fill;
mod job;
mod layout;
mod look;
mod mark;
mod order;
mod probe;
mod readback;
mod runs;
mod shadow;
mod shared;
#[cfg(test)]
mod tests;
mod used;
mod window;
mod writer;

pub(crate) use engine::{Engine, Stopping};
pub(crate) use job::{BlockJob, EngineOptions};
pub(crate) use mark::Mark;
pub(crate) use slidecast_proto::schedule::Event;
