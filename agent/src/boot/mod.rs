//! The agent as the whole machine: what the kernel starts as its first process, and all that a machine needs before the agent
//! proper can run.
//!
//! Two processes of the same program. The first one (`init`) mounts, starts the second, collects what has ended, and switches the
//! machine off: so little that it has nothing to fail on. The second one (`worker`) is the agent, with threads around it.
//!
//! | thread of the worker | what it does | where |
//! | --- | --- | --- |
//! | (main) | the agent's net thread | `agent` |
//! | `slidecast-dev` | loads modules for devices | `modules/` |
//! | `slidecast-net` | finds network cards | `net/` |
//! | `slidecast-eth0`.. | one card: DHCP, its address | `net/card`, `dhcp/` |
//! | `slidecast-kmsg` | follows what the kernel says | `kmsg/` |
//! | `slidecast-con` | writes to all consoles | `console/` |
//! | `slidecast-key` | reads the keyboard of one console | `console/keys` |

mod console;
mod dhcp;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod init;
mod kmsg;
mod line;
mod medium;
mod modules;
mod net;
mod options;
mod worker;

pub(crate) use kmsg::KernelLog;
pub(crate) use medium::hold_boot_medium;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What the second process calls itself.
const WORKER: &str = "slidecast-worker";
/// Where a worker that can't go on leaves its reason.
const LAST_WORDS: &str = "/run/slidecast-last-words";

/// Runs what this process is, if the kernel started it as `init`, or that one did. Else gives nothing.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(arguments.first()?).file_name()?;
    // The agent may well be the first process of a container, where it is a plain program: only a kernel calls it init.
    if std::process::id() == 1 && name == "init" {
        init::run();
    }
    (std::os::unix::process::parent_id() == 1 && name == WORKER).then(|| worker::run().into())
}

/// How a worker ends when it does not fail: what the first process is to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitAction {
    /// Nothing more. The machine stays as it is, for somebody to look at.
    Hold,
    Reboot,
    PowerOff,
}

impl ExitAction {
    const ALL: [(Self, u8); 3] = [(Self::Hold, 10), (Self::Reboot, 11), (Self::PowerOff, 12)];

    fn from_code(code: i32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| i32::from(*known) == code).map(|(action, _)| *action)
    }

    /// The line that stands on every console before it is done.
    fn line(self) -> &'static str {
        match self {
            Self::Hold => "holding",
            Self::Reboot => "rebooting",
            Self::PowerOff => "powering off",
        }
    }
}

impl From<ExitAction> for ExitCode {
    fn from(action: ExitAction) -> Self {
        let code = ExitAction::ALL.iter().find(|(known, _)| *known == action).map_or(1, |(_, code)| *code);
        Self::from(code)
    }
}
