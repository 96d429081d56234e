//! Images that many tests use, made once in a run.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use slidecast_lab::disk::synthetic::{self, Disks};
use slidecast_lab::run::Run;
use slidecast_lab::{Compared, Exit, Lab, Node, NodeOptions, Process, Report, compare_data, programs, tool};

/// Longer than anything here takes, on a busy machine too.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// For what should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The sample disk in two states, as images and as `image export` gives them back.
pub(crate) struct Fixtures {
    pub(crate) disks: Disks,
    /// The first state.
    pub(crate) base: PathBuf,
    /// The second state on top of it.
    pub(crate) increment: PathBuf,
    pub(crate) base_raw: PathBuf,
    pub(crate) increment_raw: PathBuf,
    run: Run,
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
        let at = |name: &str| run.dir().join(name);
        let (base, increment) = (at("base.slide"), at("increment.slide"));
        let (base_raw, increment_raw) = (at("base.raw"), at("increment.raw"));
        let source = |path: &Path| path.display().to_string();
        slidecast(&["image", "create", &source(&disks.first), "-o", &source(&base)]);
        let on_top = ["image", "create", &source(&disks.second), "-o", &source(&increment), "--parent", &source(&base)];
        slidecast(&on_top);
        slidecast(&["image", "export", &source(&base), &source(&base_raw)]);
        slidecast(&["image", "export", &source(&increment), &source(&increment_raw)]);
        Self { disks, base, increment, base_raw, increment_raw, run }
    }

    /// Size of the image's disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.disks.layout.bytes()
    }

    /// A node with a file of just that size.
    pub(crate) fn node(&self) -> NodeOptions {
        NodeOptions::file(self.bytes())
    }

    /// A folder of its own for a test's files.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let dir = self.run.dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// The node's disk equals the image: where the image has data by its export, and where the source was in use by
    /// `dumpe2fs` (zeros too).
    pub(crate) fn assert_holds_base(&self, node: &Node) {
        self.assert_holds(node, &self.base_raw, &self.disks.first);
    }

    pub(crate) fn assert_holds_increment(&self, node: &Node) {
        self.assert_holds(node, &self.increment_raw, &self.disks.second);
    }

    fn assert_holds(&self, node: &Node, raw: &Path, source: &Path) {
        let by_export = compare_data(&node.target.path, raw).unwrap();
        assert!(matches!(by_export, Compared::Equal(bytes) if bytes > 1 << 20), "{} by export {by_export}", node.name);
        let used = self.disks.layout.used_ranges(source).unwrap();
        let by_source = slidecast_lab::compare::compare_ranges(&node.target.path, source, &used).unwrap();
        assert!(matches!(by_source, Compared::Equal(_)), "{} by source {by_source}", node.name);
        self.disks.layout.check(&node.target.path).unwrap();
    }
}

/// Runs the command, which must succeed.
pub(crate) fn slidecast(args: &[&str]) -> String {
    let program = programs::server().unwrap();
    tool::run(&program.display().to_string(), args).unwrap()
}

/// Starts the usual agent on each node.
pub(crate) fn start_agents(lab: &Lab, nodes: &[Node]) -> Vec<Process> {
    nodes.iter().map(|node| lab.agent(node).unwrap()).collect()
}

/// Deploys to all nodes, which must succeed on both sides.
pub(crate) fn deploy_to(lab: &Lab, nodes: &[Node], image: &Path, args: &[&str]) -> Report {
    let mut deploy = lab.deploy(image, nodes.len(), args).unwrap();
    let mut agents = start_agents(lab, nodes);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(0), "{report:?}");
    for agent in &mut agents {
        assert_eq!(agent.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", agent.name());
    }
    assert_eq!(report.nodes.len(), nodes.len());
    report
}

/// Waits until a node's disk file holds at least `bytes`: the middle of a deployment has come.
pub(crate) fn wait_until_written(process: &mut Process, node: &Node, bytes: u64) {
    use std::os::unix::fs::MetadataExt;
    let written = |_: &Process| std::fs::metadata(&node.target.file).is_ok_and(|meta| meta.blocks() * 512 >= bytes);
    process.wait_until("having written to its disk", LONG, written).unwrap();
}

/// A line of the output that has all these words.
pub(crate) fn says(process: &Process, words: &[&str]) -> bool {
    process.said().lines().any(|line| {
        let line = line.to_lowercase();
        words.iter().all(|word| line.contains(&word.to_lowercase()))
    })
}
