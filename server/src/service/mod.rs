//! The engine behind every front end: one port and one discovery socket, all agents that call there, and any number of deployments,
//! each with its own image.
//!
//! A front end gives [`Command`]s, either through a [`Handle`] from another thread or in answer to an [`Event`], and gets events and
//! snapshots. The engine prints nothing, reads no command line, takes no signals and knows no exit codes. What there is once per port is
//! [`Service`] (links, approval, the fleet of agents); what there is once per deployment is `Running` (the machine, its feeds, its
//! state file).

mod answer;
mod checker;
mod command;
mod entry;
mod event;
mod event_loop;
mod gate;
mod link;
mod log_limit;
mod messages;
mod port;
mod running;
mod sockets;
mod state;
mod turns;
mod writer;

pub use command::{Command, Handle, Resume, Start};
pub use event::{Closed, Event, Finished, Front, MachineView};
pub use event_loop::{Service, ServiceConfig};
pub use sockets::{ServiceError, Sockets};
pub use state::{Found, Keys, RequestFingerprint, StateError, StateFile, Unfinished};
