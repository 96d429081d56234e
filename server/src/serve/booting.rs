//! `serve --boot`: machines boot from the network as agents of this server, but for those that are accepted and have nothing to do here:
//! they boot their own disk, as if this server were not there.

use super::api::Api;
use super::store::{Store, StoreError};
use crate::boot::{Agents, BootError, BootEvent, BootServer, BootedMachines, Tell};
use crate::cli::Serve;
use crate::complain;
use crate::failure::one_line;
use slidecast_proto::approval::{Identity, parse_list};
use slidecast_proto::noise::PublicKey;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at the latest which machines have something to do.
const LOOK: Duration = Duration::from_secs(5);
/// So many events come to one look.
const TOGETHER: Duration = Duration::from_millis(200);

/// Starts a boot server on each of the cards given; none if that was not asked for.
pub(super) fn start(
    args: &Serve,
    key: Option<&PublicKey>,
    own_disk: &Arc<BootedMachines>,
) -> Result<Vec<BootServer>, BootError> {
    let Some(mode) = args.boot else { return Ok(Vec::new()) };
    let tell: Tell = Arc::new(|event| match event {
        BootEvent::Ended(_) => log::error!("{event}"),
        BootEvent::Trouble(_) => log::warn!("{event}"),
        event => complain(&event.to_string()),
    });
    let agents = Agents { mode, interfaces: &args.interface, dir: &args.boot_dir, port: args.port, key };
    let servers = agents.start(own_disk, &tell)?;
    servers.iter().for_each(|server| complain(&server.describe()));
    Ok(servers)
}

/// Has the boot servers know which machines boot their own disk.
pub(super) fn look(store: &Store, own_disk: &BootedMachines) -> Result<(), StoreError> {
    let macs = store.own_disk()?;
    let known = macs.iter().filter_map(|mac| parse_list(mac.as_bytes()).ok()).flatten();
    own_disk.replace(known.filter_map(|identity| match identity {
        Identity::Mac(mac) => Some(mac),
        _ => None,
    }));
    Ok(())
}

/// Keeps that up to date for as long as the server runs.
pub(super) async fn keep(api: Arc<Api>, own_disk: Arc<BootedMachines>) {
    let mut newest = api.database.newest();
    loop {
        newest.borrow_and_update();
        let shared = own_disk.clone();
        if let Err(error) = api.database.call(move |store| look(store, &shared)).await {
            log::error!("looking for machines that boot their own disk: {}", one_line(&error));
        }
        tokio::select! {
            changed = newest.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(TOGETHER).await;
            }
            // A machine that is woken for its deployment is to boot the agent.
            () = api.released.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
