//! How a command fails: an exit code and one clear line.

use crate::approve::ApproveError;
use crate::exit_code::ExitCode;
use crate::key::KeyFileError;
use slidecast_net::text::flatten;
pub use slidecast_net::text::one_line;
use std::error::Error;
use std::fmt;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// What the caller of the program is told.
    pub code: ExitCode,
    /// What people are told.
    pub error: Box<dyn Error>,
}

impl Failure {
    /// The command failed and left nothing half-made.
    pub fn not_done(error: impl Error + 'static) -> Self {
        Self { code: ExitCode::NotDone, error: Box::new(error) }
    }

    /// The command was called in a way that makes no sense.
    pub fn usage(error: impl Error + 'static) -> Self {
        Self { code: ExitCode::Usage, error: Box::new(error) }
    }
}

impl From<ApproveError> for Failure {
    fn from(error: ApproveError) -> Self {
        Self::usage(error)
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::not_done(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(self.error.as_ref()))
    }
}

/// What clap has to say about a wrong command line, as one line without the usage.
#[must_use]
pub fn usage_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().filter(|line| !line.starts_with("For more information"));
    let lines = lines.take_while(|line| !line.starts_with("Usage:"));
    let line = flatten(&lines.collect::<Vec<_>>().join(" ")).replace(" tip: ", "; ");
    line.strip_prefix("error: ").map_or_else(|| line.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("opening\nx")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn sources_are_joined_into_one_line() {
        assert_eq!(one_line(&Outer(std::io::Error::other("no\ndisk"))), "opening x: no disk");
    }

    #[test]
    fn a_source_that_the_error_has_said_already_is_not_repeated() {
        assert_eq!(one_line(&Outer(std::io::Error::other("x"))), "opening x");
    }

    #[test]
    fn usage_errors_are_one_line_that_names_the_flag() {
        let line = |args: &[&str]| usage_line(&Cli::try_parse_from(args).unwrap_err());
        let missing = line(&["slidecast", "deploy", "a.slide"]);
        assert_eq!(missing, "the following required arguments were not provided: --wait-for <N>");
        let wrong = line(&["slidecast", "deploy", "a.slide", "--wait-for", "x"]);
        assert!(wrong.starts_with("invalid value 'x' for '--wait-for <N>'"), "{wrong}");
        let unknown = line(&["slidecast", "deploy", "a.slide", "--wait-four", "2"]);
        let tip = "unexpected argument '--wait-four' found; a similar argument exists: '--wait-for'";
        assert_eq!(unknown, tip);
        let negative = line(&["slidecast", "deploy", "a.slide", "--wait-for", "-1"]);
        assert_eq!(negative, "invalid value '-1' for '--wait-for <N>': -1 is not in 1..=100000");
    }
}
