//! The keyboard of one console: a disk is picked here, the log read, and a shell had where that is allowed.

use super::screen::question;
use super::terminal::Console;
use crate::boot::options::Options;
use crate::machine::Operator;
use crate::status::{Board, Stage, Status};
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The keys for disks, in their order.
pub(super) const DISKS: &[u8] = b"123456789abcdefghijkmnopqrtuvwxz";
/// How often a key is looked for.
const LOOK: Duration = Duration::from_millis(50);
const BUSYBOX: &str = "/bin/busybox";
const SHELL: &str = "/bin/sh";

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// This disk, if it is confirmed.
    Pick(usize),
    /// The disk that was picked is to be written.
    Confirm(usize),
    /// Not this one.
    Again,
    /// The log in full, or all again.
    Log,
    Shell,
    Nothing,
}

/// What `key` means as things stand.
fn meaning(key: u8, status: &Status, shell: bool) -> Meaning {
    if status.stage == Stage::Asking {
        match (status.picked, DISKS.iter().position(|disk| *disk == key)) {
            (Some(disk), _) if key == b'y' => return Meaning::Confirm(disk),
            (Some(_), _) if !key.is_ascii_whitespace() => return Meaning::Again,
            (None, Some(disk)) if disk < status.question.len() => return Meaning::Pick(disk),
            _ => {}
        }
    }
    match key {
        b'l' => Meaning::Log,
        b's' if shell => Meaning::Shell,
        _ => Meaning::Nothing,
    }
}

/// The thread that reads one keyboard.
pub(super) struct Keys {
    consoles: Arc<Vec<Console>>,
    at: usize,
    board: Board,
    operator: Operator,
    shell: bool,
    asked: Option<(Vec<String>, Option<usize>)>,
}

impl Keys {
    pub(super) fn new(
        consoles: Arc<Vec<Console>>,
        at: usize,
        board: Board,
        operator: Operator,
        options: &Options,
    ) -> Self {
        Self { consoles, at, board, operator, shell: options.shell, asked: None }
    }

    fn console(&self) -> &Console {
        &self.consoles[self.at]
    }

    pub(super) fn run(mut self) {
        loop {
            let status = self.board.read();
            self.ask(&status);
            match self.console().key().map(|key| meaning(key, &status, self.shell)) {
                None => std::thread::sleep(LOOK),
                Some(Meaning::Pick(disk)) => self.board.update(|status| status.picked = Some(disk)),
                Some(Meaning::Again) => self.board.update(|status| status.picked = None),
                Some(Meaning::Confirm(disk)) => {
                    log::info!("somebody at {} picked {}", self.console().name(), status.question[disk]);
                    self.operator.answer(disk);
                }
                Some(Meaning::Log) => self.board.update(|status| status.only_log ^= true),
                Some(Meaning::Shell) => self.shell(),
                Some(Meaning::Nothing) => {}
            }
        }
    }

    /// On a serial line a question is a few lines; the screen shows it anyway.
    fn ask(&mut self, status: &Status) {
        let open = status.stage == Stage::Asking;
        let question_now = open.then(|| (status.question.clone(), status.picked));
        if question_now == self.asked {
            return;
        }
        self.asked = question_now;
        if open && !self.console().is_screen() {
            question(status).iter().for_each(|line| self.console().print(line));
        }
    }

    fn shell(&self) {
        let console = self.console();
        let has_busybox = Path::new(BUSYBOX).exists();
        if !has_busybox && !Path::new(SHELL).exists() {
            log::warn!("there is no shell in this boot image");
            return;
        }
        log::warn!("somebody at {} has a shell", console.name());
        let result = console.lend(|| {
            // Opened anew: a shell does not expect a terminal that never waits.
            let path = Path::new("/dev").join(console.name());
            let terminal = OpenOptions::new().read(true).write(true).open(path)?;
            let mut command = Command::new(if has_busybox { BUSYBOX } else { SHELL });
            if has_busybox {
                // With a session of its own, so that it can be interrupted.
                command.args(["setsid", "-c", BUSYBOX, "sh"]);
            }
            let (output, errors) = (terminal.try_clone()?, terminal.try_clone()?);
            command.env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin").env("PS1", "slidecast# ");
            command.stdin(terminal).stdout(output).stderr(errors).status()
        });
        match result {
            Ok(_) => log::info!("the shell at {} has ended", console.name()),
            Err(error) => log::warn!("starting a shell: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(picked: Option<usize>) -> Status {
        let question = vec!["a".to_owned(), "b".to_owned()];
        Status { stage: Stage::Asking, question, picked, ..Status::default() }
    }

    #[test]
    fn a_disk_is_picked_and_then_confirmed() {
        assert_eq!(meaning(b'2', &asking(None), false), Meaning::Pick(1));
        assert_eq!(meaning(b'3', &asking(None), false), Meaning::Nothing, "there are two");
        assert_eq!(meaning(b'y', &asking(None), false), Meaning::Nothing);
        assert_eq!(meaning(b'y', &asking(Some(1)), false), Meaning::Confirm(1));
        assert_eq!(meaning(b'n', &asking(Some(1)), false), Meaning::Again);
        assert_eq!(meaning(b'1', &asking(Some(1)), false), Meaning::Again, "a second digit is no confirmation");
        assert_eq!(meaning(b'\n', &asking(Some(1)), false), Meaning::Nothing);
    }

    #[test]
    fn keys_do_nothing_when_nothing_is_asked() {
        let idle = Status { stage: Stage::Receiving, ..asking(Some(1)) };
        for key in [b'1', b'y', b's'] {
            assert_eq!(meaning(key, &idle, false), Meaning::Nothing);
        }
        assert_eq!(meaning(b'l', &idle, false), Meaning::Log);
    }

    #[test]
    fn a_shell_is_had_only_where_it_is_allowed() {
        assert_eq!(meaning(b's', &Status::default(), true), Meaning::Shell);
        assert_eq!(meaning(b's', &Status::default(), false), Meaning::Nothing);
    }

    #[test]
    fn no_disk_has_the_key_of_something_else() {
        assert!(!DISKS.iter().any(|key| b"yls".contains(key)));
    }
}
