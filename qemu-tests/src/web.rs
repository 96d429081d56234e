//! The tests in a browser: its script runs beside a standing server with four machines, and asks for faults by making files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::process::Exit;
use crate::standing::{HTTP, Standing};

/// A script that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the script's wishes are looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Runs `python script URL LINK-FILE OUT`, and shows what it says. In `out` the script may make the file `kill`, which ends the agent of the third
/// machine, and `restart`, which kills the server and starts it again; both are removed when it is done.
///
/// # Errors
/// The script fails, or the lab can't be made.
pub fn run(python: &Path, script: &Path, out: &Path, say: &dyn Fn(&str)) -> Result<()> {
    std::fs::create_dir_all(out).map_err(LabError::io("creating", out))?;
    let mut standing = Standing::start()?;
    let link = standing.link();
    let args: [OsString; 4] = [script.into(), format!("http://{HTTP}").into(), link.into(), out.into()];
    let mut browser = standing.lab.on_server("browser", &python.display().to_string(), args)?;
    let mut left = LIMIT.as_millis() / LOOK.as_millis();
    let exit = loop {
        if let Some(exit) = browser.poll_exit() {
            break exit;
        }
        if wish(out, "kill")? {
            standing.agents[2].kill();
        }
        if out.join("restart").exists() {
            standing.restart()?;
            wish(out, "restart")?;
        }
        if left == 0 {
            return Err(LabError::Late { what: "the browser's script".to_owned(), after: LIMIT, tail: browser.tail() });
        }
        left -= 1;
        std::thread::sleep(LOOK);
    };
    say(browser.out().trim_end());
    match exit {
        Exit::Code(0) => Ok(()),
        _ => Err(LabError::Ended {
            what: "the browser's script".to_owned(),
            tail: browser.tail() + &standing.serve.tail(),
        }),
    }
}

/// Whether the script asked for this. It asks once.
fn wish(out: &Path, name: &str) -> Result<bool> {
    let path: PathBuf = out.join(name);
    let asked = path.exists();
    if asked {
        std::fs::remove_file(&path).map_err(LabError::io("removing", path))?;
    }
    Ok(asked)
}
