//! The life of an agent: find the server, say who and what it is, obey, and begin again.

mod callers;
mod find;
mod serve;

use crate::callers::Callers;
use crate::cards;
use crate::cli::{Arguments, Exit, Trust};
use crate::disk::Stopping;
use crate::disks::{disks, own_selector};
use crate::error::AgentError;
use crate::event_loop::{EventLoop, callers};
use crate::inventory::{self, Roots, Wait};
use crate::logging::Line;
use crate::machine::Machine;
use crate::preparation::Preparation;
use crate::random::random_bytes;
use crate::status::Board;
use callers::Strangers;
use slidecast_proto::control::{Disk, Hello};
use slidecast_proto::noise::{PublicKey, SecretKey};
use slidecast_proto::reason::Then;
use slidecast_proto::visit::Leave;
use std::sync::mpsc::Receiver;

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// What became of the disk.
    pub(crate) exit: Exit,
    /// What the machine is to do.
    pub(crate) then: Then,
}

/// Runs the agent until it is stopped, or with `--once` for one deployment. A machine that is the agent's own is also
/// left when it is to be switched off.
///
/// # Errors
/// [`AgentError`]: it can't run at all.
pub(crate) fn run(
    arguments: &Arguments,
    trust: &Trust,
    lines: Receiver<Line>,
    machine: Option<Machine>,
) -> Result<Ending, AgentError> {
    let mut agent = Agent::new(arguments, trust, lines, machine)?;
    loop {
        let server = agent.find()?;
        let leave = server.map_or(Ok(Leave::Exit(Then::Hold)), |server| agent.serve(server))?;
        if let Leave::Exit(then) = leave {
            return Ok(Ending { exit: agent.exit, then });
        }
    }
}

/// Everything that outlives one server.
#[derive(Debug)]
struct Agent<'a> {
    arguments: &'a Arguments,
    trust: &'a Trust,
    lines: Receiver<Line>,
    events: EventLoop,
    callers: Callers,
    strangers: Strangers,
    /// A disk that may not be closed yet.
    stopping: Option<Stopping>,
    /// The target is being opened, perhaps for a server that was left since.
    preparation: Option<Preparation>,
    secret: SecretKey,
    boot: [u8; 16],
    /// What the exit code would be.
    exit: Exit,
    /// The machine, if it is there for nothing but this agent.
    machine: Option<Machine>,
}

impl<'a> Agent<'a> {
    fn new(
        arguments: &'a Arguments,
        trust: &'a Trust,
        lines: Receiver<Line>,
        machine: Option<Machine>,
    ) -> Result<Self, AgentError> {
        let secret = match &arguments.own_key {
            Some(secret) => secret.clone(),
            None => SecretKey::generate().map_err(|_| AgentError::NoRandomness)?,
        };
        let boot = random_bytes().ok_or(AgentError::NoRandomness)?;
        let events = EventLoop::new()?;
        if let Some(machine) = &machine {
            machine.wake_with(events.waker());
        }
        let (callers, strangers, exit) = (callers(), Strangers::default(), Exit::NotStarted);
        Ok(Self {
            arguments,
            trust,
            lines,
            events,
            callers,
            strangers,
            stopping: None,
            preparation: None,
            secret,
            boot,
            exit,
            machine,
        })
    }

    /// Where those stand who watch the machine.
    fn board(&self) -> Option<&Board> {
        self.machine.as_ref().map(Machine::board)
    }

    /// Why nothing may be written on this machine, if that is so.
    fn held(&self) -> Option<&str> {
        self.machine.as_ref().and_then(Machine::held)
    }

    fn key(&self) -> Option<PublicKey> {
        match self.trust {
            Trust::Pinned(key) => Some(*key),
            Trust::Insecure => None,
        }
    }

    /// Who and what this node is.
    fn hello(&self) -> Result<Hello, AgentError> {
        let cards = cards::interfaces(&self.arguments.interface)?;
        Ok(Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
            boot: self.boot,
            ram_bytes: inventory::memory(&Roots::default()).total,
            cards: cards::inventory(&cards, self.arguments.link_speed),
            disks: self.disks(),
            link_port: self.events.port()?,
            target: self.arguments.target.as_ref().map(|target| target.text.clone()).unwrap_or_default(),
        })
    }

    /// The disks there are now.
    fn disks(&self) -> Vec<Disk> {
        if self.held().is_some() {
            return Vec::new();
        }
        let own = own_selector(Wait::Briefly, self.arguments.target.as_ref());
        disks(Wait::Briefly, &own, self.machine.is_some())
    }
}
