//! What goes wrong, done to the world, and what it excuses.

use crate::agent::Agent;
use crate::checker::Checker;
use crate::core::{Core, Mood};
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

/// Does a fault to the world.
pub(crate) fn inject(fault: Fault, core: &mut Core, server: &mut Server, agents: &mut [Agent]) {
    let now = core.now;
    match fault {
        Fault::Kill(agent, back) | Fault::PowerOff(agent, back) => {
            if !agents[agent].is_alive() {
                return;
            }
            agents[agent].die(core, matches!(fault, Fault::PowerOff(..)));
            core.checker.excuse(agent, &[Reason::NodeLost], None);
            if let Some(span) = back {
                core.queue.push(now.after(span), Event::Boot(agent));
                core.checker.whole_again(agent, now.after(span));
            }
        }
        Fault::Hang(agent, span) => {
            let until = now.after(span);
            hold(core, agent + 1, span);
            if span >= Duration::from_millis(900) {
                core.checker.excuse(agent, &[Reason::NodeLost], Some(until));
            }
        }
        Fault::HangServer(span) => hold(core, SERVER, span),
        Fault::RestartServer(span, told) => server.crash(span, told, core),
        Fault::ResetUpstream(agent) => {
            if let Some(conn) = upstream(agents, agent) {
                reset(conn, core);
            }
        }
        Fault::ResetControl(agent) => {
            if let Some(conn) = agents[agent].control_conn() {
                reset(conn, core);
                core.checker.excuse(agent, &[Reason::NodeLost], Some(now.after(Duration::from_secs(1))));
            }
        }
        Fault::HalfOpen(agent, way) => {
            if let Some(conn) = upstream(agents, agent) {
                lose(conn, way, core);
            }
        }
        Fault::HalfOpenControl(agent) => {
            if let Some(conn) = agents[agent].control_conn() {
                lose(conn, 2, core);
                // Until it calls again, a neighbour's complaint is believed.
                core.checker.excuse(agent, &[Reason::NodeLost], Some(now.after(Duration::from_secs(5))));
            }
        }
        Fault::Cut(host, other, span) => {
            if host == other {
                return;
            }
            let until = now.after(span);
            core.network.cut(host, other, until);
            if (host == SERVER || other == SERVER) && span >= Duration::from_millis(900) {
                let agent = host.max(other) - 1;
                core.checker.excuse(agent, &[Reason::NodeLost, Reason::ServerLost], Some(until));
            }
        }
        Fault::Damage(agent, damage) => {
            if let Some(conn) = upstream(agents, agent) {
                if damage == crate::damage::Damage::Content {
                    (0..agents.len()).for_each(|agent| core.checker.excuse(agent, &[Reason::ImageCorrupt], None));
                }
                core.checker.on_single_damage();
                core.network.damage(conn, CALLER, damage);
            }
        }
        Fault::DamageUp(agent) => {
            if let Some(conn) = upstream(agents, agent) {
                core.checker.on_single_damage();
                core.network.damage(conn, CALLED, crate::damage::Damage::Control);
            }
        }
        Fault::FalseHellos(agent, count, mood) => {
            for _ in 0..count {
                let nonce = core.rng.bytes();
                let run = agents[agent].run();
                let Some(hello) = run.and_then(|run| run.false_hello(nonce, now)) else { return };
                let conn = core.connect(SERVER, agent + 1);
                core.strangers.insert(conn, (hello, mood));
            }
        }
        Fault::Corrupt(agent, corruption) => {
            core.network.hosts[agent + 1].corrupts = Some(corruption);
            core.checker.suspect(agent);
            if corruption.all {
                // Nothing that it says on a chain link arrives, so it can't be served either.
                let reasons = [Reason::LinkCorrupt, Reason::UpstreamLost, Reason::DownstreamLost, Reason::TimedOut];
                core.checker.excuse(agent, &reasons, None);
            }
        }
        Fault::Mute(agent) => {
            agents[agent].quirks.mute = true;
            core.checker.excuse(agent, &[Reason::TimedOut], None);
        }
        Fault::Stuck(agent) => {
            agents[agent].quirks.stuck = true;
            core.checker.excuse(agent, &[Reason::TimedOut], None);
        }
        Fault::FalseDown(agent) => {
            agents[agent].quirks.false_downs = 12;
            core.checker.excuse(agent, &[Reason::UpstreamLost, Reason::TimedOut], None);
        }
        Fault::StaleOrder(agent) => agents[agent].stale_order(core),
        Fault::Stop => {
            for agent in 0..agents.len() {
                core.checker.excuse(agent, &[Reason::Aborted], None);
            }
            server.stop(core);
        }
    }
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

fn upstream(agents: &[Agent], agent: usize) -> Option<ConnId> {
    agents[agent].run().and_then(Run::upstream_conn)
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
