//! What the machine does when its disk is done.

use nix::sys::reboot::{RebootMode, reboot};
use slidecast_proto::reason::Then;

/// Reboots or powers off, if that was asked for and this is the first process of the machine.
pub(crate) fn act(then: Then) {
    let (mode, what) = match then {
        Then::Hold => return,
        Then::Reboot => (RebootMode::RB_AUTOBOOT, "reboot"),
        Then::Poweroff => (RebootMode::RB_POWER_OFF, "power off"),
    };
    if std::process::id() != 1 {
        log::info!("asked to {what}; as a plain program the agent does not touch the machine");
        return;
    }
    log::info!("going to {what}");
    nix::unistd::sync();
    let Err(error) = reboot(mode);
    log::error!("{what}: {error}");
}
