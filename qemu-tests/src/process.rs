//! A process of the lab: started in a namespace, with its output in files, ended by its own id only.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{LabError, Result};
use crate::tool;

/// How often a condition outside this process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Where and how a process is started.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The network namespace; none is the lab's own.
    pub namespace: Option<String>,
    /// The host name that the process sees.
    pub hostname: Option<String>,
    /// Files bound over files of the process's view of the system: (what it reads, over which path).
    pub bound: Vec<(PathBuf, PathBuf)>,
    /// The control group's `cgroup.procs`.
    pub group: Option<PathBuf>,
    /// What it reads as its standard input; nothing where there is none.
    pub input: Option<PathBuf>,
    /// Extra environment.
    pub env: Vec<(String, String)>,
    /// Standard output and standard error are those of the lab, for a person to see, and not kept in files.
    pub shown: bool,
}

/// A running or ended process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    ended: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Joins the control group first, as the fresh `/sys` of `ip netns exec` hides it, and dies with the lab. Every step
/// replaces the one before, so that the process id is the program's.
const OUTER: &str = r#"group=$1 namespace=$2; shift 2
[ -z "$group" ] || echo $$ > "$group"
if [ -n "$namespace" ]; then
    exec setpriv --pdeathsig KILL ip netns exec "$namespace" unshare --uts sh -c "$LAB_INNER" lab "$@"
fi
exec setpriv --pdeathsig KILL "$@""#;

/// Inside the namespace: the host name and the bound files, then the program.
const INNER: &str = r#"[ -z "$LAB_HOSTNAME" ] || echo "$LAB_HOSTNAME" > /proc/sys/kernel/hostname
while [ "$1" = --bind ]; do mount --bind "$2" "$3" || exit 125; shift 3; done
unset LAB_INNER LAB_HOSTNAME
exec "$@""#;

impl Process {
    /// Starts `program` with its output in `dir/name.out` and `dir/name.err`.
    ///
    /// # Errors
    /// When the files or the process cannot be made.
    pub fn start<I, S>(name: &str, dir: &Path, place: &Place, program: &Path, args: I) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let stdout = File::create(&out).map_err(LabError::io("creating", &out))?;
        let stderr = File::create(&err).map_err(LabError::io("creating", &err))?;
        let mut command = Command::new("sh");
        command.args(["-c", OUTER, "lab"]);
        command.arg(place.group.clone().unwrap_or_default()).arg(place.namespace.as_deref().unwrap_or_default());
        for (from, over) in &place.bound {
            command.arg("--bind").arg(from).arg(over);
        }
        command.arg(program).args(args.into_iter().map(Into::into));
        command.env("LAB_INNER", INNER).env("LAB_HOSTNAME", place.hostname.as_deref().unwrap_or_default());
        command.envs(place.env.iter().map(|(key, value)| (key, value)));
        let stdin = match &place.input {
            Some(path) => File::open(path).map_err(LabError::io("opening", path))?.into(),
            None => Stdio::null(),
        };
        command.stdin(stdin).process_group(0);
        if !place.shown {
            command.stdout(stdout).stderr(stderr);
        }
        let program = program.display().to_string();
        let child = command.spawn().map_err(|source| LabError::Start { program, source })?;
        Ok(Self { name: name.to_owned(), child, out, err, ended: None })
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What it wrote to standard error so far.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Both outputs, standard error last.
    pub fn said(&self) -> String {
        self.out() + &self.err()
    }

    /// How it ended, if it has.
    pub fn poll_exit(&mut self) -> Option<Exit> {
        if self.ended.is_none() {
            let status = self.child.try_wait().ok()??;
            self.ended = Some(match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or(0)),
            });
        }
        self.ended
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::Late`] after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<Exit> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(exit) = self.poll_exit() {
                return Ok(exit);
            }
            if Instant::now() >= deadline {
                return Err(self.late(format!("{}: ending", self.name), limit));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until `text` occurs in its output.
    ///
    /// # Errors
    /// [`LabError::Late`] after `limit`, [`LabError::Ended`] when it ended without saying so.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_until(&format!("saying {text:?}"), limit, |process| process.said().contains(text))
    }

    /// Waits until it listens on a TCP port in its network namespace.
    ///
    /// # Errors
    /// As [`Process::wait_for`].
    pub fn wait_for_tcp(&mut self, port: u16, limit: Duration) -> Result<()> {
        let end = format!(":{port:04X}");
        self.wait_until(&format!("listening on TCP port {port}"), limit, |process| {
            let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", process.pid()));
            let text: String = tables.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
            // Field 1 is the local address, field 3 the state; 0A is LISTEN (proc_pid_net(5)).
            text.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().take(4).collect();
                matches!(fields.as_slice(), [_, local, _, "0A"] if local.ends_with(&end))
            })
        })
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// As [`Process::wait_for`].
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        let what = format!("{}: {what}", self.name);
        loop {
            let ended = self.poll_exit().is_some();
            if condition(self) {
                return Ok(());
            }
            if ended {
                return Err(LabError::Ended { what, tail: self.tail() });
            }
            if Instant::now() >= deadline {
                return Err(self.late(what, limit));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Bytes that its network namespace has received and sent over `interface` so far, headers and all. Nothing before
    /// it has come there.
    pub fn traffic(&self, interface: &str) -> Option<(u64, u64)> {
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
        if namespace(&self.pid().to_string()) == namespace("self") {
            return None;
        }
        let table = fs::read_to_string(format!("/proc/{}/net/dev", self.pid())).ok()?;
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
        // Eight columns of what came, then those of what went (proc_pid_net(5)).
        let mut counts = line.split_whitespace().map(|word| word.parse().ok());
        Some((counts.next()??, counts.nth(7)??))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = kill(self.raw_pid(), signal);
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        if self.poll_exit().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.ended = Some(Exit::Signal(Signal::SIGKILL as i32));
        }
    }

    /// The end of its output.
    pub fn tail(&self) -> String {
        tool::last_lines(&self.said(), 15)
    }

    fn late(&self, what: String, after: Duration) -> LabError {
        LabError::Late { what, after, tail: self.tail() }
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).expect("Linux process ids are below 2^22"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} ({:?}) said last:\n{}", self.name, self.ended, self.tail());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    #[test]
    fn output_and_exit_code_are_those_of_the_program() {
        let run = Run::start().unwrap();
        let script = "echo ready; echo careful >&2; exit 7";
        let mut process = Process::start("p", run.dir(), &Place::default(), Path::new("sh"), ["-c", script]).unwrap();
        process.wait_for("ready", Duration::from_secs(5)).unwrap();
        assert_eq!(process.wait_exit(Duration::from_secs(5)).unwrap(), Exit::Code(7));
        assert_eq!((process.out().as_str(), process.err().as_str()), ("ready\n", "careful\n"));
    }

    #[test]
    fn waiting_for_words_of_a_process_that_ended_is_an_error_at_once() {
        let run = Run::start().unwrap();
        let mut process = Process::start("p", run.dir(), &Place::default(), Path::new("true"), [""; 0]).unwrap();
        let error = process.wait_for("never", Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, LabError::Ended { .. }), "{error}");
    }

    #[test]
    fn killing_ends_the_program_itself_and_not_a_wrapper() {
        let run = Run::start().unwrap();
        let mut process = Process::start("p", run.dir(), &Place::default(), Path::new("sleep"), ["1000"]).unwrap();
        let command = || fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap_or_default();
        while command().trim() != "sleep" {
            std::thread::sleep(LOOK);
        }
        process.kill();
        assert_eq!(process.poll_exit(), Some(Exit::Signal(9)));
    }
}
