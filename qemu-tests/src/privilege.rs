//! Getting the rights that namespaces need: root as we are, root by `sudo`, or root inside a user namespace.
//!
//! Inside a user namespace there are no loop devices and no control groups; what needs them is reported as skipped.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use crate::error::{LabError, Result};

/// Set in a process that this module has already started anew, to what it was started with.
const AGAIN: &str = "SLIDECAST_LAB_ENTERED";

/// Returns when this process may make network namespaces, else replaces it with one that may. To be called before the
/// first thread starts.
///
/// # Errors
/// When nothing works on this machine, with what would help.
pub fn enter() -> Result<()> {
    if std::env::var_os(AGAIN).is_some_and(|how| how == "user") {
        return prepare_user_namespace();
    }
    if Uid::effective().is_root() && works("unshare", &["--net", "--mount"]) {
        return Ok(());
    }
    if std::env::var_os(AGAIN).is_none() {
        // Without a terminal nobody can type a password: then only a sudo that asks for none will do.
        let asks = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !Uid::effective().is_root() && (works("sudo", &["-n"]) || (asks && works("sudo", &["-V"]))) {
            return Err(again("sudo", &["--preserve-env=PATH,HOME", "env"], "sudo"));
        }
        if works("unshare", &["--user", "--map-root-user", "--mount", "--net"]) {
            return Err(again("unshare", &["--user", "--map-root-user", "--mount", "--net"], "user"));
        }
    }
    let why = "the lab makes network namespaces and may not: run it as root, with sudo, or where user namespaces are \
               allowed (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)";
    Err(LabError::Unable { why: why.to_owned() })
}

/// Whether this process is root in a user namespace only.
pub fn in_user_namespace() -> bool {
    std::env::var_os(AGAIN).is_some_and(|how| how == "user")
}

fn works(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !args.contains(&"-V") {
        command.arg("true");
    }
    command.status().is_ok_and(|status| status.success())
}

/// Replaces this process; returns only if that failed.
fn again(program: &str, args: &[&str], how: &str) -> LabError {
    let uid = Uid::current();
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(program);
    command.args(args);
    if how == "sudo" {
        // sudo drops the environment: hand over what the lab reads.
        let ours = std::env::vars().filter(|(key, _)| key.starts_with("SLIDECAST_"));
        command.args(ours.map(|(key, value)| format!("{key}={value}"))).arg(format!("{AGAIN}={how}"));
    } else {
        command.env(AGAIN, how);
        if std::env::var_os("SLIDECAST_LAB_DIR").is_none() {
            command.env("SLIDECAST_LAB_DIR", format!("/var/tmp/slidecast-lab-{uid}"));
        }
    }
    command.arg(me).args(std::env::args_os().skip(1));
    LabError::Start { program: program.to_owned(), source: command.exec() }
}

/// `ip netns` keeps names in `/run`, which is not ours here: a private one is.
fn prepare_user_namespace() -> Result<()> {
    crate::tool::run("mount", ["-t", "tmpfs", "tmpfs", "/run"]).map(drop)
}
