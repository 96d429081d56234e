//! A running virtual machine: watched, typed at, cut off its power, started again.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::options::{Firmware, Options, mac};
use super::qmp;
use super::screen::Screen;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::process::{Place, Process};
use crate::tool;

/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(20);
const QEMU: &str = "qemu-system-x86_64";

/// A virtual machine of a lab. Dropping it cuts its power.
#[derive(Debug)]
pub struct Machine {
    /// What it is made of; changes take effect when it is started again.
    pub options: Options,
    name: String,
    number: usize,
    dir: PathBuf,
    place: Place,
    process: Process,
    /// Where on the console the next text is looked for.
    seen: usize,
    /// The other end of its serial line, once something was typed.
    line: Option<UnixStream>,
}

impl Lab {
    /// Starts a virtual machine on the lab's network.
    ///
    /// # Errors
    /// When its cards cannot be made or QEMU not be started.
    pub fn machine(&self, options: Options) -> Result<Machine> {
        let (name, number) = self.next("m");
        for (n, card) in options.cards.iter().enumerate() {
            self.network().tap(&format!("{name}.{n}"), card.behind)?;
        }
        let dir = self.path("");
        if let Firmware::Uefi | Firmware::SecureUefi { .. } = &options.firmware {
            let from = match &options.firmware {
                Firmware::SecureUefi { variables } => variables.clone(),
                _ => PathBuf::from("/usr/share/OVMF/OVMF_VARS_4M.fd"),
            };
            fs::copy(&from, dir.join(format!("{name}.variables"))).map_err(LabError::io("copying", from))?;
        }
        let place = self.network().place("switch", &[]);
        let process = start(&options, &name, number, &dir, &place)?;
        Ok(Machine { options, name, number, dir, place, process, seen: 0, line: None })
    }

    /// Pulls the cable of a machine's card, or puts it back: frames vanish, the card notices nothing.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug(&self, machine: &Machine, n: usize, plugged: bool) -> Result<()> {
        let Some(behind) = machine.options.cards[n].behind else { return Ok(()) };
        self.network().connect(&format!("{}.{n}", machine.name), plugged.then_some(behind))
    }
}

fn start(options: &Options, name: &str, number: usize, dir: &std::path::Path, place: &Place) -> Result<Process> {
    let mut place = place.clone();
    place.hostname = None;
    Process::start(name, dir, &place, std::path::Path::new(QEMU), options.words(name, number, dir))
}

impl Machine {
    /// Its name in the lab: `m1` and so on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hardware address of its card number `n`.
    pub fn mac(&self, n: usize) -> String {
        mac(self.number, n)
    }

    /// All that its serial console has shown, over all its lives.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.dir.join(format!("{}.console", self.name))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until its console shows `text`, behind what was waited for before.
    ///
    /// # Errors
    /// [`LabError::Late`] after `limit`, [`LabError::Ended`] when the machine ended without it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_for_any(&[text], limit).map(drop)
    }

    /// As [`Machine::wait_for`], for whichever comes first; gives its position in `texts`.
    ///
    /// # Errors
    /// As [`Machine::wait_for`].
    pub fn wait_for_any(&mut self, texts: &[&str], limit: Duration) -> Result<usize> {
        let deadline = Instant::now() + limit;
        let what = || format!("{}: showing {texts:?}", self.name);
        let what = what();
        loop {
            let ended = self.process.poll_exit().is_some();
            self.drain();
            let console = self.console();
            let fresh = console.get(self.seen..).unwrap_or_default();
            let found = texts.iter().enumerate().filter_map(|(n, text)| Some((fresh.find(text)? + text.len(), n)));
            if let Some((end, n)) = found.min() {
                self.seen += end;
                return Ok(n);
            }
            if ended {
                return Err(LabError::Ended { what, tail: self.tail() });
            }
            if Instant::now() >= deadline {
                return Err(LabError::Late { what, after: limit, tail: self.tail() });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until it is off: switched off, or restarted where that ends it.
    ///
    /// # Errors
    /// [`LabError::Late`] after `limit`.
    pub fn wait_until_off(&mut self, limit: Duration) -> Result<()> {
        let ended = self.process.wait_exit(limit);
        ended.map(drop).map_err(|_| LabError::Late {
            what: format!("{}: switching off", self.name),
            after: limit,
            tail: self.tail(),
        })
    }

    /// Whether it is on.
    pub fn is_on(&mut self) -> bool {
        self.process.poll_exit().is_none()
    }

    /// Cuts its power.
    pub fn cut_power(&mut self) {
        self.process.kill();
        self.line = None;
    }

    /// Starts it again, with the same disks and what [`Machine::options`] says now.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.cut_power();
        self.seen = self.console().len();
        self.process = start(&self.options, &self.name, self.number, &self.dir, &self.place)?;
        Ok(())
    }

    /// Types on its serial line: just these characters.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        let socket = self.dir.join(format!("{}.serial", self.name));
        let line = match self.line.take() {
            Some(line) => line,
            None => {
                let line = UnixStream::connect(&socket).map_err(LabError::io("connecting to", &socket))?;
                line.set_nonblocking(true).map_err(LabError::io("setting up", &socket))?;
                line
            }
        };
        (&line).write_all(text.as_bytes()).map_err(LabError::io("writing to", &socket))?;
        self.line = Some(line);
        Ok(())
    }

    /// Whoever is connected to the serial line must read it, or the machine waits. The log has it all.
    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(Ok(1..)) = self.line.as_mut().map(|line| line.read(&mut buffer)) {}
    }

    /// Gives QEMU a command.
    ///
    /// # Errors
    /// When QEMU is gone or refuses.
    pub fn qmp(&self, execute: &str, arguments: &serde_json::Value) -> Result<serde_json::Value> {
        qmp::command(&self.dir.join(format!("{}.qmp", self.name)), execute, arguments)
    }

    /// Takes a picture of its screen.
    ///
    /// # Errors
    /// When it has none, or QEMU is gone.
    pub fn screenshot(&self) -> Result<Screen> {
        let file = self.dir.join(format!("{}.ppm", self.name));
        self.qmp("screendump", &json!({ "filename": file }))?;
        Screen::read(&file)
    }

    /// The end of its console and of what QEMU itself said.
    pub fn tail(&self) -> String {
        let console = self.console();
        // Colours and cursor movements are for terminals.
        let plain: String = console.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        format!("{}\n{}", tool::last_lines(&plain, 25), self.process.tail())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
        if std::thread::panicking() {
            eprintln!("--- the console of {} ended:\n{}", self.name, self.tail());
        }
    }
}
