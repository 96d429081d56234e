//! `deploy --boot`: machines boot from the network as long as the deployment runs, and are told its server and key.

use crate::boot::{Agents, BootError, BootServer, BootedMachines, Tell};
use crate::cli::Deploy;
use crate::progress::Lines;
use slidecast_proto::noise::PublicKey;
use std::sync::Arc;

/// Starts a boot server on each of the cards given; none if that was not asked for. Who is `through` is sent on.
pub(super) fn start(
    args: &Deploy,
    key: Option<&PublicKey>,
    booted: &Arc<BootedMachines>,
    lines: Lines,
) -> Result<Vec<BootServer>, BootError> {
    let Some(mode) = args.boot else { return Ok(Vec::new()) };
    let tell: Tell = Arc::new(move |event| lines.line(event.to_string()));
    Agents { mode, interfaces: &args.interface, dir: &args.boot_dir, port: args.port, key }.start(booted, &tell)
}
