//! The flags of `slidecast completions` and `slidecast man`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `slidecast completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that reads it.
    #[arg(value_enum)]
    pub shell: ShellName,
}

/// The shells for which completions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellName {
    /// GNU Bash, with the package bash-completion.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

/// `slidecast man`
#[derive(Debug, Args)]
pub struct Man {
    /// The folder, such as man/man1. It is made if it is not there; pages in it are replaced.
    pub dir: PathBuf,
}
