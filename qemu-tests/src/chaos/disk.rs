//! A disk that can be made faulty while it is in use: a loop device over a file that QEMU's storage daemon shows through
//! FUSE. The daemon is told over its QMP socket to put `blkdebug` between the two, is stopped, or is killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::process::{Place, Process};
use crate::tool;

/// For what the daemon answers at once.
const SOON: Duration = Duration::from_secs(10);

/// The kinds of requests that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Reading.
    Read,
    /// Writing, zeros as well.
    Write,
    /// Flushing.
    Flush,
}

/// The disk.
#[derive(Debug)]
pub struct FaultyDisk {
    /// The loop device.
    pub device: PathBuf,
    socket: PathBuf,
    daemon: Process,
}

impl FaultyDisk {
    /// Whether this machine can have one.
    pub fn can_be() -> bool {
        crate::target::loops_work()
            && tool::have("qemu-storage-daemon")
            && tool::have("fusermount3")
            && Path::new("/dev/fuse").exists()
    }

    /// Makes one over the file `bytes` of the lab, which exists.
    ///
    /// # Errors
    /// When the daemon does not start or there is no loop device.
    pub fn new(lab: &Lab, name: &str, file: &Path) -> Result<Self> {
        let (export, socket) = (lab.path(&format!("{name}.export")), lab.path(&format!("{name}.qmp")));
        File::create(&export).map_err(LabError::io("creating", &export))?;
        let bytes = crate::compare::length(file)?;
        let args = [
            "--chardev".to_owned(),
            format!("socket,id=qmp,path={},server=on,wait=off", socket.display()),
            "--monitor".to_owned(),
            "chardev=qmp".to_owned(),
            "--blockdev".to_owned(),
            format!("driver=file,node-name=file,filename={}", file.display()),
            "--blockdev".to_owned(),
            "driver=raw,node-name=shown,file=file".to_owned(),
            "--export".to_owned(),
            format!("type=fuse,id=export,node-name=shown,mountpoint={},writable=on", export.display()),
        ];
        let name = format!("{name}-disk");
        let dir = lab.path("");
        let mut daemon = Process::start(&name, &dir, &Place::default(), Path::new("qemu-storage-daemon"), args)?;
        let there = |_: &Process| fs::metadata(&export).is_ok_and(|meta| meta.len() == bytes);
        daemon.wait_until("showing the disk", SOON, there)?;
        // Without direct I/O the kernel hands requests on one at a time: QEMU 7.2 mixes up those that come together.
        let said = tool::run("losetup", [Path::new("--find"), Path::new("--show"), &export])?;
        let device = PathBuf::from(said.trim());
        tool::run("blockdev", [Path::new("--setrw"), &device])?;
        Ok(Self { device, socket, daemon })
    }

    /// From now on every such request fails with EIO.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub(super) fn fail(&self, request: Request) -> Result<()> {
        let kinds: &[&str] = match request {
            Request::Read => &["read"],
            Request::Write => &["write", "write-zeroes"],
            Request::Flush => &["flush"],
        };
        let rules: Vec<Value> =
            kinds.iter().map(|kind| json!({ "event": "none", "iotype": kind, "errno": 5, "once": false })).collect();
        let faulty = json!({ "driver": "blkdebug", "node-name": "faulty", "image": "file", "inject-error": rules });
        let over = json!({ "options": [{ "driver": "raw", "node-name": "shown", "file": "faulty" }] });
        self.command(&[("qmp_capabilities", json!({})), ("blockdev-add", faulty), ("blockdev-reopen", over)])
    }

    /// From now on everything fails.
    pub(super) fn remove(&mut self) {
        self.daemon.kill();
    }

    /// From now on nothing is answered, until [`FaultyDisk::go_on`].
    pub fn hang(&self) {
        self.daemon.signal(Signal::SIGSTOP);
    }

    /// Ends [`FaultyDisk::hang`].
    pub fn go_on(&self) {
        self.daemon.signal(Signal::SIGCONT);
    }

    /// Gives the daemon commands, one after the other.
    fn command(&self, commands: &[(&str, Value)]) -> Result<()> {
        let io = |doing| LabError::io(doing, &self.socket);
        let mut stream = UnixStream::connect(&self.socket).map_err(io("connecting to"))?;
        stream.set_read_timeout(Some(SOON)).map_err(io("connecting to"))?;
        let reader = BufReader::new(stream.try_clone().map_err(io("connecting to"))?);
        let mut lines = reader.lines();
        for (name, arguments) in commands {
            let command = json!({ "execute": name, "arguments": arguments });
            stream.write_all(format!("{command}\n").as_bytes()).map_err(io("writing to"))?;
            // A greeting and events come in between.
            loop {
                let line = lines.next().transpose().map_err(io("reading from"))?.unwrap_or_default();
                let answer: Value = serde_json::from_str(&line).unwrap_or_default();
                if answer.get("return").is_some() {
                    break;
                }
                if line.is_empty() || answer.get("error").is_some() {
                    return Err(LabError::Tool { command: command.to_string(), code: None, stderr: line });
                }
            }
        }
        Ok(())
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        // First whoever may wait for it is let go.
        self.daemon.kill();
        let _ = tool::run("losetup", [Path::new("-d"), &self.device]);
    }
}
