//! What a case is played on: an image that does not compress, a chain of nodes with small rings, the programs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::case::{Case, Kind, Needs, Phase};
use super::disk::FaultyDisk;
use super::liar::{self, Lie};
use super::misplace::MisplacingDisk;
use super::proxy::{self, Fault, GARBLE_OUT_EVERY, Which};
use crate::disk::random::{self, Random};
use crate::error::{LabError, Result};
use crate::lab::{self, Deploy, Lab, Node, NodeOptions};
use crate::process::Process;
use crate::run::Run;
use crate::target::TargetKind;
use crate::{programs, tool};

/// Bytes of the image of all cases, and of every disk.
pub(super) const BYTES: u64 = 24 << 20;
/// Bytes of a node's ring.
pub(super) const RING: u64 = 8 << 20;
/// Bytes of a frame without a payload.
const HEADER: u64 = 48;
/// For what happens at once.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// How often a disk is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// An image without a part that is unused.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// The layer.
    pub slide: PathBuf,
    /// The disk that it was made of: no part of it is unused.
    pub raw: PathBuf,
}

impl Image {
    /// Made on first use in this process; removed by `run::remove_all`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn get(bytes: u64) -> Result<Self> {
        static MADE: Mutex<BTreeMap<u64, (Run, Image)>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, image)) = made.get(&bytes) {
            return Ok(image.clone());
        }
        let run = Run::start()?;
        let image = Self { slide: run.dir().join("chaos.slide"), raw: run.dir().join("chaos.raw") };
        random::write_file(&image.raw, bytes, 11)?;
        let args = ["image".as_ref(), "create".as_ref(), image.raw.as_os_str(), "-o".as_ref(), image.slide.as_os_str()];
        let codec = ["--codec".as_ref(), "none".as_ref()];
        tool::run(&programs::server()?.display().to_string(), args.into_iter().chain(codec))?;
        made.insert(bytes, (run, image.clone()));
        Ok(image)
    }
}

/// What a deployment is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    /// The length of the chain.
    pub nodes: usize,
    /// The rate of every link.
    pub mbits: u32,
    /// The disks hold two thirds of the image already, and are compared first.
    pub old: bool,
    /// Bytes of the image, and of every disk.
    pub bytes: u64,
}

impl Setting {
    /// That of a case. How far a node is cannot be seen on a disk that held something; but the opening is told by other
    /// means, so half of its cases have old disks; but those have all the room that they need, and on a busy machine their few
    /// blocks are read back before a fault of reading has come.
    pub(super) fn of(case: &Case, random: &mut Random) -> Self {
        let may_be_old = case.phase == Phase::Opening && !matches!(case.kind, Kind::DiskFull | Kind::ReadError);
        let old = may_be_old && random.below(2) == 0;
        Self { nodes: case.kind.nodes().0, mbits: case.kind.mbits(), old, bytes: BYTES }
    }
}

/// What a deployment to which nothing happens comes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual {
    /// How long it takes.
    pub seconds: f64,
    /// From the plan to the end of the command, as seen from outside.
    pub wall: f64,
    /// What the server sends.
    pub egress: u64,
}

/// What stands ready to strike a node.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    disk: Option<FaultyDisk>,
    misplacing: Option<MisplacingDisk>,
    proxy: Option<Process>,
    liar: Option<Process>,
    stranger: Option<Node>,
}

impl Prepared {
    fn for_case(lab: &Lab, node: &mut Node, case: &Case, usual: &Usual, random: &mut Random) -> Result<Self> {
        let mut prepared = Self::default();
        if case.kind == Kind::DiskFull {
            (node.target.path, node.target.file) = cramped(lab, &node.target.file)?;
        }
        if case.kind.needs() == Needs::FaultyDisk {
            let faulty = FaultyDisk::new(lab, &node.name, &node.target.file)?;
            node.target.path.clone_from(&faulty.device);
            prepared.disk = Some(faulty);
        }
        if case.kind.needs() == Needs::MisplacingDisk {
            let made = MisplacingDisk::new(lab, &node.name, &node.target.file, misplacement(case, random))?;
            node.target.path.clone_from(&made.device);
            prepared.misplacing = Some(made);
        }
        if case.kind.by_proxy() {
            prepared.proxy = Some(proxy_for_case(lab, node, case, usual, random)?);
        }
        if let Some(lie) = case.kind.lie() {
            prepared.liar = Some(start_liar(lab, node, lie)?);
        }
        if case.kind.by_stranger() {
            prepared.stranger = Some(lab.node(0, &NodeOptions::file(1 << 20))?);
        }
        Ok(prepared)
    }
}

/// A deployment that runs, and what is to be struck in it.
#[derive(Debug)]
pub(super) struct Rig {
    // First: whoever waits for it is let go when it goes.
    pub(super) disk: Option<FaultyDisk>,
    pub(super) misplacing: Option<MisplacingDisk>,
    pub(super) proxy: Option<Process>,
    pub(super) liar: Option<Process>,
    /// A machine that is no node, and what it does.
    pub(super) stranger: Option<Node>,
    pub(super) floods: Vec<Process>,
    pub(super) deploy: Deploy,
    pub(super) agents: Vec<Process>,
    pub(super) nodes: Vec<Node>,
    /// Which of the nodes are struck.
    pub(super) struck: Range<usize>,
    pub(super) image: Image,
    pub(super) setting: Setting,
    /// When the plan was seen to be fixed.
    pub(super) planned: Instant,
    pub(super) lab: Lab,
}

impl Rig {
    /// Starts a deployment, and waits until its plan is fixed. For a case the nodes that it strikes are prepared.
    ///
    /// # Errors
    /// When the lab cannot do it.
    pub(super) fn start(setting: Setting, case: Option<(&Case, &Usual)>, random: &mut Random) -> Result<Self> {
        let places = |(case, _): (&Case, _)| case.position.places(setting.nodes, case.kind.nodes().1, random);
        let struck = case.map_or(0..0, places);
        Self::start_with(setting, struck, |lab, node| match case {
            Some((case, usual)) => Prepared::for_case(lab, node, case, usual, random),
            None => Ok(Prepared::default()),
        })
    }

    /// The same; `prepare` is given the first of the `struck` nodes before its agent starts.
    ///
    /// # Errors
    /// When the lab cannot do it.
    pub(super) fn start_with(
        setting: Setting,
        struck: Range<usize>,
        prepare: impl FnOnce(&Lab, &mut Node) -> Result<Prepared>,
    ) -> Result<Self> {
        let Setting { nodes: count, mbits, old, bytes } = setting;
        let image = Image::get(bytes)?;
        let lab = Lab::with_card_rate(1, mbits)?;
        let options = NodeOptions::file(bytes).on(TargetKind::Ram).mbits(mbits);
        let mut nodes = lab.nodes(count, &options)?;
        if old {
            nodes.iter().try_for_each(|node| age(&node.target.file, &image))?;
        }
        let Prepared { disk, misplacing, proxy, liar, stranger } = prepare(&lab, &mut nodes[struck.start])?;
        let deploy = lab.deploy(&image.slide, count, &["--progress", "json"])?;
        let start = |(at, node)| start_agent(&lab, node, liar.as_ref().filter(|_| struck.contains(&at)));
        let agents = nodes.iter().enumerate().map(start).collect::<Result<_>>()?;
        let planned = Instant::now();
        let mut rig = Self {
            disk,
            misplacing,
            proxy,
            liar,
            stranger,
            floods: Vec::new(),
            deploy,
            agents,
            nodes,
            struck,
            image,
            setting,
            planned,
            lab,
        };
        rig.deploy.process.wait_for("\"event\":\"plan\"", SOON)?;
        rig.planned = Instant::now();
        Ok(rig)
    }

    /// Waits until the first struck node has written so many thousandths of its disk. Gives whether that came.
    pub(super) fn wait_until_written(&mut self, thousandths: u64) -> Result<bool> {
        let file = self.nodes[self.struck.start].target.file.clone();
        let deadline = Instant::now() + SOON;
        loop {
            let ended = self.deploy.process.poll_exit().is_some();
            let blocks = fs::metadata(&file).map_err(LabError::io("looking at", &file))?.blocks();
            if blocks * 512 >= self.setting.bytes / 1000 * thousandths {
                return Ok(!ended);
            }
            if ended {
                return Ok(false);
            }
            if Instant::now() >= deadline {
                let what = format!("{thousandths} thousandths of {} being written", file.display());
                return Err(LabError::Late { what, after: SOON, tail: self.tails() });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Tells the proxy that it is to strike now, if it waits for that.
    pub(super) fn tell_proxy(&self) {
        self.proxy.iter().for_each(|proxy| proxy.signal(Signal::SIGUSR1));
    }

    /// Whether the proxy printed `word`.
    pub(super) fn proxy_said(&self, word: &str) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.out().contains(word))
    }

    /// Starts the agent of a node anew.
    pub(super) fn start_again(&mut self, at: usize) -> Result<()> {
        self.agents[at] = start_agent(&self.lab, &self.nodes[at], None)?;
        Ok(())
    }

    /// The ends of all outputs, for whoever looks for the reason.
    pub(super) fn tails(&self) -> String {
        let all = std::iter::once(&self.deploy.process)
            .chain(&self.agents)
            .chain(&self.proxy)
            .chain(&self.liar)
            .chain(self.misplacing.as_ref().map(MisplacingDisk::server))
            .chain(&self.floods);
        let one = |process: &Process| {
            // The progress of a second is a long line, and not what is looked for.
            let lines: Vec<String> =
                process.said().lines().filter(|line| !line.contains("\"progress\"")).map(short).collect();
            format!("--- {}\n{}\n", process.name(), tool::last_lines(&lines.join("\n"), 24))
        };
        all.map(one).collect()
    }
}

fn short(line: &str) -> String {
    line.chars().take(400).collect()
}

/// With a liar the agent takes that for its server.
fn start_agent(lab: &Lab, node: &Node, liar: Option<&Process>) -> Result<Process> {
    let (target, ring) = (node.target.path.display().to_string(), format!("{}MiB", RING >> 20));
    let mut args = vec!["--target".to_owned(), target, "--ring".to_owned(), ring, "--once".to_owned()];
    let key = if let Some(liar) = liar {
        args.extend(["--server".to_owned(), format!("127.0.0.1:{}", liar::PORT)]);
        let out = liar.out();
        out.lines().find_map(|line| line.strip_prefix(liar::READY)).unwrap_or_default().to_owned()
    } else {
        lab.key()?.with_extension("key.pub").display().to_string()
    };
    args.extend(["--server-key".to_owned(), key]);
    lab.agent_with(node, args)
}

fn start_liar(lab: &Lab, node: &Node, lie: Lie) -> Result<Process> {
    let public = lab.key()?.with_extension("key.pub");
    let server = format!("{}:{}", lab.server_address(0), lab::PORT);
    let lie = format!("{lie:?}").to_lowercase();
    let args = ["liar".to_owned(), lie, server, public.display().to_string()];
    let mut process =
        lab.on_node(node, &format!("{}-liar", node.name), &programs::lab()?.display().to_string(), args)?;
    process.wait_for(liar::READY, SOON)?;
    Ok(process)
}

/// What is wrong with a disk that misplaces: the arguments of `slidecast-lab misplace`.
fn misplacement(case: &Case, random: &mut Random) -> Vec<String> {
    const PAGE: u64 = 4096;
    // Never sector 0, and never as low as the mark.
    let lower = |most: u64, random: &mut Random| PAGE * (1 + random.below(most / PAGE - 1));
    let once = |at: u64, lower: u64| vec![format!("--at={at}"), format!("--lower={lower}")];
    match (case.kind, case.phase) {
        (Kind::Wrap, _) => vec![format!("--wrap={}", BYTES / 2)],
        // From a quarter of the size up to all of it but a page; an odd number of sectors.
        (Kind::WrapOdd, _) => {
            vec![format!("--wrap={}", BYTES / 4 + 512 * (1 + 2 * random.below(BYTES / 4 * 3 / 1024 - 8)))]
        }
        // Marks of the probe, and the wipe of the backup table.
        (_, Phase::Opening) => once(PAGE << random.below(12), PAGE),
        (_, Phase::Finishing) => {
            let mut args = once(BYTES / 2, lower(BYTES / 2, random));
            args.push("--told".to_owned());
            args
        }
        (_, phase) => {
            // A block, in a stretch in which one must begin; not the backup table or a mark of the probe, which come first.
            let at = BYTES / 1000 * phase.at(random);
            let mut args = once(at, lower(at, random));
            args.extend([format!("--until={}", at + (5 << 18)), format!("--least={}", 64 << 10)]);
            args
        }
    }
}

/// What [`age`] puts in the place of the image's bytes.
pub(super) const AGED: u8 = 0xA5;

/// Puts something on a disk that is two thirds of the image, and not its beginning.
fn age(disk: &Path, image: &Image) -> Result<()> {
    fs::copy(&image.raw, disk).map_err(LabError::io("filling", disk))?;
    let file = File::options().write(true).open(disk).map_err(LabError::io("opening", disk))?;
    let gaps = (0..BYTES).step_by(3 << 20);
    gaps.into_iter()
        .try_for_each(|at| file.write_all_at(&vec![AGED; 1 << 20], at))
        .map_err(LabError::io("filling", disk))
}

/// A disk on a file system that has room for it and for hardly anything else.
fn cramped(lab: &Lab, file: &Path) -> Result<(PathBuf, PathBuf)> {
    let dir = lab.path("cramped");
    fs::create_dir(&dir).map_err(LabError::io("creating", &dir))?;
    let (kind, size) = (Path::new("tmpfs"), format!("size={}", BYTES + (1 << 20)));
    tool::run("mount", [Path::new("-t"), kind, Path::new("-o"), Path::new(&size), kind, &dir])?;
    let disk = dir.join("disk");
    // Holes stay holes: whatever is not there yet is what there may be no room for.
    tool::run("cp", [Path::new("--sparse=always"), file, &disk])?;
    Ok((disk.clone(), disk))
}

/// Takes the room that is left beside a disk.
pub(super) fn fill_up(disk: &Path) -> Result<()> {
    let balloon = disk.with_file_name("balloon");
    let mut file = File::create(&balloon).map_err(LabError::io("creating", &balloon))?;
    while file.write_all(&[0xFF; 4096]).is_ok() {}
    Ok(())
}

fn proxy_for_case(lab: &Lab, node: &Node, case: &Case, usual: &Usual, random: &mut Random) -> Result<Process> {
    let (fault, which) = match case.kind {
        Kind::FlipUp => (Fault::Flip, Which::Up),
        Kind::Garble | Kind::GarbleOut => (Fault::Garble, Which::Down),
        Kind::GarbleOwn => (Fault::Garble, Which::Own),
        Kind::Reset => (Fault::Reset, Which::Down),
        Kind::Close => (Fault::Close, Which::Down),
        Kind::PartOut => (Fault::Part, Which::Down),
        Kind::HeaderOut => (Fault::Header, Which::Down),
        Kind::StuckTail => (Fault::Stuck, Which::Down),
        _ => (Fault::Flip, Which::Down),
    };
    let up = which == Which::Up;
    // What goes up are proofs, what is lacking, and an ack of 72 bytes each 50 ms.
    let whole = if up { 1800 } else { BYTES };
    let at = match case.phase {
        Phase::Opening if matches!(fault, Fault::Part | Fault::Header | Fault::Stuck) => Some(0),
        Phase::Opening if which == Which::Own => Some(0),
        Phase::Opening => Some(random.below(if up { 160 } else { 600 })),
        // How much goes up is not known beforehand.
        _ if which == Which::Own => None,
        // Nothing may come down after the last frame, which says that this is all: that one it must be.
        Phase::Finishing if fault.changes() && !up => Some(usual.egress - 1 - random.below(HEADER)),
        Phase::Finishing => None,
        phase => Some(whole / 1000 * phase.at(random) + random.below(whole / 1000)),
    };
    let mut args = which_args(fault, which);
    args.extend(at.map(|at| format!("--at={at}")));
    if matches!(case.kind, Kind::GarbleOut | Kind::GarbleOwn) {
        args.push(format!("--every={GARBLE_OUT_EVERY}"));
    }
    if matches!(fault, Fault::Part | Fault::Header) && random.below(2) == 0 {
        args.push("--mended".to_owned());
    }
    let rules = match case.kind {
        Kind::GarbleOwn => proxy::redirect() + &proxy::redirect_out(lab::PORT),
        kind if kind.is_outward() => proxy::redirect_out(lab::PORT),
        _ => proxy::redirect(),
    };
    start_proxy(lab, node, args, &rules)
}

fn which_args(fault: Fault, which: Which) -> Vec<String> {
    let word = |value: String| value.to_lowercase();
    vec!["proxy".to_owned(), word(format!("{fault:?}")), format!("--which={}", word(format!("{which:?}")))]
}

/// A proxy on a node that damages whatever the node sends down, from the first byte on or when it is told to; with `up`, what it sends
/// up, too.
///
/// # Errors
/// When it cannot be started.
pub(super) fn damage_all(lab: &Lab, node: &Node, up: bool, at_once: bool) -> Result<Prepared> {
    let mut args = which_args(Fault::Garble, if up { Which::Own } else { Which::Down });
    args.push(format!("--every={GARBLE_OUT_EVERY}"));
    args.extend(at_once.then(|| "--at=0".to_owned()));
    let inward = if up { proxy::redirect() } else { String::new() };
    let proxy = start_proxy(lab, node, args, &(inward + &proxy::redirect_out(lab::PORT)))?;
    Ok(Prepared { proxy: Some(proxy), ..Prepared::default() })
}

fn start_proxy(lab: &Lab, node: &Node, args: Vec<String>, rules: &str) -> Result<Process> {
    let mut proxy =
        lab.on_node(node, &format!("{}-proxy", node.name), &programs::lab()?.display().to_string(), args)?;
    proxy.wait_for(proxy::READY, SOON)?;
    lab.nft(node, rules)?;
    Ok(proxy)
}
