//! A standing server with four machines: for the tests in a browser, and for people to try (`./demo.sh --serve`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::disk::synthetic;
use crate::error::{LabError, Result};
use crate::lab::{Lab, NodeOptions};
use crate::privilege;
use crate::process::{Place, Process};
use crate::programs;
use crate::target::TargetKind;
use crate::tool;

const NODES: usize = 4;
/// Slow enough that a deployment can be watched, and lives on while the server is started again: 13 MiB take 35 s.
const MBITS: u32 = 3;
/// Where the pages are in the server's namespace.
pub(crate) const HTTP: &str = "127.0.0.1:8080";
/// Until the server listens.
const SOON: Duration = Duration::from_secs(30);
/// How often it is looked whether the server still runs.
const LOOK: Duration = Duration::from_millis(500);

/// A server, its images and its machines. Dropping it ends and removes everything.
pub(crate) struct Standing {
    pub(crate) serve: Process,
    pub(crate) agents: Vec<Process>,
    images: PathBuf,
    pub(crate) lab: Lab,
}

impl Standing {
    /// Starts all of it: two images, one an increment of the other, and agents with empty disks.
    pub(crate) fn start() -> Result<Self> {
        let lab = Lab::new(1)?;
        let images = lab.path("images");
        std::fs::create_dir_all(&images).map_err(LabError::io("creating", &images))?;
        let disks = synthetic::make(&images)?;
        let server = programs::server()?.display().to_string();
        let (base, next) = (images.join("monday.slide"), images.join("tuesday.slide"));
        let create: [&Path; 2] = ["image".as_ref(), "create".as_ref()];
        tool::run(&server, create.into_iter().chain([&*disks.first, "-o".as_ref(), &*base]))?;
        let parent: [&Path; 2] = ["--parent".as_ref(), &base];
        tool::run(&server, create.into_iter().chain([&*disks.second, "-o".as_ref(), &*next]).chain(parent))?;
        let bytes = std::fs::metadata(&disks.first).map_err(LabError::io("looking at", &disks.first))?.len();
        let nodes = lab.nodes(NODES, &NodeOptions::file(bytes).on(TargetKind::File).mbits(MBITS))?;
        let serve = serve(&lab, "serve", &images)?;
        let key = lab.key()?.with_extension("key.pub");
        let mut agents = Vec::new();
        for node in &nodes {
            let flags: [&Path; 4] = ["--target".as_ref(), &node.target.path, "--server-key".as_ref(), &key];
            agents.push(lab.agent_with(node, flags.map(Path::as_os_str))?);
        }
        Ok(Self { serve, agents, images, lab })
    }

    /// Kills the server and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.serve.kill();
        self.serve = serve(&self.lab, "serve-again", &self.images)?;
        Ok(())
    }

    /// The file with the link for the first sign-in.
    pub(crate) fn link(&self) -> PathBuf {
        self.lab.path("web-state").join("first-sign-in")
    }
}

fn serve(lab: &Lab, name: &str, images: &Path) -> Result<Process> {
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

/// Leaves a server with four machines running, to be operated from a browser of this machine at `port`, until it is interrupted.
///
/// # Errors
/// The lab can't be made, or the server has ended.
pub fn show(port: u16, say: &dyn Fn(&str)) -> Result<()> {
    if privilege::in_user_namespace() {
        let why = "a browser can't reach the server inside a user namespace: run this as root, or where sudo works";
        return Err(LabError::Unable { why: why.to_owned() });
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Ends by itself then, and removes what it has made.
        flag::register(signal, ended.clone())
            .map_err(|source| LabError::Start { program: "signals".to_owned(), source })?;
    }
    let mut standing = Standing::start()?;
    let namespace = standing.lab.network().namespace("server");
    // The server is in a network namespace of its own: connections are carried into it.
    let outside = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork");
    let inside = format!("EXEC:ip netns exec {namespace} socat STDIO TCP\\:{}", HTTP.replace(':', "\\:"));
    let place = Place::default();
    let mut carrier = Process::start("carrier", &standing.lab.path(""), &place, Path::new("socat"), [outside, inside])?;
    carrier.wait_for_tcp(port, SOON)?;
    let path = standing.link();
    let link = std::fs::read_to_string(&path).map_err(LabError::io("reading", &path))?;
    say("A server with four machines and two images runs. Each link is 3 Mbit/s, so that there is something to watch.");
    say("Open this link, choose a name and a password, accept the machines, and deploy monday.slide:");
    say(&format!("\n  {}\n", link.trim().replace(HTTP, &format!("127.0.0.1:{port}"))));
    say("Ctrl-C ends it and removes everything.");
    while !ended.load(Ordering::Relaxed) {
        if standing.serve.poll_exit().or_else(|| carrier.poll_exit()).is_some() {
            // The same Ctrl-C may have ended them first.
            std::thread::sleep(LOOK);
            break;
        }
        std::thread::sleep(LOOK);
    }
    if ended.load(Ordering::Relaxed) {
        say("ended");
        return Ok(());
    }
    let (what, tail) =
        ("the server, or what carries connections to it".to_owned(), standing.serve.tail() + &carrier.tail());
    Err(LabError::Ended { what, tail })
}
