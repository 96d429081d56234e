//! The image and the boot files that the tests use, made once in a run.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use slidecast_lab::disk::synthetic::{self, Disks};
use slidecast_lab::lab::Deploy;
use slidecast_lab::machine::{Boot, BootFiles, Disk, Machine};
use slidecast_lab::run::Run;
use slidecast_lab::{Compared, Exit, Lab, Report, compare, programs, tool};

/// For what a machine does before it has an address: about six times of what it takes on an idle machine.
pub(crate) const BOOT: Duration = Duration::from_secs(120);
/// Longer than any deployment here takes, on a busy machine too.
pub(crate) const LONG: Duration = Duration::from_secs(240);
/// For what should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A small disk as an image and as `image export` gives it back, the server's key, and the boot files that pin it.
pub(crate) struct Fixtures {
    pub(crate) disks: Disks,
    pub(crate) image: PathBuf,
    pub(crate) raw: PathBuf,
    pub(crate) key: PathBuf,
    /// With the drivers of ordinary machines.
    pub(crate) boot: BootFiles,
    _run: Run,
}

impl Fixtures {
    /// Made on first use; removed by `run::remove_all` at the end of the tests.
    pub(crate) fn get() -> &'static Self {
        static FIXTURES: OnceLock<Fixtures> = OnceLock::new();
        FIXTURES.get_or_init(Self::make)
    }

    fn make() -> Self {
        let run = Run::start().unwrap();
        let disks = synthetic::make(run.dir()).unwrap();
        let [image, raw, key] = ["base.slide", "base.raw", "server.key"].map(|name| run.dir().join(name));
        slidecast(["image".as_ref(), "create".as_ref(), disks.first.as_path(), "-o".as_ref(), &image]);
        slidecast(["image".as_ref(), "export".as_ref(), image.as_path(), &raw]);
        slidecast(["key".as_ref(), "new".as_ref(), Path::new("-o"), &key]);
        let public = key.with_extension("key.pub").display().to_string();
        let boot = BootFiles::make(&run.dir().join("out"), "common", &public, &[]).unwrap();
        Self { disks, image, raw, key, boot, _run: run }
    }

    /// Kernel and initramfs without firmware.
    pub(crate) fn kernel(&self) -> Boot {
        self.boot.kernel("").unwrap()
    }

    /// An empty disk of just the image's size.
    pub(crate) fn disk(&self, lab: &Lab, name: &str) -> Disk {
        Disk::empty(&lab.path(&format!("{name}.disk")), self.disks.layout.bytes()).unwrap()
    }

    /// Starts the deployment of the image to `wait_for` machines.
    pub(crate) fn deploy(&self, lab: &Lab, wait_for: usize, args: &[&str]) -> Deploy {
        let key = self.key.display().to_string();
        let all = [args, &["--key-file", &key, "--timeout", "120s"]].concat();
        lab.deploy(&self.image, wait_for, &all).unwrap()
    }

    /// The disk equals the image, zeros included.
    pub(crate) fn assert_holds_image(&self, disk: &Path) {
        let found = compare(disk, &self.raw).unwrap();
        assert!(
            matches!(found, Compared::Equal(bytes) if bytes == self.disks.layout.bytes()),
            "{}: {found}",
            disk.display()
        );
    }
}

/// Waits for the end of a deployment in which every node is done.
pub(crate) fn all_done(mut deploy: Deploy, nodes: usize) -> Report {
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    assert_eq!(report.nodes.len(), nodes, "{report:?}");
    assert!(report.nodes.iter().all(|node| node.state == "done"), "{report:?}");
    report
}

/// Waits until every machine has switched itself off after it was done; their disks equal the image.
pub(crate) fn finish(fixtures: &Fixtures, machines: &mut [Machine]) {
    for machine in machines {
        machine.wait_for("slidecast: done", SOON).unwrap();
        machine.wait_for("slidecast: powering off", SOON).unwrap();
        machine.wait_until_off(SOON).unwrap();
        fixtures.assert_holds_image(&machine.options.disks[0].file);
    }
}

/// Runs the command, which must succeed.
pub(crate) fn slidecast<'a>(args: impl IntoIterator<Item = &'a Path>) -> String {
    let program = programs::server().unwrap();
    tool::run(&program.display().to_string(), args.into_iter().map(Path::as_os_str)).unwrap()
}
