//! dnsmasq as a child: started, listened to, started again when it dies, and never left behind.
//!
//! Between us and dnsmasq stands a shell that waits for either of two things: that dnsmasq ends, or that our end of its
//! standard input closes, which the kernel does however we go. (`PR_SET_PDEATHSIG` would not do: the kernel forgets it
//! when dnsmasq changes its user.) The group of processes is its own, so that Ctrl-C reaches us alone and dnsmasq goes
//! in order.

use super::error::BootError;
use super::event::{BootEvent, Tell};
use super::log_lines::{LogReader, Said};
use crate::shown::shown;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `$1`: the run's folder. The rest: what to run.
const GUARD: &str = r#"dir=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{ read -r line <&3; rm -rf "$dir"; kill "$child"; } >/dev/null 2>&1 &
guard=$!
wait "$child"
code=$?
kill "$guard" 2>/dev/null
exit "$code""#;

/// How long dnsmasq may take to say that it runs.
const START_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// After this uptime the restart counter is reset.
const WELL: Duration = Duration::from_secs(60);
/// The most restarts without such an uptime in between.
const MAX_RESTARTS: u32 = 6;
/// The longest line that is read.
const MAX_LINE: u64 = 4096;

/// How dnsmasq is started.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    /// The run's folder, removed when we are gone.
    pub(super) dir: PathBuf,
    /// It can't become another user here.
    pub(super) stays_root: bool,
}

/// The running child, as far as ending it goes.
#[derive(Debug, Default)]
struct Running {
    child: Option<Child>,
    /// No more is to be started.
    over: bool,
}

/// dnsmasq. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Dnsmasq {
    running: Arc<Mutex<Running>>,
    thread: Option<JoinHandle<()>>,
}

/// What became of the first start.
type First = Result<(), String>;

impl Dnsmasq {
    /// Starts dnsmasq and waits until it runs.
    pub(super) fn start(order: Order, tell: Tell) -> Result<Self, BootError> {
        let running = Arc::new(Mutex::new(Running::default()));
        let (first, started) = sync_channel(1);
        let supervisor =
            Supervisor { order, tell, running: running.clone(), first: Some(first), reader: LogReader::default() };
        let thread = std::thread::Builder::new().name("slidecast-dnsmasq".to_owned()).spawn(move || supervisor.run());
        let thread = thread.map_err(BootError::system("starting a thread"))?;
        let dnsmasq = Self { running, thread: Some(thread) };
        wait_started(&started)?;
        Ok(dnsmasq)
    }
}

fn wait_started(started: &Receiver<First>) -> Result<(), BootError> {
    match started.recv_timeout(START_WITHIN) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(said)) => Err(BootError::Dnsmasq { said }),
        Err(_) => Err(BootError::Dnsmasq { said: format!("silent for {} s", START_WITHIN.as_secs()) }),
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let child = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.over = true;
            running.child.take()
        };
        if let Some(child) = child {
            end(child);
        }
        if let Some(thread) = self.thread.take() {
            // It ends with the child's output; what it panicked of was told.
            let _ = thread.join();
        }
    }
}

/// Ends a child in order, or else by force.
fn end(mut child: Child) {
    drop(child.stdin.take());
    let deadline = Instant::now() + END_WITHIN;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
}

struct Supervisor {
    order: Order,
    tell: Tell,
    running: Arc<Mutex<Running>>,
    /// To whom the first start matters.
    first: Option<SyncSender<First>>,
    reader: LogReader,
}

impl Supervisor {
    fn run(mut self) {
        let mut starts = 0;
        loop {
            let began = Instant::now();
            let why = match self.spawn() {
                Ok(Some(output)) => self.listen(output),
                Ok(None) => return,
                Err(error) => format!("{}: {error}", self.order.program.display()),
            };
            let why = match self.reap() {
                Some(how) if why.is_empty() => how,
                Some(_) => why,
                None => return,
            };
            if let Some(first) = self.first.take() {
                let _ = first.send(Err(why));
                return;
            }
            starts = if began.elapsed() >= WELL { 1 } else { starts + 1 };
            if starts >= MAX_RESTARTS {
                (self.tell)(BootEvent::Ended(format!("dnsmasq does not stay up: {why}")));
                return;
            }
            let pause = Duration::from_millis(500 << starts.min(6));
            (self.tell)(BootEvent::Trouble(format!(
                "dnsmasq ended: {why}; it is started again in {} s",
                pause.as_secs()
            )));
            if !self.pause(pause) {
                return;
            }
        }
    }

    /// Waits, unless all is over.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            if self.running.lock().unwrap_or_else(PoisonError::into_inner).over {
                return false;
            }
        }
        true
    }

    /// Starts the child; none if all is over.
    fn spawn(&self) -> io::Result<Option<ChildStderr>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.over {
            return Ok(None);
        }
        let Order { program, config, dir, stays_root } = &self.order;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "slidecast-dnsmasq"]).arg(dir).arg(program);
        command.arg(format!("--conf-file={}", config.display()));
        // The first leaves user and groups alone; it says the same on standard error of itself.
        let foreground: &[&str] =
            if *stays_root { &["--no-daemon"] } else { &["--keep-in-foreground", "--log-facility=-"] };
        command.args(foreground);
        command.env("LC_ALL", "C").process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stderr.take();
        running.child = Some(child);
        Ok(output)
    }

    /// Reads what the child says to its end; gives its last words, which say why it ended.
    fn listen(&mut self, output: ChildStderr) -> String {
        let mut output = BufReader::new(output);
        let (mut line, mut last) = (Vec::new(), String::new());
        loop {
            line.clear();
            match (&mut output).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return last,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            match self.reader.on_line(text, Instant::now()) {
                Said::Started => {
                    if let Some(first) = self.first.take() {
                        let _ = first.send(Ok(()));
                    }
                }
                Said::Event(event) => (self.tell)(event),
                Said::Nothing => {
                    log::debug!("{}", shown(text));
                    if let Some(words) = last_words(text) {
                        last = shown(words);
                    }
                }
            }
        }
    }

    /// Takes note of the child's end; none if it was wanted.
    fn reap(&self) -> Option<String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.over {
            return None;
        }
        let Some(mut child) = running.child.take() else { return Some("it did not start".to_owned()) };
        Some(child.wait().map_or_else(|error| error.to_string(), |status| status.to_string()))
    }
}

/// What a line says about dnsmasq itself, which may be why it ends.
fn last_words(line: &str) -> Option<&str> {
    let (who, said) = line.split_once(": ").unwrap_or(("", line));
    let itself = matches!(who.split('[').next(), Some("dnsmasq" | ""));
    let why = !said.is_empty() && !said.starts_with("compile time options") && said != "FAILED to start up";
    (itself && why).then_some(said)
}

/// The program's path and the configuration's, for tests that stand in for dnsmasq.
#[cfg(test)]
impl Order {
    fn script(dir: &std::path::Path, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let program = dir.join("dnsmasq");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let run = dir.join("run");
        std::fs::create_dir_all(&run).unwrap();
        Self { program, config: dir.join("dnsmasq.conf"), dir: run, stays_root: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn teller() -> (Tell, Receiver<BootEvent>) {
        let (tell, told) = channel();
        (Arc::new(move |event| drop(tell.send(event))), told)
    }

    const STARTED: &str = "echo 'dnsmasq[1]: started, version 2.90' >&2";

    #[test]
    fn a_start_that_fails_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo >&2; echo 'dnsmasq[7]: failed to bind DHCP server socket: Address already in use' >&2
                      echo 'dnsmasq[7]: FAILED to start up' >&2; exit 2";
        let error = Dnsmasq::start(Order::script(dir.path(), script), teller().0).unwrap_err();
        let expected = "dnsmasq did not start: failed to bind DHCP server socket: Address already in use";
        assert_eq!(error.to_string(), expected);
        let error = Dnsmasq::start(Order::script(dir.path(), "exit 3"), teller().0).unwrap_err();
        assert_eq!(error.to_string(), "dnsmasq did not start: exit status: 3");
    }

    #[test]
    fn one_that_dies_is_started_again_and_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let flag = dir.path().join("again");
        let script = format!(
            "{STARTED}; [ -e {0} ] && exec sleep 1000; touch {0}; echo 'dnsmasq: oh' >&2; exit 1",
            flag.display()
        );
        let (tell, told) = teller();
        let dnsmasq = Dnsmasq::start(Order::script(dir.path(), &script), tell).unwrap();
        let event = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(event, BootEvent::Trouble("dnsmasq ended: oh; it is started again in 1 s".to_owned()));
        drop(dnsmasq);
        assert!(told.recv_timeout(Duration::from_secs(10)).is_err(), "nothing more is told");
    }

    #[test]
    fn dropping_it_ends_the_child_and_removes_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let order = Order::script(dir.path(), &format!("echo $$ >{}; {STARTED}; exec sleep 1000", pid.display()));
        let run = order.dir.clone();
        let dnsmasq = Dnsmasq::start(order, teller().0).unwrap();
        let pid = std::fs::read_to_string(pid).unwrap();
        let alive = || std::path::Path::new("/proc").join(pid.trim()).join("comm").exists();
        assert!(alive());
        drop(dnsmasq);
        assert!(!alive(), "the child outlives us");
        assert!(!run.exists(), "the folder outlives us");
    }

    #[test]
    fn one_that_does_not_end_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let order = Order::script(dir.path(), &format!("trap '' TERM; {STARTED}; while :; do sleep 1000; done"));
        let dnsmasq = Dnsmasq::start(order, teller().0).unwrap();
        let began = Instant::now();
        drop(dnsmasq);
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
