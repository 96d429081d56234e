//! Images and labs that the figures share.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slidecast_lab::disk::debian::{self, Flavour};
use slidecast_lab::disk::{random, synthetic::Disks};
use slidecast_lab::run::Run;
use slidecast_lab::{
    Exit, Lab, LabError, Node, NodeOptions, Process, Report, Result, TargetKind, compare, programs, tool,
};

/// No figure takes longer.
const LIMIT: Duration = Duration::from_secs(900);

/// What a run of benchmarks works on, made on first use and removed at the end.
#[derive(Debug)]
pub struct Setup {
    run: Run,
    /// Size of the incompressible image in bytes.
    pub random_bytes: u64,
}

/// An image, and the disk that it gives.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image file.
    pub file: PathBuf,
    /// The disk that it was made of.
    pub source: PathBuf,
    /// Size of that disk in bytes.
    pub disk_bytes: u64,
}

impl Setup {
    /// An empty setup whose incompressible image will have this size.
    ///
    /// # Errors
    /// When no folder can be had.
    pub fn new(random_bytes: u64) -> Result<Self> {
        Ok(Self { run: Run::start()?, random_bytes })
    }

    /// A file of this setup.
    pub fn path(&self, name: &str) -> PathBuf {
        self.run.dir().join(name)
    }

    /// The sample disk with a Debian system of at least 512 MiB.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn debian(&self) -> Result<Disks> {
        debian::make(Flavour::Full, &mut |step| eprintln!("{step}"))
    }

    /// The image of that disk.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn system_image(&self) -> Result<Image> {
        let source = self.debian()?.first;
        self.image("system", source, &[])
    }

    /// The same cut into smaller blocks.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn system_image_of_blocks(&self, size: &str) -> Result<Image> {
        let source = self.debian()?.first;
        self.image(&format!("system-{size}"), source, &["--block-size", size])
    }

    /// An image on which nothing can be saved.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn random_image(&self) -> Result<Image> {
        self.incompressible("random", self.random_bytes, 11)
    }

    /// The same in another size and with other bytes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn incompressible(&self, name: &str, bytes: u64, seed: u64) -> Result<Image> {
        let name = format!("{name}-{}", bytes >> 20);
        let source = self.path(&format!("{name}.img"));
        if !source.exists() {
            random::write_file(&source, bytes, seed)?;
        }
        self.image(&name, source, &[])
    }

    fn image(&self, name: &str, source: PathBuf, args: &[&str]) -> Result<Image> {
        let file = self.path(&format!("{name}.slide"));
        if !file.exists() {
            create(&source, &file, args)?;
        }
        let disk_bytes = compare::length(&source)?;
        Ok(Image { file, source, disk_bytes })
    }
}

/// `slidecast image create`.
///
/// # Errors
/// When it fails.
pub fn create(source: &Path, image: &Path, args: &[&str]) -> Result<()> {
    let fixed = [Path::new("image"), Path::new("create"), source, Path::new("-o"), image];
    let args = fixed.into_iter().chain(args.iter().map(Path::new));
    tool::run(&programs::server()?.display().to_string(), args).map(drop)
}

/// `image info --json`.
///
/// # Errors
/// When it fails or says something else than JSON.
pub fn info(image: &Path) -> Result<serde_json::Value> {
    let args = [Path::new("image"), Path::new("info"), image, Path::new("--json")];
    let text = tool::run(&programs::server()?.display().to_string(), args)?;
    serde_json::from_str(&text).map_err(|error| LabError::Report { path: image.to_owned(), detail: error.to_string() })
}

/// A lab in which one deployment is measured.
#[derive(Debug)]
pub struct Bench {
    /// The lab.
    pub lab: Lab,
    /// Its nodes, with disks in memory.
    pub nodes: Vec<Node>,
}

impl Bench {
    /// A server with one card and `count` nodes, all links shaped to `mbits` unless none.
    ///
    /// # Errors
    /// When the lab cannot be made.
    pub fn new(count: usize, mbits: Option<u32>, disk_bytes: u64) -> Result<Self> {
        Self::with_disks(count, mbits, disk_bytes, TargetKind::Ram)
    }

    /// The same with disks that have all their pages from the start, as the peers' figures were measured.
    ///
    /// # Errors
    /// When the lab cannot be made.
    pub fn filled(count: usize, mbits: Option<u32>, disk_bytes: u64) -> Result<Self> {
        Self::with_disks(count, mbits, disk_bytes, TargetKind::FilledRam)
    }

    /// Writes zeros to these ranges of every disk, so that they have their pages as a disk has its sectors: where many disks lie in
    /// memory, making pages costs more than all that is measured.
    ///
    /// # Errors
    /// When a disk cannot be written.
    pub fn fill(&self, ranges: &[Range<u64>]) -> Result<()> {
        for node in &self.nodes {
            let path = &node.target.path;
            let mut disk = File::options().write(true).open(path).map_err(LabError::io("opening", path))?;
            for range in ranges {
                disk.seek(SeekFrom::Start(range.start)).map_err(LabError::io("filling", path))?;
                let mut zeros = std::io::repeat(0).take(range.end - range.start);
                std::io::copy(&mut zeros, &mut disk).map_err(LabError::io("filling", path))?;
            }
        }
        Ok(())
    }

    /// The same with disks of this kind.
    ///
    /// # Errors
    /// When the lab cannot be made.
    pub fn with_disks(count: usize, mbits: Option<u32>, disk_bytes: u64, kind: TargetKind) -> Result<Self> {
        let lab = mbits.map_or_else(|| Lab::new(1), |mbits| Lab::with_card_rate(1, mbits))?;
        let options = NodeOptions { mbits, kind, bytes: disk_bytes };
        let nodes = lab.nodes(count, &options)?;
        Ok(Self { lab, nodes })
    }

    /// Deploys the image to all nodes; `watch` is called with the server and the agents as soon as they run. The disk
    /// of the last node is compared afterwards: a figure of a wrong disk is none.
    ///
    /// # Errors
    /// When the deployment fails.
    pub fn deploy(&self, image: &Image, args: &[&str], watch: impl FnOnce(&Process, &[Process])) -> Result<Report> {
        self.run(image, args, watch).map(|(report, _)| report)
    }

    /// The same; gives the agents, too, for what they said.
    ///
    /// # Errors
    /// When the deployment fails.
    pub fn deploy_and_hear(&self, image: &Image, args: &[&str]) -> Result<(Report, Vec<Process>)> {
        self.run(image, args, |_, _| ())
    }

    fn run(
        &self,
        image: &Image,
        args: &[&str],
        watch: impl FnOnce(&Process, &[Process]),
    ) -> Result<(Report, Vec<Process>)> {
        // Agents are up already when the clock starts, as machines are.
        let mut agents: Vec<Process> = self.nodes.iter().map(|node| self.lab.agent(node)).collect::<Result<_>>()?;
        let args = [&["--progress", "none"], args].concat();
        let mut deploy = self.lab.deploy(&image.file, self.nodes.len(), &args)?;
        watch(&deploy.process, &agents);
        let (exit, report) = deploy.wait(LIMIT)?;
        if exit != Exit::Code(0) {
            return Err(LabError::Ended { what: format!("deploying: {exit:?}"), tail: deploy.process.tail() });
        }
        for agent in &mut agents {
            agent.wait_exit(Duration::from_secs(20))?;
        }
        if let Some(node) = self.nodes.last() {
            let export = self.lab.path("export.raw");
            self.lab.slidecast(
                ["image", "export"]
                    .map(OsString::from)
                    .into_iter()
                    .chain([image.file.clone().into(), export.clone().into()]),
            )?;
            let compared = slidecast_lab::compare_data(&node.target.path, &export)?;
            if !matches!(compared, compare::Compared::Equal(_)) {
                let how = compared.to_string();
                return Err(LabError::Differs { disk: node.target.path.clone(), with: "image export".into(), how });
            }
        }
        Ok((report, agents))
    }

    /// Processor time that server and nodes have used so far, in seconds.
    pub fn cpu(&self) -> Option<f64> {
        let groups = self.nodes.iter().map(|node| node.group.as_ref()).chain([self.lab.server_group()]);
        groups.map(|group| group?.cpu().map(|time| time.as_secs_f64())).sum()
    }
}

/// Whether this many bytes of memory are free for disks; a figure that swaps is none.
pub fn fits(bytes: u64) -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024;
    bytes + (1 << 30) < free
}
