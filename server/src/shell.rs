//! What a system wants to know of the command line: completions for shells, and manual pages. Both are made from the command line
//! itself, so they have every command and flag that there is.

use crate::cli::{Cli, ShellName};
use clap::{Command, CommandFactory};
use clap_complete::generate;
use clap_complete::shells::{Bash, Fish, Zsh};
use clap_mangen::Man;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A manual page could not be written.
#[derive(Debug)]
pub struct ManualError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for ManualError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "writing the manual to {}", self.path.display())
    }
}

impl std::error::Error for ManualError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What the shell reads to complete `slidecast`.
#[must_use]
pub fn completions(shell: ShellName) -> Vec<u8> {
    let (mut command, mut text) = (Cli::command(), Vec::new());
    match shell {
        ShellName::Bash => generate(Bash, &mut command, "slidecast", &mut text),
        ShellName::Zsh => generate(Zsh, &mut command, "slidecast", &mut text),
        ShellName::Fish => generate(Fish, &mut command, "slidecast", &mut text),
    }
    text
}

/// Writes a page for `slidecast` and one for each command below it into `dir`.
///
/// # Errors
/// [`ManualError`]: the folder or a page can't be written.
pub fn write_manual(dir: &Path) -> Result<(), ManualError> {
    std::fs::create_dir_all(dir).map_err(|source| ManualError { path: dir.to_owned(), source })?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, "slidecast", dir)
}

fn write_pages(command: &Command, name: &str, dir: &Path) -> Result<(), ManualError> {
    let path = dir.join(format!("{name}.1"));
    let written = page(command, name).and_then(|page| std::fs::write(&path, page));
    written.map_err(|source| ManualError { path, source })?;
    for below in command.get_subcommands() {
        write_pages(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // The name of the page, and the words with which it is called.
    let command = command.clone().display_name(name.to_owned()).version(env!("CARGO_PKG_VERSION"));
    let (has_commands, has_options) =
        (command.get_subcommands().next().is_some(), command.get_arguments().next().is_some());
    let manual = Man::new(command);
    let mut text = Vec::new();
    manual.render_name_section(&mut text)?;
    manual.render_synopsis_section(&mut text)?;
    manual.render_description_section(&mut text)?;
    if has_options {
        manual.render_options_section(&mut text)?;
    }
    if has_commands {
        manual.render_subcommands_section(&mut text)?;
    }
    let title = format!(".TH {} 1 \"\" \"slidecast {}\" \"\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let sections = String::from_utf8_lossy(&text).replace(".br\n\n.br\n", ".sp\n");
    Ok((title + &sections + &as_it_stands(&examples)).into_bytes())
}

/// The text below `--help`, which is laid out in lines already: its first paragraph becomes a section of that name.
fn as_it_stands(help: &str) -> String {
    let Some((title, lines)) = help.split_once(":\n") else { return String::new() };
    let mut text = format!(".SH {}\n.nf\n", title.to_uppercase());
    for line in lines.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A line that begins with one of these would be a command of roff.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        text += &format!("{guard}{line}\n");
    }
    text + ".fi\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command as Process, Output, Stdio};

    /// Runs a program; nothing if it is not there.
    fn run(program: &str, args: &[&str]) -> Option<Output> {
        let run = Process::new(program).args(args).stdin(Stdio::null()).output();
        match run {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: {program} is not installed");
                None
            }
            output => Some(output.unwrap()),
        }
    }

    #[test]
    fn every_shell_understands_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        for (shell, name) in [(ShellName::Bash, "bash"), (ShellName::Zsh, "zsh"), (ShellName::Fish, "fish")] {
            let text = completions(shell);
            for command in ["boot-server", "wait-for", "completions"] {
                assert!(String::from_utf8_lossy(&text).contains(command), "{name}: {command}");
            }
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let Some(output) = run(name, &["-n", path.to_str().unwrap()]) else { continue };
            assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        }
    }

    #[test]
    fn bash_completes_a_command_and_its_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slidecast");
        std::fs::write(&path, completions(ShellName::Bash)).unwrap();
        let script = "source \"$1\"; COMP_WORDS=(slidecast deploy --wait); COMP_CWORD=2; _slidecast slidecast --wait deploy; echo \"${COMPREPLY[*]}\"";
        let Some(output) = run("bash", &["--norc", "-c", script, "bash", path.to_str().unwrap()]) else { return };
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--wait-for", "{output:?}");
    }

    #[test]
    fn there_is_a_page_for_every_command_and_mandoc_finds_nothing_wrong_in_it() {
        let dir = tempfile::tempdir().unwrap();
        write_manual(dir.path()).unwrap();
        let mut pages: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|page| page.unwrap().path().display().to_string()).collect();
        pages.sort();
        for name in ["slidecast", "slidecast-image-create", "slidecast-deploy", "slidecast-token-new", "slidecast-man"]
        {
            assert!(pages.iter().any(|page| page.ends_with(&format!("/{name}.1"))), "{name}: {pages:?}");
        }
        assert!(!pages.iter().any(|page| page.contains("-help")), "{pages:?}");
        let text = std::fs::read_to_string(dir.path().join("slidecast-deploy.1")).unwrap();
        assert!(text.contains("\n  slidecast deploy base.slide \\-\\-wait\\-for 4\n"), "{text}");
        let mut args = vec!["-T", "lint", "-W", "warning"];
        args.extend(pages.iter().map(String::as_str));
        let Some(output) = run("mandoc", &args) else { return };
        // The pages have no date: they are the same whenever they are made.
        let said = String::from_utf8_lossy(&output.stdout);
        let wrong: Vec<_> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = write_manual(&file.path().join("man")).unwrap_err().to_string();
        assert!(error.starts_with("writing the manual to /") && error.ends_with("/man"), "{error}");
    }
}
