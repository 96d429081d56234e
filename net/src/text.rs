//! Texts of errors for people: on one line, and without the number that the standard library puts behind an error of the system.

use std::error::Error;
use std::io;

/// An error of the system without its number.
#[must_use]
pub fn os_error_text(error: &io::Error) -> String {
    without_number(&error.to_string()).to_owned()
}

/// An error with its sources on one line, nothing said twice.
#[must_use]
pub fn one_line(error: &dyn Error) -> String {
    let mut line = flatten(&error.to_string());
    let mut next = error.source();
    while let Some(source) = next {
        let text = flatten(&source.to_string());
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        next = source.source();
    }
    line
}

/// `text` on one line: runs of white space become one space, and the number of an error of the system goes.
#[must_use]
pub fn flatten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    without_number(&line).to_owned()
}

/// `text` without the ` (os error N)` at its end.
fn without_number(text: &str) -> &str {
    match text.rsplit_once(" (os error ") {
        Some((message, number)) if number.ends_with(')') && !number[..number.len() - 1].contains(')') => message,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "opening\n  x: {}", self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn errors_of_the_system_are_told_once_and_without_their_number() {
        let gone = || io::Error::from_raw_os_error(2);
        assert_eq!(os_error_text(&gone()), "No such file or directory");
        assert_eq!(one_line(&Outer(gone())), "opening x: No such file or directory");
        assert_eq!(flatten("x (os error 2) was said"), "x (os error 2) was said");
    }
}
