//! A running `slidecast deploy`, and an agent to try it on.
#![expect(clippy::unwrap_used, reason = "what fails in a test should stop it")]

mod agent;

pub(crate) use agent::Agent;

use slidecast_image::{CreateOptions, create};
use slidecast_proto::noise::PublicKey;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A folder with an image of a disk of 24 MiB, half of it random bytes, the rest zeros.
pub(crate) struct Sandbox {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) image: PathBuf,
    pub(crate) port: u16,
}

/// A port for a server, below those that the kernel gives to outgoing connections: one of another test could take it in between.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once begin at different places.
    let first = std::process::id() % 40 * 500;
    (0..500)
        .map(|_| 10_000 + u16::try_from(first).unwrap() + NEXT.fetch_add(1, Ordering::Relaxed) % 500)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("0.0.0.0", *port)).is_ok())
        .unwrap()
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = make_image(dir.path(), "base", 0);
        Self { dir, image, port: free_port() }
    }

    pub(crate) fn deploy(&self, args: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.arg("deploy").arg(&self.image).args(["--port", &self.port.to_string()]);
        if !args.contains(&"--progress") {
            command.args(["--progress", "plain"]);
        }
        command.arg("--state").arg(self.dir.path().join("state")).args(args);
        command.env_remove("XDG_CONFIG_HOME").env("HOME", self.dir.path());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let running = Running { child: Some(child), port: self.port };
        running.wait_for_port();
        running
    }

    /// The key that a deployment with `--state` of this sandbox uses.
    pub(crate) fn server_key(&self) -> PublicKey {
        let path = self.dir.path().join("state/server.key.pub");
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// A file or folder of this sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.report_path()).unwrap()).unwrap()
    }

    pub(crate) fn report_path(&self) -> PathBuf {
        self.dir.path().join("report.json")
    }
}

/// An image of a disk of 24 MiB, half of it bytes that look random and are the same in every run, the rest zeros.
pub(crate) fn make_image(dir: &Path, name: &str, seed: u8) -> PathBuf {
    let (disk, image) = (dir.join(format!("{name}.raw")), dir.join(format!("{name}.slide")));
    let mut bytes = vec![0; 24 << 20];
    blake3::Hasher::new().update(&vec![seed; usize::from(seed)]).finalize_xof().fill(&mut bytes[..12 << 20]);
    std::fs::write(&disk, &bytes).unwrap();
    create(&CreateOptions::new(&disk, &image), |_| {}).unwrap();
    image
}

/// A running deployment; killed if a test fails.
pub(crate) struct Running {
    child: Option<Child>,
    port: u16,
}

impl Running {
    fn wait_for_port(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.as_ref().unwrap().id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for the end; gives the exit code, standard output and standard error.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.child.take().unwrap().wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Flips a bit of the stored block in the middle of the file.
pub(crate) fn rot(image: &Path) {
    let mut bytes = std::fs::read(image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(image, bytes).unwrap();
}
