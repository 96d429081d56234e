//! What goes wrong, done to the world, and what it excuses.

use crate::agent::Agent;
use crate::checker::Checker;
use crate::core::{Core, Mood};
use crate::damage::{Corruption, Damage};
use crate::disk::DiskFault;
use crate::network::{CALLED, CALLER, ConnId, Frame, SERVER};
use crate::queue::Event;
use crate::run::Run;
use crate::scenario::{Fault, Scenario};
use crate::server::Server;
use slidecast_proto::reason::Reason;
use std::time::Duration;

/// What is wrong with disks and image from the start.
pub(crate) fn excuse_disks(scenario: &Scenario, checker: &mut Checker) {
    for (agent, node) in scenario.nodes.iter().enumerate() {
        let mut lost = 0;
        for fault in &node.disk.faults {
            let reason = match fault {
                DiskFault::Write(_) => Reason::DiskWrite,
                DiskFault::Flush(_) => Reason::DiskFlush,
                DiskFault::Read(_) => Reason::DiskRead,
                DiskFault::Rotten(_) => Reason::DiskMismatch,
                // Where blocks are kept it may be a write of the head, which has no second try.
                DiskFault::Lost(_) if !scenario.fresh => Reason::DiskMismatch,
                DiskFault::Lost(_) | DiskFault::Misdirected(_) => {
                    lost += 1;
                    if lost < 2 { continue } else { Reason::DiskMismatch }
                }
                DiskFault::Stuck(..) => continue,
            };
            checker.excuse(agent, &[reason], None);
        }
        let lies =
            |fault: &DiskFault| matches!(fault, DiskFault::Lost(_) | DiskFault::Misdirected(_) | DiskFault::Rotten(_));
        checker.lost_writes |= node.disk.faults.iter().any(lies);
        if scenario.image.rotten.is_some() {
            checker.excuse(agent, &[Reason::ImageCorrupt], None);
        }
    }
}

/// A path or a machine that is away for less than this is not lost.
const SHORT: Duration = Duration::from_millis(900);

/// How a fault excuses the end of a node.
struct Excuse {
    /// Of this agent; nothing for all.
    agent: Option<usize>,
    reasons: &'static [Reason],
    /// For so long after the fault; nothing for ever.
    within: Option<Duration>,
}

/// What a fault excuses.
fn excuse_of(fault: Fault) -> Option<Excuse> {
    let (agent, reasons, within): (_, &'static [Reason], _) = match fault {
        Fault::Kill(agent, _) | Fault::PowerOff(agent, _) => (Some(agent), &[Reason::NodeLost], None),
        Fault::Hang(agent, span) if span >= SHORT => (Some(agent), &[Reason::NodeLost], Some(span)),
        Fault::ResetControl(agent) => (Some(agent), &[Reason::NodeLost], Some(Duration::from_secs(1))),
        // Until it calls again, a neighbour's complaint is believed.
        Fault::HalfOpenControl(agent) => (Some(agent), &[Reason::NodeLost], Some(Duration::from_secs(5))),
        Fault::Cut(host, other, span) if (host == SERVER || other == SERVER) && span >= SHORT => {
            (Some(host.max(other) - 1), &[Reason::NodeLost, Reason::ServerLost], Some(span))
        }
        Fault::Damage(_, Damage::Content) => (None, &[Reason::ImageCorrupt], None),
        // Nothing that it says on a chain link arrives, so it can't be served either.
        Fault::Corrupt(agent, Corruption { all: true, .. }) => {
            (Some(agent), &[Reason::LinkCorrupt, Reason::UpstreamLost, Reason::DownstreamLost, Reason::TimedOut], None)
        }
        Fault::Mute(agent) | Fault::Stuck(agent) => (Some(agent), &[Reason::TimedOut], None),
        Fault::FalseDown(agent) => (Some(agent), &[Reason::UpstreamLost, Reason::TimedOut], None),
        Fault::Stop => (None, &[Reason::Aborted], None),
        _ => return None,
    };
    Some(Excuse { agent, reasons, within })
}

/// Does a fault to the world, and lets the checker know what it excuses.
pub(crate) fn inject(fault: Fault, core: &mut Core, server: &mut Server, agents: &mut [Agent]) {
    let now = core.now;
    if perform(fault, core, server, agents).is_none() {
        return;
    }
    if let Some(Excuse { agent, reasons, within }) = excuse_of(fault) {
        let until = within.map(|span| now.after(span));
        let all = agent.map_or(0..agents.len(), |agent| agent..agent + 1);
        all.for_each(|agent| core.checker.excuse(agent, reasons, until));
    }
    if let Fault::Kill(agent, Some(span)) | Fault::PowerOff(agent, Some(span)) = fault {
        core.checker.whole_again(agent, now.after(span));
    }
}

/// Gives nothing if there was nothing that it could be done to.
fn perform(fault: Fault, core: &mut Core, server: &mut Server, agents: &mut [Agent]) -> Option<()> {
    let now = core.now;
    let upstream = |agent: usize| agents[agent].run().and_then(Run::upstream_conn);
    match fault {
        Fault::Kill(agent, back) | Fault::PowerOff(agent, back) => {
            let agent_there = Some(&mut agents[agent]).filter(|agent| agent.is_alive())?;
            agent_there.die(core, matches!(fault, Fault::PowerOff(..)));
            back.into_iter().for_each(|span| core.queue.push(now.after(span), Event::Boot(agent)));
        }
        Fault::Hang(agent, span) => hold(core, agent + 1, span),
        Fault::HangServer(span) => hold(core, SERVER, span),
        Fault::RestartServer(span, told) => server.crash(span, told, core),
        Fault::ResetUpstream(agent) => reset(upstream(agent)?, core),
        Fault::ResetControl(agent) => reset(agents[agent].control_conn()?, core),
        Fault::HalfOpen(agent, way) => lose(upstream(agent)?, way, core),
        Fault::HalfOpenControl(agent) => lose(agents[agent].control_conn()?, 2, core),
        Fault::Cut(host, other, _) if host == other => return None,
        Fault::Cut(host, other, span) => core.network.cut(host, other, now.after(span)),
        Fault::Damage(agent, damage) => {
            core.network.damage(upstream(agent)?, CALLER, damage);
            core.checker.on_single_damage();
        }
        Fault::DamageUp(agent) => {
            core.network.damage(upstream(agent)?, CALLED, Damage::Control);
            core.checker.on_single_damage();
        }
        Fault::FalseHellos(agent, count, mood) => {
            for _ in 0..count {
                let nonce = core.rng.bytes();
                let hello = agents[agent].run()?.false_hello(nonce, now)?;
                let conn = core.connect(SERVER, agent + 1);
                core.strangers.insert(conn, (hello, mood));
            }
        }
        Fault::Corrupt(agent, corruption) => {
            core.network.hosts[agent + 1].corrupts = Some(corruption);
            core.checker.suspect(agent);
        }
        Fault::Mute(agent) => agents[agent].quirks.mute = true,
        Fault::Stuck(agent) => agents[agent].quirks.stuck = true,
        Fault::FalseDown(agent) => agents[agent].quirks.false_downs = 12,
        Fault::StaleOrder(agent) => agents[agent].stale_order(core),
        Fault::Stop => server.stop(core),
    }
    Some(())
}

/// The call of a stranger was answered: it says its Hello, and acts on its mood.
pub(crate) fn stranger_called(conn: ConnId, accepted: bool, core: &mut Core) {
    let Some((hello, mood)) = core.strangers.get(&conn).cloned() else { return };
    if !accepted || !core.network.is_open(conn, CALLER) {
        return;
    }
    core.start(conn, CALLER, Frame::Whole(hello.clone()));
    match mood {
        Mood::Silent => {}
        Mood::Closes => core.close(conn, CALLER),
        Mood::Garbage => drop(core.start(conn, CALLER, Frame::Whole(hello))),
    }
}

fn hold(core: &mut Core, host: usize, span: Duration) {
    let until = core.now.after(span);
    if core.network.hosts[host].powered {
        core.network.hosts[host].still = until;
        core.queue.push(until, Event::Resume(host));
    }
}

fn reset(conn: ConnId, core: &mut Core) {
    for end in [CALLER, CALLED] {
        core.network.lose(conn, end);
        core.queue.push(core.now, Event::Reset(conn, end));
    }
}

/// `way` 0: what the caller sends; 1: what the called one sends; 2: both.
fn lose(conn: ConnId, way: usize, core: &mut Core) {
    for end in [CALLER, CALLED] {
        if way == end || way == 2 {
            core.network.lose(conn, end);
        }
    }
}
