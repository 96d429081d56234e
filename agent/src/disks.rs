//! The disks that this agent can be told to write, and how they are named.

use crate::cli::Target;
use crate::inventory::{self, Roots, Wait};
use slidecast_proto::control::{Disk, Prepare};
use slidecast_proto::selector::{Selector, choose};
use std::path::Path;

/// The disks there are now; on a machine that is the agent's own, the one that it was booted from is held.
pub(crate) fn disks(wait: Wait, own: &Selector, machine: bool) -> Vec<Disk> {
    let mut disks = inventory::disks(&Roots::default(), wait, own.path().map(Path::new));
    if machine {
        crate::boot::hold_boot_medium(&mut disks);
    }
    disks
}

/// The agent's own `--target`, links in its path followed.
pub(crate) fn own_selector(wait: Wait, target: Option<&Target>) -> Selector {
    let selector = target.map(|target| target.selector.clone()).unwrap_or_default();
    selector.map_path(|path| inventory::true_path(&Roots::default(), wait, path))
}

/// Whether this disk would be the target if there were no other.
pub(crate) fn could_be_target(disk: &Disk, prepare: &Prepare, own: &Selector) -> bool {
    let server = Selector::parse(&prepare.selector).map(|selector| selector.map_path(follow_links));
    let only = std::slice::from_ref(disk);
    server.is_ok_and(|server| choose(only, &server, own, prepare.disk_bytes, prepare.sector).is_ok())
}

/// Every name of a disk as the kernel's own.
pub(crate) fn follow_links(path: &str) -> String {
    inventory::true_path(&Roots::default(), Wait::ForAll, path)
}
