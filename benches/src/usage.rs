//! What a program that ran took: time, processor time and memory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use slidecast_lab::{LabError, Result};

/// Ticks of processor time in a second, as `/proc` counts them (proc_pid_stat(5)).
const TICKS: f64 = 100.0;
/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// What a program took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// From its start to its end, in seconds.
    pub seconds: f64,
    /// Processor time of it and of what it started and waited for, in seconds.
    pub processor: f64,
    /// The most memory that it held itself, in bytes (`VmHWM`, with the pages of the program file).
    pub peak: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.processor += other.processor;
        self.peak = self.peak.max(other.peak);
    }
}

/// Runs `command` to its end. What it says goes into the file `said`, and into the error if it fails.
///
/// # Errors
/// When it cannot be started or fails.
pub fn measured(mut command: Command, said: &Path) -> Result<Usage> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let log = File::create(said).map_err(LabError::io("creating", said))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let before = processor_of_children();
    let started = Instant::now();
    let start = |source| LabError::Start { program: words.first().cloned().unwrap_or_default(), source };
    let mut child = command.spawn().map_err(start)?;
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_of(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().map_err(LabError::io("waiting for", &words[0]))? {
            break status;
        }
        std::thread::sleep(LOOK);
    };
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        let stderr = fs::read_to_string(said).unwrap_or_default();
        return Err(LabError::Tool { command: words.join(" "), code: status.code(), stderr });
    }
    Ok(Usage { seconds, processor: processor_of_children() - before, peak })
}

/// As [`measured`], of a line for the shell, which fails when anything in its pipe does.
///
/// # Errors
/// As [`measured`].
pub fn measured_line(line: &str, said: &Path) -> Result<Usage> {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-e", "-c", line]);
    measured(command, said)
}

/// Processor time of all children that were waited for, in seconds (proc_pid_stat(5), fields 16 and 17).
fn processor_of_children() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

fn peak_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}
