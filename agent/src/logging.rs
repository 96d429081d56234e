//! Lines for people: on standard error, and the same ones for the server to show.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many lines may wait for the server; what comes on top is only on the console.
const WAITING_LINES: usize = 256;

/// The target of lines that stand on the machine's consoles already: the kernel printed them there. They are for the server and for
/// screens, which are drawn over what the kernel prints.
pub(crate) const ON_CONSOLES: &str = "slidecast_agent::on_consoles";

/// A line for the server.
#[derive(Debug)]
pub(crate) struct Line {
    /// How much it matters.
    pub(crate) level: Level,
    /// The text, without time and level.
    pub(crate) text: String,
}

/// Starts logging to standard error, `info` and above unless `RUST_LOG` says otherwise. Gives the lines that the server
/// is to see: `info` and above.
pub(crate) fn start() -> Receiver<Line> {
    let console = env_logger::Builder::new()
        .filter_level(LevelFilter::Info)
        .parse_env("RUST_LOG")
        .format(|out, record| match record.level() {
            Level::Info => writeln!(out, "slidecast-agent: {}", record.args()),
            level => writeln!(out, "slidecast-agent: {}: {}", level.as_str().to_ascii_lowercase(), record.args()),
        })
        .build();
    let most = console.filter();
    start_with(console, most)
}

/// Starts logging to `console`, which takes lines up to `most`. Gives the lines that the server is to see: `info` and above.
pub(crate) fn start_with(console: impl Log + 'static, most: LevelFilter) -> Receiver<Line> {
    let (sender, receiver) = sync_channel(WAITING_LINES);
    if log::set_boxed_logger(Box::new(Both { console, server: sender })).is_ok() {
        log::set_max_level(most.max(LevelFilter::Info));
    }
    receiver
}

/// The console and the queue of lines for the server.
struct Both<C> {
    console: C,
    server: SyncSender<Line>,
}

impl<C: Log> Log for Both<C> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info || self.console.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.console.log(record);
        if record.level() <= Level::Info {
            let _ = self.server.try_send(Line { level: record.level(), text: record.args().to_string() });
        }
    }

    fn flush(&self) {
        self.console.flush();
    }
}
