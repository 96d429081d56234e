//! A real agent before a forged server: it is pinned to the forger's key, so everything it hears is from a proven peer.
//!
//! One agent for each run. Its disk is a file. Whatever it is told, it must not panic, and when it is asked to end it must end with
//! a documented code within five seconds.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slidecast_proto::control::{Join, LinkSpec, Prepare, ToAgent, ToServer, Welcome};
use slidecast_proto::link::Terms;
use slidecast_proto::noise::{Channel, SecretKey};
use slidecast_proto::reason::{Free, LinkClass, Then, Verify};
use slidecast_proto::units::{DeploymentId, Epoch, LinkKey, NodeId};

use super::sample::Sample;
use super::{talk, words};
use crate::disk::random::Random;
use crate::error::{LabError, Result};
use crate::peer::Control;
use crate::programs;

/// How long an answer may take that comes at once.
const SOON: Duration = Duration::from_secs(2);
/// How long an innocent may need to do what it is asked.
const STALL: Duration = Duration::from_secs(5);
/// The number of the agent.
const AGENT: NodeId = NodeId(1);
/// The number of the forged node below it.
const BELOW: NodeId = NodeId(2);

/// Plays one run; gives what was wrong, with what the agent said.
///
/// # Errors
/// When the agent cannot be started.
pub(super) fn play(dir: &Path, worker: usize, sample: &Sample, random: &mut Random) -> Result<Option<String>> {
    let secret = SecretKey::generate().map_err(|_| LabError::Unable { why: "no randomness".to_owned() })?;
    let listener = bind()?;
    let (disk, log) = (dir.join(format!("forge-{worker}.disk")), dir.join(format!("forge-{worker}.log")));
    let file = File::create(&disk).map_err(LabError::io("creating", &disk))?;
    file.set_len(sample.disk_bytes).map_err(LabError::io("sizing", &disk))?;
    let output = File::create(&log).map_err(LabError::io("creating", &log))?;
    let errors = output.try_clone().map_err(LabError::io("creating", &log))?;
    let program = programs::agent()?;
    let port = listener.local_addr().map_err(LabError::io("asking for", "a port"))?.port();
    let mut agent = Command::new(&program)
        .args(["--server", &format!("127.0.0.1:{port}"), "--server-key", &secret.public().to_string()])
        .args(["--ring", "4MiB", "--once", "--target"])
        .arg(&disk)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|source| LabError::Start { program: program.display().to_string(), source })?;
    // What the agent does with a connection, an end of it or a refusal is its own affair.
    let talked = converse(&listener, &secret, sample, random);
    let wrong = end(&mut agent);
    let said = fs::read_to_string(&log).unwrap_or_default();
    let wrong = wrong.or_else(|| said.contains("panicked").then(|| "it panicked".to_owned()));
    Ok(wrong.map(|wrong| format!("{wrong}; the forger's part ended with {talked:?}; it said:\n{said}")))
}

fn bind() -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(LabError::io("listening on", "127.0.0.1"))
}

fn converse(listener: &TcpListener, secret: &SecretKey, sample: &Sample, random: &mut Random) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + SOON;
    let socket = loop {
        match listener.accept() {
            Ok((socket, _)) => break socket,
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    socket.set_nonblocking(false)?;
    let mut control = Control::over(socket, Channel::server(Some(secret)), SOON)?;
    let port = loop {
        match control.hear_bytes(SOON)?.map(|bytes| ToServer::parse(&bytes)) {
            Some(Ok(ToServer::Hello(hello))) => break hello.link_port,
            Some(_) => {}
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    };
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let below = TcpListener::bind((localhost, 0))?;
    let prepare = right_prepare(sample);
    let mut join = Join {
        deployment: prepare.deployment,
        epoch: Epoch((1 << 32) + 1),
        pass: 1,
        chain: 0,
        position: 1,
        chain_len: 1,
        upstream: LinkSpec {
            node: NodeId::SERVER,
            address: SocketAddr::new(localhost, port),
            key: LinkKey([7; 32]),
            class: LinkClass::Paced,
        },
        downstream: None,
    };
    let say = |control: &mut Control, message: &ToAgent| control.say_bytes(&message.encode());
    say(&mut control, &ToAgent::Welcome(Welcome { node: AGENT, server_version: "0".to_owned() }))?;
    if random.below(2) == 0 {
        join.chain_len = 2;
        let (address, key) = (below.local_addr()?, LinkKey([8; 32]));
        join.downstream = Some(LinkSpec { node: BELOW, address, key, class: LinkClass::Paced });
    }
    let lie = |control: &mut Control, random: &mut Random| -> io::Result<()> {
        (0..random.below(3)).try_for_each(|_| {
            let word = words::to_agent(random, &prepare, &join);
            control.say_bytes(&word.encode())
        })
    };
    if random.below(8) == 0 {
        lie(&mut control, random)?;
    }
    let told = if random.below(8) == 0 { words::prepare(random, &prepare) } else { prepare.clone() };
    say(&mut control, &ToAgent::Prepare(told))?;
    if random.below(8) == 0 {
        lie(&mut control, random)?;
    }
    // Ready or refused; an agent that was told nonsense says nothing.
    while let Some(bytes) = control.hear_bytes(Duration::from_millis(150))? {
        if matches!(ToServer::parse(&bytes), Ok(ToServer::Ready(_) | ToServer::Refused(_))) {
            break;
        }
    }
    say(&mut control, &ToAgent::Join(join.clone()))?;
    let terms = Terms {
        deployment: join.deployment,
        epoch: join.epoch,
        pass: join.pass,
        from: NodeId::SERVER,
        to: AGENT,
        key: join.upstream.key.clone(),
        class: join.upstream.class,
    };
    let under = Terms { from: AGENT, to: BELOW, key: LinkKey([8; 32]), ..terms.clone() };
    let mut other = Random::new(random.word());
    std::thread::scope(|scope| {
        if join.downstream.is_some() {
            scope.spawn(|| talk::downstream(&below, &under, sample, &mut other));
        }
        // A link that broke is part of it; the agent may be told something else and another link be made.
        for _ in 0..=random.below(2) {
            let _ = talk::upstream(join.upstream.address, &terms, sample, random);
            if lie(&mut control, random).is_err() {
                break;
            }
        }
    });
    lie(&mut control, random)
}

fn right_prepare(sample: &Sample) -> Prepare {
    Prepare {
        deployment: DeploymentId([1; 16]),
        root: sample.root,
        image: "forged".to_owned(),
        disk_bytes: sample.disk_bytes,
        sector: sample.sector,
        block: sample.block,
        grain: sample.grain,
        selector: String::new(),
        verify: Verify::Full,
        free: Free::Keep,
        then: Then::Hold,
        fresh: false,
    }
}

/// Asks the agent to end; gives what was wrong about how it did.
fn end(agent: &mut Child) -> Option<String> {
    let pid = Pid::from_raw(i32::try_from(agent.id()).expect("Linux process ids are below 2^22"));
    let asked = Instant::now();
    loop {
        // A signal that comes before it listens to signals kills it at once, which is no fault.
        match agent.try_wait() {
            Ok(Some(status)) => {
                let good = matches!(status.code(), Some(0 | 1 | 3)) || status.signal() == Some(Signal::SIGTERM as i32);
                return (!good).then(|| format!("the agent ended with {status}"));
            }
            Ok(None) if asked.elapsed() < STALL => {
                if asked.elapsed() < Duration::from_millis(30) || asked.elapsed() > STALL / 2 {
                    let _ = kill(pid, Signal::SIGTERM);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(None) | Err(_) => {
                let _ = agent.kill();
                let _ = agent.wait();
                return Some(format!("the agent did not end within {} s", STALL.as_secs()));
            }
        }
    }
}
