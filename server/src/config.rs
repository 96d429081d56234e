//! The configuration file: TOML that may set what flags set. Flags win.
//!
//! A table is named after the sub-command, a key after the flag: `[deploy]` with `verify = "head"`, `[image.create]` with
//! `codec = "zstd:9"`. What the file says is put on the command line as if it had been typed there, unless the same flag,
//! or one that excludes it, really was; so values are checked in one place, and in the same words.

use crate::failure::{Failure, usage_line};
use clap::{ArgMatches, Command, parser::ValueSource};
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Why a configuration file was refused.
#[derive(Debug)]
pub enum ConfigError {
    /// It cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no TOML.
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// It has a key or table that no flag or sub-command corresponds to.
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with its tables.
        key: String,
    },
    /// The command line makes no sense together with what the file adds to it.
    Flags {
        /// The file.
        path: PathBuf,
        /// What is wrong, in one line.
        line: String,
    },
    /// A value is of a kind that no flag takes.
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key, with its tables.
        key: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "reading the configuration file {}", path.display()),
            Self::Syntax { path, line, message } => {
                write!(f, "{}, line {line}: {}", path.display(), message.replace('\n', " "))
            }
            Self::Flags { path, line } => write!(f, "{line} (see --help; flags are set in {} too)", path.display()),
            Self::UnknownKey { path, key } => write!(f, "{}: nothing is called {key:?}", path.display()),
            Self::BadValue { path, key } => {
                write!(f, "{}: {key:?} is neither text, number, true/false nor a list of them", path.display())
            }
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A configuration file that was read.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    table: Table,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is no TOML.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let table = text.parse::<Table>().map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
            message: error.message().to_owned(),
        })?;
        Ok(Self { path: path.to_owned(), table })
    }

    /// The user's own file, `slidecast/config.toml` in the XDG configuration folder, if there is one.
    ///
    /// # Errors
    /// It is there, but cannot be read or is no TOML.
    pub fn of_user() -> Result<Option<Self>, ConfigError> {
        let xdg = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
        match xdg.or_else(home).map(|dir| Self::read(&dir.join("slidecast/config.toml"))) {
            None => Ok(None),
            Some(Err(ConfigError::Read { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Some(read) => read.map(Some),
        }
    }

    /// The error of a command line that this file added to.
    #[must_use]
    pub fn blamed(&self, error: &clap::Error) -> ConfigError {
        ConfigError::Flags { path: self.path.clone(), line: usage_line(error) }
    }

    /// The command line `args` with what this file adds to it.
    ///
    /// # Errors
    /// A table or key that means nothing, or a value of the wrong kind. Wrong values of the right kind are left for the
    /// command line's own parser.
    pub fn added_to(&self, command: &Command, args: &[OsString]) -> Result<Vec<OsString>, ConfigError> {
        let mut command = command.clone();
        command.build();
        self.check(&command, &self.table, "")?;
        // The errors of this first look are the business of the real one.
        let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(args) else {
            return Ok(args.to_owned());
        };
        let (mut leaf, mut matches, mut table, mut name) = (&command, &matches, Some(&self.table), String::new());
        while let Some((sub, below)) = matches.subcommand() {
            let Some(next) = leaf.find_subcommand(sub) else { break };
            name = format!("{name}{sub}.");
            (leaf, matches) = (next, below);
            table = table.and_then(|table| table.get(sub)).and_then(Value::as_table);
        }
        let mut more = Vec::new();
        for (key, value) in table.into_iter().flatten().filter(|(_, value)| !value.is_table()) {
            if !was_typed(leaf, matches, key) {
                let bad = || ConfigError::BadValue { path: self.path.clone(), key: format!("{name}{key}") };
                more.extend(flags(key, value).ok_or_else(bad)?);
            }
        }
        let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        Ok([&args[..end], &more, &args[end..]].concat())
    }

    fn check(&self, command: &Command, table: &Table, name: &str) -> Result<(), ConfigError> {
        for (key, value) in table {
            let full = format!("{name}{key}");
            let sub = command.find_subcommand(key);
            match (value, sub) {
                (Value::Table(below), Some(sub)) => self.check(sub, below, &format!("{full}."))?,
                (value, _) if !value.is_table() && !name.is_empty() && has_flag(command, key) => {}
                _ => return Err(ConfigError::UnknownKey { path: self.path.clone(), key: full }),
            }
        }
        Ok(())
    }
}

fn has_flag(command: &Command, long: &str) -> bool {
    !["config", "help", "version"].contains(&long) && command.get_arguments().any(|arg| arg.get_long() == Some(long))
}

fn was_typed(command: &Command, matches: &ArgMatches, long: &str) -> bool {
    let typed = |arg: &clap::Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    command
        .get_arguments()
        .filter(|arg| arg.get_long() == Some(long))
        .any(|arg| typed(arg) || command.get_arg_conflicts_with(arg).into_iter().any(typed))
}

fn flags(long: &str, value: &Value) -> Option<Vec<OsString>> {
    let one = |text: String| vec![OsString::from(format!("--{long}={text}"))];
    match value {
        Value::String(text) => Some(one(text.clone())),
        Value::Integer(number) => Some(one(number.to_string())),
        Value::Boolean(true) => Some(vec![OsString::from(format!("--{long}"))]),
        Value::Boolean(false) => Some(Vec::new()),
        Value::Array(values) if !values.iter().any(Value::is_array) => {
            Some(values.iter().map(|value| flags(long, value)).collect::<Option<Vec<_>>>()?.concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn added(file: &str, args: &[&str]) -> Result<Vec<String>, ConfigError> {
        let config = Config { path: PathBuf::from("c.toml"), table: file.parse().unwrap() };
        let args: Vec<_> = args.iter().map(OsString::from).collect();
        let args = config.added_to(&Cli::command(), &args)?;
        Ok(args.into_iter().map(|arg| arg.into_string().unwrap()).collect())
    }

    const DEPLOY: [&str; 5] = ["slidecast", "deploy", "a.slide", "--wait-for", "2"];

    #[test]
    fn a_file_sets_what_was_not_typed() {
        let args = added("[deploy]\nverify = 'head'\nport = 7000\nfresh = true\n", &DEPLOY).unwrap();
        assert_eq!(args[..5], DEPLOY);
        assert_eq!(args[5..], ["--fresh", "--port=7000", "--verify=head"]);
    }

    #[test]
    fn flags_win() {
        let typed = [&DEPLOY[..], &["--verify", "none", "--interface=eth1"]].concat();
        let args = added("[deploy]\nverify = 'head'\nwait-for = 9\ninterface = ['eth0', 'lo']\n", &typed).unwrap();
        assert_eq!(args, typed);
    }

    #[test]
    fn a_flag_wins_over_what_it_excludes_in_the_file() {
        let typed = [&DEPLOY[..], &["--insecure"]].concat();
        assert_eq!(added("[deploy]\nkey-file = 'k'\n", &typed).unwrap(), typed);
    }

    #[test]
    fn a_list_sets_a_flag_several_times() {
        let args = added("[deploy]\ninterface = ['eth0', 'eth1']\n", &DEPLOY).unwrap();
        assert_eq!(args[5..], ["--interface=eth0", "--interface=eth1"]);
    }

    #[test]
    fn a_file_can_give_what_is_required_and_ends_before_a_double_dash() {
        let args = added("[deploy]\nwait-for = 3\n", &["slidecast", "deploy", "--", "-x.slide"]).unwrap();
        assert_eq!(args, ["slidecast", "deploy", "--wait-for=3", "--", "-x.slide"]);
    }

    #[test]
    fn tables_of_other_sub_commands_are_checked_but_not_used() {
        assert_eq!(added("[image.create]\ncodec = 'lz4'\n", &DEPLOY).unwrap(), DEPLOY);
        let error = added("[image.create]\ncodecs = 'lz4'\n", &DEPLOY).unwrap_err();
        assert_eq!(error.to_string(), "c.toml: nothing is called \"image.create.codecs\"");
    }

    #[test]
    fn unknown_tables_top_level_keys_and_odd_values_are_refused() {
        assert!(matches!(added("[deplyo]\nport = 1\n", &DEPLOY), Err(ConfigError::UnknownKey { .. })));
        assert!(matches!(added("port = 1\n", &DEPLOY), Err(ConfigError::UnknownKey { .. })));
        assert!(matches!(added("[deploy]\nport = 1.5\n", &DEPLOY), Err(ConfigError::BadValue { .. })));
        assert!(matches!(added("[deploy]\nconfig = 'x'\n", &DEPLOY), Err(ConfigError::UnknownKey { .. })));
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "[deploy]\nverify = \n").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("c.toml, line 2: "), "{error}");
    }
}
