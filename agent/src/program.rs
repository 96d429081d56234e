//! The program: its command line read, its log started, the agent run, and the exit code that says how that ended.

use crate::cli::{Arguments, Exit, Stop};
use crate::error::AgentError;
use crate::{agent, boot, cards, logging};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::NotStarted => 1,
            Exit::Usage => 2,
            Exit::Failed => 3,
        })
    }
}

/// Runs the agent with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    boot::run(&arguments).unwrap_or_else(|| run(arguments).into())
}

/// Runs the agent with these arguments.
fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let (arguments, trust) = match Arguments::parse(arguments) {
        Ok(understood) => understood,
        Err(Stop::Text(text)) => {
            // A reader that has gone, as `head` does, is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return Exit::Done;
        }
        Err(Stop::Wrong(line)) => {
            eprintln!("slidecast-agent: {line}");
            return Exit::Usage;
        }
    };
    // Later on a card may come and go; one that is not there at the start is a wrong name.
    if let Err(error @ AgentError::NoSuchInterface { .. }) = cards::interfaces(&arguments.interface) {
        eprintln!("slidecast-agent: {error}");
        return Exit::Usage;
    }
    let lines = logging::start();
    match agent::run(&arguments, &trust, lines, None) {
        Ok(ending) => ending.exit,
        Err(error) => {
            log::error!("{error}");
            if matches!(error, AgentError::NoSuchInterface { .. }) { Exit::Usage } else { Exit::NotStarted }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_a_code_of_its_own() {
        assert_eq!(run(["slidecast-agent", "--once"].map(OsString::from)), Exit::Usage);
        assert_eq!(run(["slidecast-agent", "--version"].map(OsString::from)), Exit::Done);
    }

    #[test]
    fn a_card_that_is_not_there_is_a_wrong_name_before_any_server_is_found() {
        let words = ["slidecast-agent", "--insecure", "--server", "192.0.2.1", "--interface", "no-such-card"];
        assert_eq!(run(words.map(OsString::from)), Exit::Usage);
    }
}
