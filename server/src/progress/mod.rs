//! Shows what happens: as a live table, as lines, or as JSON for programs.
//!
//! The event loop leaves the newest [`Snapshot`] here and goes on; a thread of its own does the writing. A terminal that
//! takes nothing costs the deployment nothing.

mod json;
mod plain;
mod table;
mod words;

use crate::approve::UnapprovedView;
use crate::cli::ProgressStyle;
use crate::view::{Facts, Snapshot};
use json::Json;
pub(crate) use json::{node_json, progress_json};
use plain::Plain;
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use table::Table;

/// The most lines that wait to be written; beyond that the oldest go.
const MAX_LINES: usize = 200;
/// How long the end waits for a terminal that is blocked.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One of the ways of showing.
#[derive(Debug)]
enum Face {
    Table(Table),
    Plain(Plain),
    Json(Json),
    None,
}

impl Face {
    fn start(&mut self, facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table(_) | Self::None => Ok(()),
            Self::Plain(plain) => plain.start(facts, out),
            Self::Json(json) => json.start(facts, out),
        }
    }

    fn line(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table(table) => table.line(text, out),
            Self::Plain(_) => writeln!(out, "{text}"),
            Self::Json(json) => json.line(text, out),
            Self::None => Ok(()),
        }
    }

    fn unapproved(&mut self, view: &UnapprovedView, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Json(json) => json.unapproved(view, out),
            _ => self.line(&view.line(), out),
        }
    }

    fn show(&mut self, facts: &Facts, snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Table(table) => table.show(facts, snapshot, terminal(), out),
            Self::Plain(plain) => plain.show(facts, snapshot, out),
            Self::Json(json) => json.show(facts, snapshot, out),
            Self::None => Ok(()),
        }
    }

    fn end(&mut self, snapshot: &Snapshot, code: u8, out: &mut dyn Write) -> io::Result<()> {
        match self {
            // The table cuts long lines.
            Self::Table(_) => words::end(snapshot, |_| false, out),
            Self::Plain(plain) => words::end(snapshot, |node| plain.said(node), out),
            Self::Json(json) => json.end(snapshot, code, out),
            Self::None => Ok(()),
        }
    }
}

/// Columns and rows of the terminal.
fn terminal() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or((100, 40), |(columns, rows)| (usize::from(columns.0), usize::from(rows.0)))
}

/// Something that is shown once.
#[derive(Debug)]
enum Item {
    Line(String),
    Unapproved(Box<UnapprovedView>),
}

#[derive(Debug, Default)]
struct Mailbox {
    items: VecDeque<Item>,
    snapshot: Option<Box<Snapshot>>,
    end: Option<u8>,
}

/// Takes lines to show from any thread, also before [`Progress::start`].
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<(Mutex<Mailbox>, Condvar)>);

impl Lines {
    fn leave(&self, what: impl FnOnce(&mut Mailbox)) {
        let (mailbox, news) = &*self.0;
        what(&mut mailbox.lock().unwrap_or_else(PoisonError::into_inner));
        news.notify_one();
    }

    /// Shows a line of text that is fit to show.
    pub fn line(&self, text: String) {
        self.item(Item::Line(text));
    }

    fn item(&self, item: Item) {
        self.leave(|mailbox| {
            mailbox.items.push_back(item);
            if mailbox.items.len() > MAX_LINES {
                mailbox.items.pop_front();
            }
        });
    }
}

/// Where the event loop leaves what is to be shown.
#[derive(Debug)]
pub struct Progress {
    lines: Lines,
    ended: Receiver<()>,
}

impl Progress {
    /// Starts to show a deployment, and `lines`, on standard output.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(style: ProgressStyle, facts: Arc<Facts>, lines: Lines) -> io::Result<Self> {
        let mut face = match style {
            ProgressStyle::None => Face::None,
            ProgressStyle::Json => Face::Json(Json::default()),
            ProgressStyle::Auto if io::stdout().is_terminal() => Face::Table(Table::default()),
            ProgressStyle::Auto | ProgressStyle::Plain => Face::Plain(Plain::default()),
        };
        let (done, ended) = sync_channel(1);
        let mailbox = lines.0.clone();
        let thread = std::thread::Builder::new().name("slidecast-progress".to_owned());
        thread.spawn(move || {
            // Standard output closed: nobody wants to know. The deployment goes on.
            let _ = run(&mut face, &facts, &mailbox);
            let _ = done.send(());
        })?;
        Ok(Self { lines, ended })
    }

    /// Shows the deployment as it is now; an older snapshot that was not shown yet never will be.
    pub fn show(&self, snapshot: Box<Snapshot>) {
        self.lines.leave(|mailbox| mailbox.snapshot = Some(snapshot));
    }

    /// Shows a line of text that is fit to show.
    pub fn line(&self, text: String) {
        self.lines.line(text);
    }

    /// Tells of an agent that waits for approval.
    pub fn unapproved(&self, view: Box<UnapprovedView>) {
        self.lines.item(Item::Unapproved(view));
    }

    /// Shows the end, and waits a moment until it was written.
    pub fn end(self, snapshot: Snapshot, code: u8) {
        self.lines.leave(|mailbox| (mailbox.snapshot, mailbox.end) = (Some(Box::new(snapshot)), Some(code)));
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(LAST_WORDS) {
            log::debug!("standard output is blocked; the last update was not shown");
        }
    }
}

fn run(face: &mut Face, facts: &Facts, mailbox: &(Mutex<Mailbox>, Condvar)) -> io::Result<()> {
    let mut out = io::stdout().lock();
    face.start(facts, &mut out)?;
    out.flush()?;
    loop {
        let empty = |mailbox: &mut Mailbox| mailbox.items.is_empty() && mailbox.snapshot.is_none();
        let guard = mailbox.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guard = mailbox.1.wait_while(guard, empty).unwrap_or_else(PoisonError::into_inner);
        let Mailbox { items, snapshot, end } = std::mem::take(&mut *guard);
        drop(guard);
        // Built first and written at once, so that a table never flickers.
        let mut text = Vec::new();
        for item in items {
            match item {
                Item::Line(line) => face.line(&line, &mut text)?,
                Item::Unapproved(view) => face.unapproved(&view, &mut text)?,
            }
        }
        if let Some(snapshot) = snapshot {
            face.show(facts, &snapshot, &mut text)?;
            if let Some(code) = end {
                face.end(&snapshot, code, &mut text)?;
                out.write_all(&text)?;
                return out.flush();
            }
        }
        out.write_all(&text)?;
        out.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{ChainView, NodeView, State};
    use slidecast_proto::deployment::Stage;
    use slidecast_proto::reason::Reason;

    pub(super) fn facts() -> Facts {
        Facts {
            image: "base.slide".to_owned(),
            disk_bytes: 4 << 30,
            raw_bytes: 2 << 30,
            stored_bytes: 1 << 30,
            blocks: 1000,
            deployment: "ab".repeat(16),
            key: None,
            port: 7531,
            wait_for: 2,
            timeout: Some(Duration::from_secs(300)),
        }
    }

    pub(super) fn node(id: u8, state: State) -> NodeView {
        let waiting = matches!(state, State::Preparing | State::Ready | State::Refused);
        NodeView {
            id: id.into(),
            name: format!("pc{id}"),
            address: [10, 0, 0, id].into(),
            interface: "eth1".to_owned(),
            place: (!waiting).then_some((1, id.into())),
            expected: waiting.then_some((1, id.into())),
            state,
            reason: Reason::None,
            detail: String::new(),
            target: "/dev/sda".to_owned(),
            describe: if waiting { "DISK 1 TiB".to_owned() } else { String::new() },
            connected: true,
            blocks: (500, 400, 300),
            received_bytes: 1,
            written_bytes: 2,
            rate: 11.2e6,
            percent: 50.0,
            left: (!waiting).then_some(Duration::from_secs(31)),
            end: None,
        }
    }

    pub(super) fn snapshot(ran: Option<Duration>, nodes: Vec<NodeView>) -> Snapshot {
        Snapshot {
            stage: if ran.is_some() { Stage::Running } else { Stage::Waiting },
            waited: Duration::from_secs(10),
            ran,
            egress_bytes: 5 << 20,
            unapproved: 0,
            waits: None,
            chains: vec![ChainView { interface: "eth1".to_owned(), nodes: nodes.iter().map(|node| node.id).collect() }],
            nodes,
        }
    }

    #[test]
    fn the_end_counts_who_is_done_and_repeats_who_is_not() {
        use slidecast_proto::reason::EndState;
        let mut failed = node(2, State::Ended(EndState::Failed));
        (failed.reason, failed.detail) = (Reason::NodeLost, "silent for 3 s".to_owned());
        let nodes = vec![node(1, State::Ended(EndState::Done)), failed];
        let mut over = snapshot(Some(Duration::from_millis(34_200)), nodes);
        over.stage = Stage::Over { started: true, stopped: false };
        let mut out = Vec::new();
        words::end(&over, |_| false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "node 2 pc2 (10.0.0.2): failed: node-lost: silent for 3 s\n\
                        1 of 2 nodes done in 34.2 s, 5 MiB sent, 1 failed\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_on_a_node_that_failed_is_said_once() {
        use slidecast_proto::reason::EndState;
        for started in [true, false] {
            let mut failed = node(2, if started { State::Ended(EndState::Failed) } else { State::Refused });
            (failed.reason, failed.detail) = (Reason::NodeLost, "silent for 3 s".to_owned());
            let mut over = snapshot(started.then_some(Duration::from_secs(9)), vec![failed]);
            let (mut face, mut out) = (Face::Plain(Plain::default()), Vec::new());
            face.show(&facts(), &over, &mut out).unwrap();
            over.stage = Stage::Over { started, stopped: false };
            face.show(&facts(), &over, &mut out).unwrap();
            face.end(&over, 3, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches("node-lost: silent for 3 s").count(), 1, "{text}");
        }
    }

    #[test]
    fn the_end_counts_machines_that_were_not_approved() {
        use slidecast_proto::reason::EndState;
        let mut stranger = node(2, State::Refused);
        (stranger.reason, stranger.place) = (Reason::NotApproved, None);
        let nodes = vec![node(1, State::Ended(EndState::Done)), stranger];
        let mut over = snapshot(Some(Duration::from_millis(34_200)), nodes);
        over.stage = Stage::Over { started: true, stopped: false };
        let mut out = Vec::new();
        words::end(&over, |_| false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "1 of 1 nodes done in 34.2 s, 5 MiB sent, 1 machine was not approved\n");
    }
}
