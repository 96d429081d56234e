//! The consoles of the machine: all that the kernel was told to use.
//!
//! A serial line gets the log, and a line on how things stand when that has changed. A screen shows how things stand in letters
//! that can be read from two metres, with the log below.

mod enlarge;
mod font;
mod keys;
mod meter;
mod screen;
mod terminal;

use super::options::Options;
use crate::logging::ON_CONSOLES;
use crate::machine::Operator;
use crate::status::Board;
use log::{Level, LevelFilter, Log, Metadata, Record};
use meter::Meter;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub(super) use terminal::{Console, open_all};

/// How many lines may wait for slow consoles.
const WAITING_LINES: usize = 512;
/// How many lines a screen can show at most.
const KEPT_LINES: usize = 200;
/// How often screens are drawn anew.
const FRAME: Duration = Duration::from_millis(250);
/// The shortest time between two lines on how things stand.
const STATUS_LINE: Duration = Duration::from_secs(5);

/// What is written to the consoles.
#[derive(Debug)]
enum Word {
    Line(String),
    /// A line that the kernel has printed on serial lines itself.
    Printed(String),
    /// Write what there is, and end.
    End,
}

/// The threads of the consoles.
#[derive(Debug)]
pub(super) struct Consoles {
    words: SyncSender<Word>,
    thread: JoinHandle<()>,
}

/// Starts them: one that writes to all consoles, and one for the keyboard of each.
///
/// # Errors
/// There is no room for a thread.
pub(super) fn start(board: &Board, operator: Operator, options: &Options) -> io::Result<Consoles> {
    let consoles = Arc::new(open_all());
    for at in 0..consoles.len() {
        let keys = keys::Keys::new(Arc::clone(&consoles), at, board.clone(), operator.clone(), options);
        std::thread::Builder::new().name("slidecast-key".to_owned()).spawn(move || keys.run())?;
    }
    let (words, receiver) = sync_channel(WAITING_LINES);
    let writer = Writer { consoles, board: board.clone(), log: VecDeque::new(), meter: Meter::default() };
    let thread = std::thread::Builder::new().name("slidecast-con".to_owned()).spawn(move || writer.run(&receiver))?;
    Ok(Consoles { words, thread })
}

impl Consoles {
    /// Where the log goes.
    pub(super) fn log(&self) -> ConsoleLog {
        let said = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
        ConsoleLog { words: self.words.clone(), most: said.unwrap_or(LevelFilter::Info) }
    }

    /// Writes what is waiting.
    pub(super) fn finish(self) {
        let _ = self.words.send(Word::End);
        let _ = self.thread.join();
    }
}

/// The log on the consoles.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    words: SyncSender<Word>,
    most: LevelFilter,
}

impl ConsoleLog {
    /// The least important lines that are written.
    pub(super) fn most(&self) -> LevelFilter {
        self.most
    }
}

impl Log for ConsoleLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = printable(&record.args().to_string());
        let line = match record.level() {
            Level::Warn => format!("warning: {text}"),
            // An error is what is to be read first; its lines begin with what failed.
            Level::Info | Level::Error => text,
            level => format!("{}: {text}", level.as_str().to_ascii_lowercase()),
        };
        let word = if record.target() == ON_CONSOLES { Word::Printed(line) } else { Word::Line(line) };
        // Logging must never wait for a slow serial line.
        let _ = self.words.try_send(word);
    }

    fn flush(&self) {}
}

/// What comes from devices and servers must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The thread that writes.
struct Writer {
    consoles: Arc<Vec<Console>>,
    board: Board,
    log: VecDeque<String>,
    meter: Meter,
}

impl Writer {
    fn run(mut self, words: &Receiver<Word>) {
        self.consoles.iter().for_each(Console::prepare);
        let (mut drawn, mut said, mut last) = (None::<Instant>, None::<Instant>, String::new());
        loop {
            match words.recv_timeout(FRAME) {
                Ok(word @ (Word::Line(_) | Word::Printed(_))) => self.take(word),
                Ok(Word::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if drawn.is_some_and(|at| at.elapsed() < FRAME) {
                continue;
            }
            drawn = Some(Instant::now());
            let status = self.board.read();
            self.meter.take(&status.figures, Instant::now());
            self.draw();
            let line = self.meter.line(&status);
            if meter::percent(&status).is_some() && line != last && said.is_none_or(|at| at.elapsed() >= STATUS_LINE) {
                self.serials().for_each(|console| console.print(&line));
                (said, last) = (Some(Instant::now()), line);
            }
        }
        while let Ok(word @ (Word::Line(_) | Word::Printed(_))) = words.try_recv() {
            self.take(word);
        }
        self.draw();
        self.consoles.iter().for_each(Console::restore);
    }

    fn serials(&self) -> impl Iterator<Item = &Console> {
        self.consoles.iter().filter(|console| !console.is_screen())
    }

    fn take(&mut self, word: Word) {
        let line = match word {
            Word::Line(line) => {
                self.serials().for_each(|console| console.print(&line));
                line
            }
            Word::Printed(line) => line,
            Word::End => return,
        };
        if self.log.len() == KEPT_LINES {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    fn draw(&self) {
        let status = self.board.read();
        for console in self.consoles.iter().filter(|console| console.is_screen()) {
            console.write(&screen::draw(&status, &self.meter, &self.log, console.size()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints_itself_is_on_a_serial_line_once_and_on_screens() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        ["ttyS0", "tty0"].iter().for_each(|name| std::fs::write(path(name), "").unwrap());
        let consoles = ["ttyS0", "tty0"].map(|name| Console::open(folder.path(), name).unwrap());
        let (words, receiver) = sync_channel(WAITING_LINES);
        let log = ConsoleLog { words: words.clone(), most: LevelFilter::Info };
        let say = |target: &str, text: &str| {
            let args = format_args!("{text}");
            log.log(&Record::builder().level(Level::Warn).target(target).args(args).build());
        };
        say(ON_CONSOLES, "kernel: I/O error, dev vda");
        say("slidecast_agent", "link eth0");
        words.send(Word::End).unwrap();
        let consoles = Arc::new(consoles.into_iter().collect());
        Writer { consoles, board: Board::default(), log: VecDeque::new(), meter: Meter::default() }.run(&receiver);
        assert_eq!(std::fs::read_to_string(path("ttyS0")).unwrap(), "slidecast: warning: link eth0\r\n");
        let screen = std::fs::read_to_string(path("tty0")).unwrap();
        assert!(screen.contains("warning: kernel: I/O error, dev vda") && screen.contains("link eth0"), "{screen}");
    }
}
