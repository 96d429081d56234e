//! A standing server with four machines, for tests in a browser: the browser's script runs beside the server and asks for faults by making
//! files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::synthetic;
use crate::error::{LabError, Result};
use crate::lab::{Lab, NodeOptions};
use crate::process::{Exit, Process};
use crate::programs;
use crate::target::TargetKind;
use crate::tool;

const NODES: usize = 4;
/// Slow enough that a deployment can be watched, and lives on while the server is started again: 13 MiB take 35 s.
const MBITS: u32 = 3;
const HTTP: &str = "127.0.0.1:8080";
/// Until the server listens.
const SOON: Duration = Duration::from_secs(30);
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
    let lab = Lab::new(1)?;
    let images = lab.path("images");
    std::fs::create_dir_all(&images).map_err(LabError::io("creating", &images))?;
    let disks = synthetic::make(&images)?;
    let server = programs::server()?.display().to_string();
    let (base, next) = (images.join("monday.slide"), images.join("tuesday.slide"));
    let create: [&Path; 2] = ["image".as_ref(), "create".as_ref()];
    tool::run(&server, create.into_iter().chain([&*disks.first, "-o".as_ref(), &*base]))?;
    tool::run(&server, create.into_iter().chain([&*disks.second, "-o".as_ref(), &*next, "--parent".as_ref(), &*base]))?;
    let bytes = std::fs::metadata(&disks.first).map_err(LabError::io("looking at", &disks.first))?.len();
    let nodes = lab.nodes(NODES, &NodeOptions::file(bytes).on(TargetKind::File).mbits(MBITS))?;
    let mut serve = start(&lab, "serve", &images)?;
    let key = lab.key()?.with_extension("key.pub");
    let mut agents = Vec::new();
    for node in &nodes {
        let flags: [&Path; 4] = ["--target".as_ref(), &node.target.path, "--server-key".as_ref(), &key];
        agents.push(lab.agent_with(node, flags.map(Path::as_os_str))?);
    }
    let link = lab.path("web-state").join("first-sign-in");
    let args: [OsString; 4] = [script.into(), format!("http://{HTTP}").into(), link.into(), out.into()];
    let mut browser = lab.on_server("browser", &python.display().to_string(), args)?;
    let mut left = LIMIT.as_millis() / LOOK.as_millis();
    let exit = loop {
        if let Some(exit) = browser.poll_exit() {
            break exit;
        }
        if wish(out, "kill")? {
            agents[2].kill();
        }
        if out.join("restart").exists() {
            serve.kill();
            serve = start(&lab, "serve-again", &images)?;
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
        _ => Err(LabError::Ended { what: "the browser's script".to_owned(), tail: browser.tail() + &serve.tail() }),
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

fn start(lab: &Lab, name: &str, images: &Path) -> Result<Process> {
    let flags: [OsString; 9] = [
        "serve".into(),
        "--state".into(),
        lab.path("web-state").into(),
        "--images".into(),
        images.into(),
        "--http".into(),
        HTTP.into(),
        "--key-file".into(),
        lab.key()?.into(),
    ];
    let mut process = lab.server(name, flags)?;
    process.wait_for(&format!("serving http://{HTTP}"), SOON)?;
    Ok(process)
}
