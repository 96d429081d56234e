//! Codes that somebody types: lines of standard input, be it a terminal or a pipe.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{getpgrp, tcgetpgrp};
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::Duration;

/// The longest line that is looked at, in bytes; the rest of a longer one is left out.
const MAX_LINE: usize = 256;
/// How often a program in the background looks whether it has the terminal.
const BACKGROUND: Duration = Duration::from_millis(500);

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its end.
    Line(String),
    /// There will be no other line.
    End,
}

/// Starts the thread that listens, until the input ends or the program does.
///
/// # Errors
/// The system starts no thread.
pub(crate) fn start(tell: impl Fn(Heard) + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("slidecast-typed".to_owned());
    thread.spawn(move || {
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        loop {
            wait_for_input();
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => {
                    lines.end().map(Heard::Line).into_iter().for_each(&tell);
                    return tell(Heard::End);
                }
                Ok(len) => lines.take(&buffer[..len]).into_iter().map(Heard::Line).for_each(&tell),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("reading standard input: {error}");
                    return tell(Heard::End);
                }
            }
        }
    })?;
    Ok(())
}

/// Waits until reading would not stop this program, as reading from the terminal does in the background.
fn wait_for_input() {
    let stdin = io::stdin();
    loop {
        // However it ends: reading shows it.
        let _ = poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        if !stdin.is_terminal() || tcgetpgrp(stdin.as_fd()).is_ok_and(|group| group == getpgrp()) {
            return;
        }
        std::thread::sleep(BACKGROUND);
    }
}

/// Bytes cut into lines.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(self.whole());
            } else if self.partial.len() < MAX_LINE {
                self.partial.push(*byte);
            }
        }
        lines
    }

    /// A last line without an end.
    fn end(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.whole())
    }

    fn whole(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_their_bytes_are_cut() {
        let mut lines = Lines::default();
        assert!(lines.take(b"ABC").is_empty());
        assert_eq!(lines.take(b"234\n\nDEF567\nG"), ["ABC234", "", "DEF567"]);
        assert_eq!((lines.end(), lines.end()), (Some("G".to_owned()), None));
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        (0..1000).for_each(|_| assert!(lines.take(&[b'x'; 4096]).is_empty()));
        assert_eq!(lines.take(b"\n"), ["x".repeat(MAX_LINE)]);
        assert_eq!(lines.take(b"\xff\n"), ["\u{fffd}"]);
    }
}
