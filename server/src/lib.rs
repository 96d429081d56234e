//! The `slidecast` command: images, keys, discovery, planning, feeds and the report.
//!
//! `main` gives the command line to [`run`]; each sub-command has a module. Decisions about nodes and chains are made by
//! the machines of `slidecast_proto`; what is here reads files, moves bytes and shows what happens.
#![forbid(unsafe_code)]

pub mod approve;
pub mod boot;
pub mod cli;
pub mod config;
pub mod deploy;
pub mod exit_code;
pub mod failure;
pub mod feed;
pub mod image;
pub mod key;
pub mod layers;
mod lock;
pub mod nbd;
pub mod nic;
pub mod output;
pub mod progress;
pub mod remote;
pub mod report;
pub mod serve;
pub mod service;
pub mod shell;
pub mod shown;
pub mod store;
pub mod view;

/// The one clock of a run.
pub use slidecast_net::clock;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use cli::{Cli, Command, KeyCommand, KeyNew, TokenCommand};
use config::Config;
use exit_code::ExitCode;
use failure::{Failure, usage_line};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// Runs the program with the command line `args` and gives the code to exit with.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let env = env_logger::Env::new().filter_or("RUST_LOG", "warn");
    // Whatever is said on standard error begins with the name of the program, as the agent's does.
    let format = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        writeln!(out, "slidecast: {}: {}", record.level().as_str().to_ascii_lowercase(), record.args())
    };
    env_logger::Builder::from_env(env).format(format).init();
    match try_run(args) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.to_string());
            failure.code
        }
    }
}

/// One line on standard error.
fn complain(line: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "slidecast: {line}");
}

fn try_run(args: Vec<OsString>) -> Result<ExitCode, Failure> {
    let cli = match parse(args)? {
        Ok(cli) => cli,
        Err(error) => return Ok(explain(&error)),
    };
    match cli.command {
        Command::Key(KeyCommand::New(KeyNew { output })) => {
            let public = key::create(&output)?.public();
            say(&format!("{} and {}.pub written; {}", output.display(), output.display(), key::describe(&public)));
            Ok(ExitCode::Done)
        }
        Command::Image(command) => image::run(command),
        Command::Deploy(args) => deploy::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Token(TokenCommand::New(args)) => {
            say(&serve::new_token(&args)?);
            Ok(ExitCode::Done)
        }
        Command::Remote(command) => remote::run(&command),
        Command::BootServer(args) => boot::run(&args),
        Command::Completions(args) => {
            // With standard output closed nobody wants to know.
            let _ = std::io::stdout().lock().write_all(&shell::completions(args.shell));
            Ok(ExitCode::Done)
        }
        Command::Man(args) => {
            shell::write_manual(&args.dir).map_err(Failure::not_done)?;
            Ok(ExitCode::Done)
        }
    }
}

/// One line on standard output.
fn say(line: &str) {
    // With standard output closed nobody wants to know.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints what clap stopped for: help, the version, or one line about what is wrong.
fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            complain(&format!("expected a command: {} (see --help)", commands_in(&error.to_string()).join(", ")));
            ExitCode::Usage
        }
        _ => {
            complain(&format!("{} (see --help)", usage_line(error)));
            ExitCode::Usage
        }
    }
}

/// The commands that a help text lists.
fn commands_in(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Lines that go on with the last one are indented further.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

/// Reads the command line together with the configuration file.
fn parse(args: Vec<OsString>) -> Result<Result<Cli, clap::Error>, Failure> {
    let mut command = Cli::command();
    // Help is given whatever the configuration file says.
    if let Err(error) = command.clone().try_get_matches_from(&args)
        && matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
    {
        return Ok(Err(error));
    }
    let first = command.clone().ignore_errors(true).try_get_matches_from(&args);
    let given = first.ok().and_then(|matches| config_flag(&matches));
    let config = match given {
        Some(path) => Some(Config::read(&path)?),
        None => Config::of_user()?,
    };
    let typed = args.len();
    let args = match &config {
        Some(config) => config.added_to(&command, &args)?,
        None => args,
    };
    let added = args.len() > typed;
    let matches = command.try_get_matches_from_mut(args);
    match (matches.and_then(|matches| Cli::from_arg_matches(&matches)), &config) {
        // What is wrong may not stand on the command line at all.
        (Err(error), Some(config)) if added => Err(config.blamed(&error).into()),
        (understood, _) => Ok(understood),
    }
}

/// The value of `--config`, at whichever depth it was given.
fn config_flag(matches: &clap::ArgMatches) -> Option<PathBuf> {
    let here = matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    here.or_else(|| matches.subcommand().and_then(|(_, below)| config_flag(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(config: &str, args: &[&str]) -> Result<Result<Cli, clap::Error>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, config).unwrap();
        let args = ["slidecast", "--config", path.to_str().unwrap()].iter().chain(args).map(OsString::from).collect();
        parse(args).map_err(|failure| failure.to_string().replace(path.to_str().unwrap(), "c.toml"))
    }

    #[test]
    fn help_is_given_whatever_the_configuration_file_says() {
        let help = parsed("[deploy", &["deploy", "--help"]).unwrap().unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        assert!(parsed("[deploy", &["image", "info", "a.slide"]).unwrap_err().starts_with("c.toml, line 1: "));
    }

    #[test]
    fn what_the_configuration_file_may_have_got_wrong_is_told_with_its_name() {
        let error = parsed("[deploy]\nwait-for = 'two'\n", &["deploy", "a.slide"]).unwrap_err();
        assert!(error.starts_with("invalid value 'two' for '--wait-for <N>'"), "{error}");
        assert!(error.ends_with("(see --help; flags are set in c.toml too)"), "{error}");
        // Nothing of the file was used here.
        assert!(parsed("[image.create]\ncodec = 'lz4'\n", &["deploy", "a.slide"]).unwrap().is_err());
    }

    #[test]
    fn a_command_line_without_a_command_names_those_there_are() {
        let commands = |args: &[&str]| {
            let error = Cli::command().try_get_matches_from(args).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
            commands_in(&error.to_string()).join(" ")
        };
        assert_eq!(commands(&["slidecast"]), "image key deploy serve token remote boot-server completions man");
        assert_eq!(
            commands(&["slidecast", "image"]),
            "create info verify export nbd diff flatten rebase list pull push stage gc"
        );
        assert_eq!(commands(&["slidecast", "key"]), "new");
    }
}
