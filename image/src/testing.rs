//! What the tests share: the programs that make and know file systems and partition tables, as oracles.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `name`, if it is installed; a test that cannot run says so and is no test.
pub(crate) fn tool(name: &'static str) -> Option<&'static str> {
    let found = search_path().any(|dir| dir.join(name).is_file());
    if !found {
        println!("SKIPPED: {name} is not installed (./check.sh installs it)");
    }
    found.then_some(name)
}

/// Where programs are looked for: the folders for administrators too.
fn search_path() -> impl Iterator<Item = std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", std::env::join_paths(search_path()).unwrap()).env("LC_ALL", "C");
    command
}

/// What a program that must succeed says.
pub(crate) fn run<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
    said(name, &command(name).args(arguments).output().unwrap())
}

fn said(name: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    said.into_owned()
}

/// A loop device of a file, while it is held.
pub(crate) struct LoopDevice(String);

impl LoopDevice {
    /// `None`, and a line that says so, where there are none.
    pub(crate) fn new(file: &Path, sector: u32) -> Option<Self> {
        let file = file.to_str().unwrap();
        let output = command("losetup").args(["-f", "--show", "-b", &sector.to_string(), file]).output().ok()?;
        if !output.status.success() {
            println!("SKIPPED: no loop device: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run("losetup", ["-d", &self.0]);
    }
}

/// The same, with `input` on its standard input.
pub(crate) fn run_with<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>, input: &str) -> String {
    let mut child = command(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    said(name, &child.wait_with_output().unwrap())
}

/// Whether a program that may fail succeeds.
pub(crate) fn succeeds<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> bool {
    command(name).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// What a program says, whether it succeeds or not.
pub(crate) fn says<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
    let output = command(name).args(arguments).output().unwrap();
    (String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)).into_owned()
}
