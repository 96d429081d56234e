//! The exit codes of `slidecast`, the same for every sub-command. `docs/DEPLOY.md` has this table too.

/// The exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// What was asked for is done. `deploy`: every node is `done`, or `written` where `--verify none` asked for no more.
    Done = 0,
    /// It failed before anything was touched. `deploy`: too few nodes by `--timeout`, stopped before the plan was fixed,
    /// the image refused, the port in use. Every other sub-command: it failed, and left nothing half-made.
    NotDone = 1,
    /// The command line or the configuration file makes no sense.
    Usage = 2,
    /// `deploy` only: some node failed, or the deployment was stopped after nodes had been given their disks.
    NodesFailed = 3,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
