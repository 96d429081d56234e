//! What a screen shows: a word in large letters, the facts, and the log below.

use super::font;
use super::meter::{Meter, clock, percent, stage};
use crate::status::{Stage, Status};
use slidecast_proto::quantity::Bytes;
use std::collections::VecDeque;

/// Ends a row: the rest of it has the colour of the moment, and what follows has the plain one.
const END: &str = "\x1b[K\x1b[0m";

/// The whole screen of so many columns and rows, from its upper left corner.
pub(super) fn draw(status: &Status, meter: &Meter, log: &VecDeque<String>, (columns, rows): (u16, u16)) -> String {
    let (columns, rows) = (usize::from(columns), usize::from(rows));
    let mut lines = vec![title(status)];
    if !status.only_log {
        lines.extend(word(status, columns, rows));
        lines.extend(facts(status, meter, columns));
    }
    lines.truncate(rows.saturating_sub(1));
    let room = rows.saturating_sub(lines.len() + 1);
    let mut out = String::from("\x1b[H");
    for line in &lines {
        put(&mut out, line, columns);
    }
    let rule = "\u{2500}".repeat(columns);
    put(&mut out, &Line { colour: "", text: rule }, columns);
    let recent = log.iter().skip(log.len().saturating_sub(room));
    let rows: Vec<String> = recent.flat_map(|text| wrapped(text, columns)).collect();
    for text in rows.into_iter().rev().take(room).rev() {
        put(&mut out, &Line { colour: "", text }, columns);
    }
    // Below the log, what stood there before goes; the last line must not make the screen roll.
    out.truncate(out.trim_end_matches("\r\n").len());
    out.push_str("\x1b[J");
    out
}

/// A text in rows of so many columns; all but the first are indented. Words are kept whole where they can be.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    // Wide enough for the indentation and some more: what is narrower is cut.
    let width = columns.max(8);
    let mut rows = Vec::new();
    let mut left: Vec<char> = text.chars().collect();
    while left.len() > width {
        let space = left[..width].iter().rposition(|c| *c == ' ').filter(|at| *at > width / 2);
        let rest = left.split_off(space.unwrap_or(width));
        rows.push(left.into_iter().collect());
        let rest = rest.into_iter().skip_while(|c| *c == ' ');
        left = "  ".chars().chain(rest).collect();
    }
    rows.push(left.into_iter().collect());
    rows
}

/// A row and its colour.
struct Line {
    colour: &'static str,
    text: String,
}

fn put(out: &mut String, line: &Line, columns: usize) {
    out.push_str(line.colour);
    out.extend(line.text.chars().take(columns));
    // A full row has no rest, and clearing it would eat its last column.
    out.push_str(if line.text.chars().count() < columns { END } else { "\x1b[0m" });
    out.push_str("\r\n");
}

fn title(status: &Status) -> Line {
    let links: Vec<String> = status.links.iter().map(|(name, address)| format!("{name} {address}")).collect();
    let links = if links.is_empty() { "no address yet".to_owned() } else { links.join("   ") };
    let node = status.node.map(|node| format!("   node {node}")).unwrap_or_default();
    Line { colour: "\x1b[30;47m", text: format!(" SlideCast {}{node}   {links}", env!("CARGO_PKG_VERSION")) }
}

/// Black or white on the colour that says how things are.
fn colour(stage: Stage) -> &'static str {
    match stage {
        Stage::Done(_) => "\x1b[30;42m",
        Stage::Failed => "\x1b[37;41m",
        Stage::Asking | Stage::Searching | Stage::Approving => "\x1b[30;43m",
        _ => "\x1b[37;44m",
    }
}

fn word(status: &Status, columns: usize, rows: usize) -> Vec<Line> {
    let colour = colour(status.stage);
    // Large, for whoever reads it off a screen across the room.
    let code = status.code.filter(|_| status.stage == Stage::Approving);
    let mut text = code.map_or_else(|| stage(status.stage).to_owned(), |code| code.to_string());
    if let Some(percent) = percent(status) {
        text.push_str(&format!(" {percent}%"));
    }
    let width = text.chars().count() * font::COLUMNS;
    // Half of the screen at most: the facts and some log have to fit too.
    let scale = ((columns.saturating_sub(2)) / width.max(1)).min(rows / 2 / font::ROWS);
    let large = if scale == 0 { vec![text] } else { font::rows(&text, scale) };
    let blank = || Line { colour, text: String::new() };
    let large = large.into_iter().map(|row| Line { colour, text: format!("  {row}") });
    std::iter::once(blank()).chain(large).chain([blank()]).collect()
}

fn facts(status: &Status, meter: &Meter, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut fact = |name: &str, text: String| {
        lines.push(Line { colour: "", text: format!(" {name:<8} {text}") });
    };
    if let Some(percent) = percent(status) {
        let width = columns.saturating_sub(12);
        let full = width * usize::try_from(percent).unwrap_or(0) / 100;
        fact("", format!("{}{}", "\u{2588}".repeat(full), "\u{2591}".repeat(width - full)));
        let (received, written) = meter.rates();
        fact("Rate", format!("{}/s received, {}/s written", Bytes(received), Bytes(written)));
        fact("Left", meter.left(status).map_or("not known yet".to_owned(), clock));
    }
    if status.stage == Stage::Approving {
        fact("Approval", "type the code at the server, or put this machine on its list".to_owned());
    }
    fact("Server", status.server.map_or("none at the moment".to_owned(), |server| server.to_string()));
    if let Some((position, length)) = status.position {
        fact("Chain", format!("place {position} of {length}"));
    }
    for (name, text) in [("Image", &status.image), ("Target", &status.target)] {
        if !text.is_empty() {
            fact(name, text.clone());
        }
    }
    let mut long = |colour, text: &str| {
        lines.extend(wrapped(text, columns).into_iter().map(|text| Line { colour, text }));
    };
    if let Some((reason, detail)) = &status.failure {
        long("\x1b[1;31m", &format!(" {:<8} {reason}: {detail}", "Error"));
    }
    question(status).iter().for_each(|text| long("\x1b[1;33m", &format!(" {text}")));
    lines
}

/// What somebody at the machine is asked.
pub(super) fn question(status: &Status) -> Vec<String> {
    let disks = &status.question;
    if let Some(disk) = status.picked.and_then(|at| disks.get(at)) {
        return vec![format!("Write to {disk}? All that is on it will be lost. y: yes, any other key: no")];
    }
    let mut lines: Vec<String> =
        disks.iter().zip(super::keys::DISKS).map(|(disk, key)| format!("{}: {disk}", char::from(*key))).collect();
    if !lines.is_empty() {
        lines.insert(0, "More than one disk could be the target. Press the key of the one to write:".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Figures;
    use proptest::prelude::*;
    use slidecast_proto::reason::Reason;

    fn status() -> Status {
        Status {
            stage: Stage::Receiving,
            links: [("eth0".to_owned(), "10.0.0.9/24".to_owned())].into(),
            server: Some(([10, 0, 0, 1], 7531).into()),
            node: Some(3),
            image: "lab.slide (100 GiB)".into(),
            target: "/dev/sda (ACME Fast)".into(),
            position: Some((2, 5)),
            figures: Figures { blocks: 200, accepted: 86, ..Figures::default() },
            ..Status::default()
        }
    }

    /// The rows as a person sees them, without colours.
    fn seen(screen: &str) -> Vec<String> {
        let mut text = String::new();
        let mut rest = screen;
        while let Some(at) = rest.find('\x1b') {
            text.push_str(&rest[..at]);
            let end = rest[at + 2..].find(|c: char| c.is_ascii_alphabetic()).unwrap();
            rest = &rest[at + 2 + end + 1..];
        }
        text.push_str(rest);
        text.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn all_that_matters_is_on_the_smallest_screen() {
        let log = VecDeque::from(["first".to_owned(), "last".to_owned()]);
        let rows = seen(&draw(&status(), &Meter::default(), &log, (80, 25)));
        assert!(rows.len() <= 25);
        let all = rows.join("\n");
        for part in ["10.0.0.1:7531", "place 2 of 5", "/dev/sda", "lab.slide", "eth0 10.0.0.9/24", "node 3", "last"] {
            assert!(all.contains(part), "{part} is not in\n{all}");
        }
        let large = font::rows("WRITING 43%", 1);
        assert!(large.iter().all(|row| all.contains(row.trim_end())), "{all}");
    }

    #[test]
    fn a_failure_is_red_and_says_why() {
        let failure = Some((Reason::DiskWrite, "writing block 7 on /dev/sda: Input/output error".to_owned()));
        let failed = Status { stage: Stage::Failed, failure, ..status() };
        let screen = draw(&failed, &Meter::default(), &VecDeque::new(), (80, 25));
        assert!(screen.contains("\x1b[37;41m") && screen.contains("disk-write: writing block 7"));
    }

    #[test]
    fn the_code_of_a_machine_that_is_not_approved_is_large() {
        let code: slidecast_proto::approval::Code = "ABC234".parse().unwrap();
        let waits = Status { stage: Stage::Approving, code: Some(code), ..Status::default() };
        let all = seen(&draw(&waits, &Meter::default(), &VecDeque::new(), (80, 25))).join("\n");
        assert!(font::rows("ABC234", 2).iter().all(|row| all.contains(row.trim_end())), "{all}");
        let listed = Status { code: None, ..waits };
        let all = seen(&draw(&listed, &Meter::default(), &VecDeque::new(), (80, 25))).join("\n");
        assert!(font::rows("NOT APPROVED", 1).iter().all(|row| all.contains(row.trim_end())), "{all}");
    }

    #[test]
    fn what_is_longer_than_a_row_goes_on_in_the_next() {
        assert_eq!(wrapped("writing block 7 on /dev/sda", 20), ["writing block 7 on", "  /dev/sda"]);
        assert_eq!(wrapped("0123456789abcdef", 8), ["01234567", "  89abcd", "  ef"]);
        assert_eq!(wrapped("short", 80), ["short"]);
        let detail = format!("2 disks match: {}", "/dev/sda (ACME Fast, serial 1, 100 GiB), ".repeat(3));
        let failed =
            Status { stage: Stage::Failed, failure: Some((Reason::TargetAmbiguous, detail.clone())), ..status() };
        let log = VecDeque::from([format!("failed target-ambiguous {detail}"), "the end".to_owned()]);
        let all = seen(&draw(&failed, &Meter::default(), &log, (80, 25))).join(" ");
        let all: Vec<&str> = all.split_whitespace().collect();
        let all = all.join(" ");
        let count = all.matches("100 GiB").count();
        assert!(count >= 6 && all.contains("the end"), "{all}");
    }

    #[test]
    fn a_question_names_its_keys_and_is_asked_twice() {
        let question = vec!["/dev/sda (A)".to_owned(), "/dev/sdb (B)".to_owned()];
        let mut asking = Status { stage: Stage::Asking, question, ..status() };
        assert_eq!(super::question(&asking)[1..], ["1: /dev/sda (A)", "2: /dev/sdb (B)"]);
        asking.picked = Some(1);
        assert!(super::question(&asking)[0].contains("/dev/sdb (B)?"));
    }

    #[test]
    fn the_log_alone_can_have_the_whole_screen() {
        let log: VecDeque<String> = (0..100).map(|line| format!("line {line}.")).collect();
        let only_log = Status { only_log: true, ..status() };
        let all = seen(&draw(&only_log, &Meter::default(), &log, (80, 25))).join("\n");
        assert!(all.contains("line 99.") && all.contains("line 77.") && !all.contains("place 2 of 5"), "{all}");
    }

    proptest! {
        #[test]
        fn no_screen_is_too_small_and_none_overflows(columns in 1..300_u16, rows in 1..120_u16, lines in 0..150_usize) {
            let log: VecDeque<String> = (0..lines).map(|line| format!("{line} {}", "x".repeat(line))).collect();
            let drawn = seen(&draw(&status(), &Meter::default(), &log, (columns, rows)));
            prop_assert!(drawn.len() <= usize::from(rows).max(1));
            prop_assert!(drawn.iter().all(|row| row.chars().count() <= usize::from(columns)));
        }
    }
}
