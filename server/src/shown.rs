//! Text from agents, made fit for a terminal, a log or a report: no sender may move a cursor,
//! rewrite a line or fill a screen.

use std::fmt::Write;

/// The most characters of one text that are shown.
const MAX_CHARS: usize = 240;

/// `text` on one line, without characters that act instead of showing, and not too long.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_CHARS {
            out.push('…');
            break;
        }
        if acts(c) {
            // Writing to a string does not fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// What an agent, or this server, says of a failure, fit to show; the numbers that the standard library puts behind the words of the system,
/// ` (os error N)`, tell people nothing.
#[must_use]
pub fn shown_detail(text: &str) -> String {
    const NUMBER: &str = " (os error ";
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once(NUMBER) {
        plain += before;
        rest = match after.split_once(')') {
            Some((number, behind)) if !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()) => {
                behind
            }
            _ => {
                plain += NUMBER;
                after
            }
        };
    }
    shown(&(plain + rest))
}

/// `1 chain`, `2 chains`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Control characters, line and paragraph separators, and those that hide text or change its direction.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_escaped() {
        assert_eq!(shown("disk\x1b[2J\r\n\u{9b}31m"), "disk\\u{1b}[2J\\r\\n\\u{9b}31m");
        assert_eq!(shown("a\u{202e}b\u{200b}c\u{7f}"), "a\\u{202e}b\\u{200b}c\\u{7f}");
    }

    #[test]
    fn plain_text_of_any_script_stays_as_it_is() {
        assert_eq!(shown("Bürorechner 東京 \"x\" \\"), "Bürorechner 東京 \"x\" \\");
    }

    #[test]
    fn a_detail_has_no_numbers_of_the_system_wherever_they_stand() {
        let said =
            "its control link broke: Connection reset by peer (os error 104), and node 3 says: no route (os error 113)";
        let plain = "its control link broke: Connection reset by peer, and node 3 says: no route";
        assert_eq!(shown_detail(said), plain);
        assert_eq!(shown_detail("x (os error ), y (os error 5"), "x (os error ), y (os error 5");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), MAX_CHARS + 1);
    }
}
