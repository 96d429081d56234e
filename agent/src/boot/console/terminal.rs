//! One console: a serial line or a screen.

use super::enlarge::enlarge;
use crate::sys::tty;
use nix::fcntl::OFlag;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a line that takes nothing is tried.
const STUCK: Duration = Duration::from_millis(500);
/// A screen that does not say how large it is.
const SIZE: (u16, u16) = (80, 25);
/// Hides the cursor, keeps the screen from going dark, and clears it.
const PREPARE: &str = "\x1b[?25l\x1b[9;0]\x1b[14;0]\x1b[2J";
/// Shows the cursor below all that stands there.
const RESTORE: &str = "\x1b[?25h\x1b[999;1H\r\n";

#[derive(Debug)]
pub(in crate::boot) struct Console {
    name: String,
    file: File,
    screen: bool,
    /// Somebody has a shell on it: nothing else is written.
    lent: AtomicBool,
    plain: Option<libc::termios>,
}

/// Every console that the kernel was told to use; the one it has, if it doesn't say.
pub(in crate::boot) fn open_all() -> Vec<Console> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut names: Vec<&str> = active.split_whitespace().collect();
    names.dedup();
    if names.is_empty() {
        names.push("console");
    }
    names.into_iter().filter_map(|name| Console::open(Path::new("/dev"), name)).collect()
}

impl Console {
    pub(super) fn open(folder: &Path, name: &str) -> Option<Self> {
        // Without O_NONBLOCK a line with nothing at its end could keep us for ever.
        let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(folder.join(name)).ok()?;
        let screen = name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        let plain = tcgetattr(&file).ok().map(libc::termios::from);
        Some(Self { name: name.to_owned(), file, screen, lent: AtomicBool::new(false), plain })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is a screen.
    pub(super) fn is_screen(&self) -> bool {
        self.screen
    }

    pub(super) fn size(&self) -> (u16, u16) {
        tty::size(&self.file).unwrap_or(SIZE)
    }

    /// Makes keys come one by one, and a screen ready to be drawn on.
    pub(super) fn prepare(&self) {
        if let Some(plain) = self.plain {
            let mut raw = Termios::from(plain);
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, &raw);
        }
        if self.screen {
            enlarge(&self.file);
            self.write(PREPARE);
        }
    }

    /// Makes it a plain terminal again.
    pub(super) fn restore(&self) {
        if let Some(plain) = self.plain {
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, &plain.into());
        }
        if self.screen {
            self.write(RESTORE);
        }
    }

    /// Prints one line of ours.
    pub(in crate::boot) fn print(&self, text: &str) {
        self.write(&format!("slidecast: {text}\r\n"));
    }

    /// Writes; gives up on a line that takes nothing.
    pub(super) fn write(&self, text: &str) {
        if self.lent.load(Ordering::Acquire) {
            return;
        }
        let (mut left, mut moved) = (text.as_bytes(), Instant::now());
        while !left.is_empty() {
            match (&self.file).write(left) {
                Ok(bytes) => (left, moved) = (&left[bytes..], Instant::now()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && moved.elapsed() < STUCK => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return,
            }
        }
    }

    /// The next key, if one was pressed.
    pub(super) fn key(&self) -> Option<u8> {
        let mut key = [0];
        matches!((&self.file).read(&mut key), Ok(1)).then_some(key[0])
    }

    /// Hands the console to somebody else for as long as `work` takes.
    pub(super) fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.restore();
        self.lent.store(true, Ordering::Release);
        let result = work();
        self.lent.store(false, Ordering::Release);
        self.prepare();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_and_serial_lines_are_told_apart_and_missing_ones_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tty0", "ttyS0", "ttyAMA0", "hvc0"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let is_screen = |name: &str| Console::open(folder.path(), name).map(|console| console.is_screen());
        assert_eq!(is_screen("tty0"), Some(true));
        assert_eq!(["ttyS0", "ttyAMA0", "hvc0"].map(is_screen), [Some(false); 3]);
        assert_eq!(is_screen("ttyS9"), None);
    }

    #[test]
    fn a_line_is_one_line_and_a_console_that_is_lent_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ttyS0");
        std::fs::write(&path, "").unwrap();
        let console = Console::open(folder.path(), "ttyS0").unwrap();
        console.print("link eth0");
        console.lend(|| console.print("secret"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "slidecast: link eth0\r\n");
    }
}
