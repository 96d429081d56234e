//! The command line.
use std::process::ExitCode;
/// Runs the agent.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
