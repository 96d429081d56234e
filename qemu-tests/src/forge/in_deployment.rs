//! Forged agents in a real deployment: the server takes them for nodes, so they have places in the chain and the right keys.
//!
//! Three innocent nodes take part with the real agent. No innocent may stand still for more than five seconds, each must be done in
//! the end, nobody panics, and the server ends with a documented code.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slidecast_proto::control::{Join, Ready, ToAgent, ToServer};
use slidecast_proto::link::Terms;
use slidecast_proto::noise::PublicKey;
use slidecast_proto::units::{DeploymentId, Epoch, NodeId};

use super::sample::Sample;
use super::{talk, words};
use crate::compare::{Compared, compare};
use crate::disk::random::Random;
use crate::error::Result;
use crate::lab::{Lab, NodeOptions, PORT};
use crate::peer::{Control, ask, hello};
use crate::process::{Exit, Process};
use crate::programs;
use crate::target::TargetKind;

/// How long an innocent may stand still.
const STALL: Duration = Duration::from_secs(5);
/// Longer than this a deployment hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an answer may take that comes at once.
const SOON: Duration = Duration::from_secs(20);
/// How many forgers there are at once.
const FORGERS: u64 = 6;
/// The most conversations in one deployment: it has room for 256 nodes that come and go.
const MOST: u64 = 120;
/// The rate of the links in Mbit/s: the deployment shall last for some seconds.
const MBITS: u32 = 60;

/// What became of a conversation in which the forger had a place in the chain.
const PLACED: &str = "in the chain";

/// What a deployment with forgers came to.
#[derive(Debug)]
pub(super) struct Session {
    /// How many conversations there were.
    pub runs: u64,
    /// In how many of them the forger had a place in the chain.
    pub placed: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
    /// The longest that an innocent stood still.
    pub stood: Duration,
}

/// Plays one deployment with at most `runs` conversations.
///
/// # Errors
/// When the lab cannot do it.
pub(super) fn play(image: &Path, raw: &Path, bytes: u64, runs: u64, seed: u64) -> Result<Session> {
    let lab = Lab::with_card_rate(1, MBITS)?;
    let options = NodeOptions::file(bytes).on(TargetKind::Ram).mbits(MBITS);
    // The forgers are the second machine, so that the first of them has innocents on both sides.
    let first = lab.node(0, &options)?;
    let forgers = lab.node(0, &options)?;
    let innocents = [first, lab.node(0, &options)?, lab.node(0, &options)?];
    let mut deploy = lab.deploy(image, innocents.len() + 1, &["--progress", "json"])?;
    let server = format!("{}:{PORT}", lab.server_address(0));
    let args = ["forge-agents".to_owned(), server, image.display().to_string()];
    let args = args.into_iter().chain([format!("--runs={}", runs.min(MOST)), format!("--seed={seed}")]);
    let mut forging = lab.on_node(&forgers, "forgers", &programs::lab()?.display().to_string(), args)?;
    let start = |node| lab.agent_with(node, agent_args(&lab, node)?);
    let mut agents: Vec<Process> = innocents.iter().map(start).collect::<Result<_>>()?;
    deploy.process.wait_for("\"event\":\"plan\"", SOON)?;

    let (mut grew, mut sizes) = (vec![Instant::now(); innocents.len()], vec![0; innocents.len()]);
    let (mut stood, begun, mut wrong) = (Duration::ZERO, Instant::now(), Vec::new());
    while deploy.process.poll_exit().is_none() && begun.elapsed() < LIMIT {
        for (at, node) in innocents.iter().enumerate() {
            let now = fs::metadata(&node.target.file).map_or(0, |metadata| metadata.blocks());
            if now != sizes[at] || agents[at].poll_exit().is_some() {
                (sizes[at], grew[at]) = (now, Instant::now());
            }
            stood = stood.max(grew[at].elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = deploy.wait(Duration::from_secs(1));
    match report {
        Ok((Exit::Code(0 | 3), report)) => {
            for node in &innocents {
                match report.node(&node.address) {
                    Some(entry) if entry.state == "done" => {
                        let compared = compare(&node.target.file, raw)?;
                        if compared != Compared::Equal(bytes) {
                            wrong.push(format!("{} is done, and its disk {compared}", node.name));
                        }
                    }
                    Some(entry) => wrong.push(format!("{} ended as {}: {}", node.name, entry.reason, entry.detail)),
                    None => wrong.push(format!("{} is not in the report", node.name)),
                }
            }
        }
        Ok((exit, _)) => wrong.push(format!("deploy ended with {exit:?}")),
        Err(error) => wrong.push(format!("deploy: {}", error.to_string().lines().next().unwrap_or_default())),
    }
    if stood > STALL {
        wrong.push(format!("an innocent stood still for {:.1} s", stood.as_secs_f64()));
    }
    forging.kill();
    agents.iter_mut().for_each(Process::kill);
    for process in agents.iter().chain([&forging, &deploy.process]) {
        if let Some(line) = process.said().lines().find(|line| line.contains("panicked")) {
            wrong.push(format!("{} panicked: {line}", process.name()));
        }
    }
    let said = forging.out();
    let count = |with: &str| said.lines().filter(|line| line.starts_with("run ") && line.contains(with)).count() as u64;
    Ok(Session { runs: count(""), placed: count(PLACED), wrong, stood })
}

fn agent_args(lab: &Lab, node: &crate::lab::Node) -> Result<Vec<String>> {
    let key = lab.key()?.with_extension("key.pub").display().to_string();
    let target = node.target.path.display().to_string();
    Ok(["--target", &target, "--server-key", &key, "--ring", "8MiB", "--once"].map(str::to_owned).to_vec())
}

/// Plays forged agents against the server until `runs` are over or the server is gone. `say` gets a line for each.
///
/// # Errors
/// When the image cannot be read or no server answers.
pub fn agents(server: SocketAddr, image: &Path, runs: u64, seed: u64, say: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let sample = Sample::read(image)?;
    let io = |error: io::Error| crate::error::LabError::io("asking", server.to_string())(error);
    let offer = ask(server, SOON).map_err(io)?;
    let next = AtomicU64::new(0);
    let joined = AtomicU64::new(0);
    let work = |thread: u64| {
        // The first one is part of the plan; the others come when it has its place.
        let begun = Instant::now();
        while thread > 0 && joined.load(Ordering::Relaxed) == 0 && begun.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(10));
        }
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return;
            }
            let mut random = Random::new(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let ended = converse(server, offer.server, &sample, &mut random, &joined);
            if ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return;
            }
            say(&format!("run {number}: {ended:?}"));
        }
    };
    std::thread::scope(|scope| (0..FORGERS).for_each(|thread| drop(scope.spawn(move || work(thread)))));
    Ok(())
}

fn converse(
    server: SocketAddr,
    key: Option<PublicKey>,
    sample: &Sample,
    random: &mut Random,
    joined: &AtomicU64,
) -> io::Result<&'static str> {
    let first = joined.load(Ordering::Relaxed) == 0;
    let mut control = Control::connect(server, key, Duration::from_secs(2))?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let hello = hello(random, control.address()?, listener.local_addr()?.port());
    control.say(&ToServer::Hello(hello))?;
    let (mut me, mut prepared, mut epoch) = (NodeId(0), DeploymentId([0; 16]), Epoch(0));
    let wait = if first { SOON } else { Duration::from_secs(1) };
    let until = Instant::now() + wait;
    let join = loop {
        let order = control.hear(Duration::from_millis(100))?;
        match order {
            Some(ToAgent::Welcome(welcome)) => me = welcome.node,
            Some(ToAgent::Prepare(prepare)) => {
                prepared = prepare.deployment;
                let mut ready = Ready {
                    deployment: prepared,
                    target: "/dev/vda".to_owned(),
                    describe: "a disk".to_owned(),
                    bytes: 1 << 30,
                    rotational: false,
                    direct: true,
                    comparable: false,
                    ring: 64 << 20,
                };
                if random.below(8) == 0 && !first {
                    ready = words::ready(random, prepared);
                }
                control.say(&ToServer::Ready(ready))?;
            }
            Some(ToAgent::Join(join)) => break Some(join),
            Some(ToAgent::Abort(_)) => return Ok("refused"),
            _ => {
                if first {
                    control.say(&ToServer::Heartbeat)?;
                } else if random.below(4) == 0 {
                    control.say(&words::to_server(random, prepared, epoch, sample.root, sample.count))?;
                }
            }
        }
        if Instant::now() >= until {
            break None;
        }
    };
    let Some(join) = join else { return Ok("no place") };
    joined.fetch_add(1, Ordering::Relaxed);
    epoch = join.epoch;
    let mut other = Random::new(random.word());
    std::thread::scope(|scope| {
        let above = terms(&join, join.upstream.node, me, &join.upstream);
        let listener = &listener;
        scope.spawn(move || talk::downstream(listener, &above, sample, &mut other));
        if let Some(below) = &join.downstream {
            let under = terms(&join, me, below.node, below);
            let _ = talk::upstream(below.address, &under, sample, random);
        }
    });
    for _ in 0..random.below(6) {
        let word = words::to_server(random, prepared, epoch, sample.root, sample.count);
        // The server may have hung up, and be right to.
        if control.say(&word).and_then(|()| control.hear(Duration::from_millis(1))).is_err() {
            break;
        }
    }
    Ok(PLACED)
}

fn terms(join: &Join, from: NodeId, to: NodeId, spec: &slidecast_proto::control::LinkSpec) -> Terms {
    Terms {
        deployment: join.deployment,
        epoch: join.epoch,
        pass: join.pass,
        from,
        to,
        key: spec.key.clone(),
        class: spec.class,
    }
}
