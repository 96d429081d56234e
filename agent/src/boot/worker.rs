//! The second process: the agent, and the threads that make a machine around it.

use super::options::Options;
use super::{ExitAction, LAST_WORDS, console, kmsg, modules, net};
use crate::cli::{Arguments, Trust};
use crate::inventory::{self, Roots, Wait};
use crate::status::Board;
use crate::{agent, logging, machine};
use slidecast_proto::control::{Disk, Held};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::Then;
use std::process::ExitCode;

/// The server's public key, where the boot image carries one.
const KEY_FILE: &str = "/etc/slidecast/server.pub";

/// How a worker ends.
#[derive(Debug)]
pub(super) enum End {
    /// As it should, and with a action.
    Action(ExitAction),
    /// It could not go on.
    Failed,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        match end {
            End::Action(action) => action.into(),
            End::Failed => Self::FAILURE,
        }
    }
}

/// Runs the agent on this machine until it is to be switched off.
pub(super) fn run() -> End {
    // Whichever thread it is: a worker that has lost one is of no use.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        let _ = std::fs::write(LAST_WORDS, text);
        std::process::abort();
    }));
    let options = match std::fs::read("/proc/cmdline") {
        Ok(line) => Options::parse(&line),
        Err(error) => Options::unread(&error.to_string()),
    };
    let board = Board::default();
    let (machine, operator) = machine::pair(board.clone(), options.attended);
    let consoles = match console::start(&board, operator, &options) {
        Ok(consoles) => consoles,
        Err(error) => return fail(&format!("starting the console: {error}")),
    };
    let console = consoles.log();
    let most = console.most();
    let lines = logging::start_with(console, most);
    let faults = options.faults.iter().map(|fault| &fault.text);
    faults.for_each(|text| log::error!("kernel command line: {text}"));
    options.complaints.iter().for_each(|text| log::warn!("kernel command line: {text}; left out"));
    let kernel = kmsg::start().inspect_err(|error| log::warn!("following the kernel's log: {error}")).ok();
    let end = serve(&options, &board, machine.with_kernel(kernel), lines);
    consoles.finish();
    end
}

fn serve(
    options: &Options,
    board: &Board,
    machine: machine::Machine,
    lines: std::sync::mpsc::Receiver<logging::Line>,
) -> End {
    let key = std::fs::read_to_string(KEY_FILE).ok();
    let (arguments, trust, held) = match understand(options, key.as_deref()) {
        Ok(Understood { arguments, trust, held }) => (arguments, trust, held),
        Err(line) => {
            // Nothing that is done here again would change the boot files.
            log::error!("failed usage {line}");
            return End::Action(ExitAction::Hold);
        }
    };
    let machine = match held {
        Some(why) => {
            log::error!("failed usage {why}");
            log::info!("holding");
            machine.hold(&why)
        }
        None => machine,
    };
    if trust == Trust::Insecure {
        log::warn!("insecure: any server that is insecure too is obeyed");
    }
    let settled = match net::start(options, board).and_then(|()| modules::start()) {
        Ok(settled) => settled,
        Err(error) => return fail(&format!("starting a thread: {error}")),
    };
    // An order to prepare must find the disks that are there.
    settled.wait();
    list_disks();
    match agent::run(&arguments, &trust, lines, Some(machine)) {
        Ok(ending) => End::Action(match ending.then {
            Then::Hold => ExitAction::Hold,
            Then::Reboot => ExitAction::Reboot,
            Then::Poweroff => ExitAction::PowerOff,
        }),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(text: &str) -> End {
    log::error!("{text}");
    let _ = std::fs::write(LAST_WORDS, text);
    End::Failed
}

/// What the agent is to do.
#[derive(Debug)]
struct Understood {
    arguments: Arguments,
    trust: Trust,
    /// Why nothing may be written, which the server may be told.
    held: Option<String>,
}

/// The agent's command line, from the kernel's and from the boot image.
///
/// # Errors
/// Why no server may be talked to at all.
fn understand(options: &Options, key: Option<&str>) -> Result<Understood, String> {
    let held = held(options);
    if let Some(why) = &held
        && options.faults.iter().any(|fault| fault.hides_server)
    {
        return Err(why.clone());
    }
    let mut words = vec!["slidecast-agent".to_owned()];
    if let Some(server) = &options.server {
        // One word, so that nothing in it is taken for another option.
        words.push(format!("--server={server}"));
    }
    match (&options.trust, key) {
        (Some(Trust::Insecure), _) => words.push("--insecure".to_owned()),
        (Some(Trust::Pinned(key)), _) => words.push(format!("--server-key={key}")),
        (None, Some(key)) => words.push(format!("--server-key={}", key.trim())),
        (None, None) => {
            return Err(format!("no server key: neither slidecast.key= on the kernel command line nor {KEY_FILE}"));
        }
    }
    let target = options.target.iter().map(|target| format!("--target={target}"));
    let whole: Vec<String> = words.iter().cloned().chain(target).collect();
    match (Arguments::understand(whole), held) {
        (Ok((arguments, trust)), held) => Ok(Understood { arguments, trust, held }),
        (Err(wrong), held) => {
            // Without its target the line names the server just as well; it is told, and nothing is written.
            let (arguments, trust) = Arguments::understand(words).map_err(|_| wrong.clone())?;
            let held = held.unwrap_or_else(|| format!("kernel command line: slidecast.target: {wrong}"));
            Ok(Understood { arguments, trust, held: Some(held) })
        }
    }
}

/// Why this machine may write nothing, if the kernel command line was not understood.
fn held(options: &Options) -> Option<String> {
    let first = options.faults.first()?;
    let more = match options.faults.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("kernel command line: {}{more}; nothing is written until the line is right", first.text))
}

fn list_disks() {
    let roots = Roots::default();
    let mut disks = inventory::disks(&roots, Wait::Briefly, None);
    super::hold_boot_medium(&mut disks);
    if disks.iter().all(|disk| matches!(disk.held, Held::BootMedium(_))) {
        log::warn!("this machine has no disk of its own, or no driver for it");
    }
    disks.iter().for_each(|disk| log::info!("{}", describe(disk)));
    let memory = inventory::memory(&roots);
    log::info!("memory {}, {} available", Bytes(memory.total), Bytes(memory.available));
}

/// A disk, and why it is never written, if that is so.
fn describe(disk: &Disk) -> String {
    match &disk.held {
        Held::No if disk.read_only => format!("disk {disk}, read-only"),
        Held::No if disk.removable => format!("disk {disk}, removable"),
        Held::No => format!("disk {disk}"),
        Held::BootMedium(_) => format!("disk {disk}, the boot medium: never written"),
        Held::Mounted(why) | Held::InUse(why) => format!("disk {disk}, in use: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee01";
    const OTHER: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddee01";

    fn with(line: &str, key: Option<&str>) -> Result<Understood, String> {
        understand(&Options::parse(line.as_bytes()), key)
    }

    #[test]
    fn the_key_of_the_command_line_wins_over_the_boot_images() {
        let file = format!("{KEY}\n");
        let pinned = |key: &str| Trust::Pinned(key.parse().unwrap());
        assert_eq!(with("quiet", Some(&file)).unwrap().trust, pinned(KEY));
        assert_eq!(with(&format!("slidecast.key={OTHER}"), Some(&file)).unwrap().trust, pinned(OTHER));
        assert_eq!(with("slidecast.key=insecure", Some(&file)).unwrap().trust, Trust::Insecure);
    }

    #[test]
    fn without_a_key_or_with_a_broken_one_nobody_is_trusted() {
        assert!(with("quiet", None).unwrap_err().contains("slidecast.key="));
        assert!(with("slidecast.key=00", Some(KEY)).unwrap_err().contains("slidecast.key: a key has 64"));
        assert!(with("quiet", Some("no key")).is_err());
    }

    #[test]
    fn server_and_target_are_taken_over() {
        let line = "slidecast.key=insecure slidecast.server=10.0.0.1:99 slidecast.target=serial=S1";
        let Understood { arguments, held, .. } = with(line, None).unwrap();
        assert_eq!(arguments.server_name().unwrap(), Some(("10.0.0.1".to_owned(), 99)));
        assert_eq!((arguments.target.unwrap().text.as_str(), held), ("serial=S1", None));
        assert!(!arguments.once);
        assert!(with("slidecast.key=insecure slidecast.server=a:b:c:d", None).is_err());
    }

    #[test]
    fn a_machine_whose_line_was_not_understood_is_held_and_the_server_told_where_it_is_known() {
        for line in ["slidecast.targets=serial=S1", "slidecast.target=colour=red", "slidecast.target="] {
            let understood = with(&format!("slidecast.key=insecure {line}"), None);
            let held = understood.unwrap().held.unwrap();
            assert!(held.contains("slidecast.target"), "{held}");
        }
        for line in ["slidecast.server=", "slidecast.key=00", "slidecast.server=a slidecast.server=b", "a=\"b"] {
            let why = with(&format!("quiet {line}"), Some(KEY)).unwrap_err();
            assert!(why.contains("kernel command line"), "{why}");
        }
    }
}
