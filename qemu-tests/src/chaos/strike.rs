//! Waits for the phase of a case, and does to the node what the case says.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::case::{Case, Kind, Phase};
use super::disk::Request;
use super::rig::{self, Rig, SOON};
use super::{floods, liar, proxy};
use crate::disk::random::Random;
use crate::error::{LabError, Result};
use crate::process::Process;

/// Whether the fault happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    /// It did; what it did was undone so long after the plan was fixed, if it was.
    Struck(Option<Duration>),
    /// The deployment was over before.
    Missed,
}

/// Plays the fault of `case`.
///
/// # Errors
/// When the lab cannot do it.
pub(super) fn strike(rig: &mut Rig, case: &Case, random: &mut Random) -> Result<Strike> {
    if rig.proxy.is_some() {
        return by_proxy(rig, case, random);
    }
    if rig.misplacing.is_some() && case.phase != Phase::Finishing {
        // It strikes by itself; whoever plays the case asks it afterwards.
        return Ok(Strike::Struck(None));
    }
    floods::prepare(rig, case.kind)?;
    if case.phase == Phase::Opening {
        // Links are made within milliseconds, old disks compared in some ten.
        std::thread::sleep(Duration::from_millis(random.below(60)));
    } else if !rig.wait_until_written(case.phase.at(random))? {
        return Ok(Strike::Missed);
    }
    let at = rig.struck.start;
    let node = rig.nodes[at].clone();
    let mut pause = |from: u64, to: u64| std::thread::sleep(Duration::from_millis(from + random.below(to - from)));
    let mut undone = false;
    match case.kind {
        Kind::Kill | Kind::TwoNeighbours | Kind::ThreeAtOnce => kill(rig),
        Kind::OneAfterAnother => {
            rig.agents[at].kill();
            pause(0, 150);
            rig.agents[at + 1].kill();
        }
        Kind::Restart => {
            kill(rig);
            pause(0, 500);
            rig.start_again(at)?;
            undone = true;
        }
        Kind::Stop => {
            rig.agents[at].signal(Signal::SIGSTOP);
            pause(500, 3000);
            rig.agents[at].signal(Signal::SIGCONT);
            undone = true;
        }
        Kind::Blip | Kind::Flap => {
            rig.lab.unplug(&node)?;
            if case.kind == Kind::Blip {
                pause(200, 900)
            } else {
                pause(2200, 3000)
            }
            rig.lab.replug(&node)?;
            undone = true;
        }
        Kind::Carrier => {
            rig.lab.switch_card(&node, false)?;
            pause(200, 3000);
            rig.lab.switch_card(&node, true)?;
            undone = true;
        }
        Kind::Pulled => rig.lab.unplug(&node)?,
        Kind::DropIn => rig.lab.nft(&node, &drop_all(true, false))?,
        Kind::DropOut => rig.lab.nft(&node, &drop_all(false, true))?,
        Kind::PowerOff => {
            rig.lab.nft(&node, &drop_all(true, true))?;
            kill(rig);
        }
        Kind::HalfOpen => {
            let Some(flow) = flow_from_upstream(rig)? else { return Ok(Strike::Missed) };
            rig.lab.nft(&node, &flow)?;
        }
        Kind::SlowLink => rig.lab.shape(&node, rig.setting.mbits / 10)?,
        Kind::DiskFull => rig::fill_up(&node.target.file)?,
        Kind::WriteError | Kind::FlushError | Kind::ReadError => {
            let request = match case.kind {
                Kind::WriteError => Request::Write,
                Kind::FlushError => Request::Flush,
                _ => Request::Read,
            };
            rig.disk.as_ref().expect("made for this kind").fail(request)?;
        }
        Kind::DiskGone => rig.disk.as_mut().expect("made for this kind").remove(),
        Kind::DiskHangs => {
            let disk = rig.disk.as_ref().expect("made for this kind");
            disk.hang();
            pause(1000, 3000);
            disk.go_on();
            undone = true;
        }
        Kind::Server | Kind::ServerAndNode => {
            rig.deploy.process.kill();
            if case.kind == Kind::ServerAndNode {
                kill(rig);
            }
            pause(0, 500);
            // The same command: another name would only be that of its output.
            let count = rig.nodes.len();
            rig.deploy = rig.lab.deploy_as("again", &rig.image.slide, count, &["--progress", "json"])?;
            if case.kind == Kind::ServerAndNode {
                rig.start_again(at)?;
            }
            undone = true;
        }
        Kind::Mute | Kind::FalseBreak => {
            if !lie(rig)? {
                return Ok(Strike::Missed);
            }
        }
        Kind::SpoofFlood => {
            floods::begin(rig)?;
            // By then all that the server's kernel keeps for addresses that it looks for in vain is full.
            pause(1000, 1500);
            kill(rig);
            pause(0, 500);
            rig.start_again(at)?;
            undone = true;
        }
        Kind::Misdirect => rig.misplacing.as_ref().expect("made for this kind").arm(),
        Kind::Wrap | Kind::WrapOdd => {}
        Kind::HelloFlood | Kind::FalseHello => floods::begin(rig)?,
        Kind::Flip | Kind::FlipUp | Kind::Garble | Kind::Reset | Kind::Close => {}
        Kind::FlipOut | Kind::GarbleOut | Kind::GarbleOwn | Kind::PartOut | Kind::HeaderOut | Kind::StuckTail => {}
    }
    Ok(Strike::Struck(undone.then(|| rig.planned.elapsed())))
}

fn kill(rig: &mut Rig) {
    // First all signals, then all waiting: at once means at once.
    let struck = rig.struck.clone();
    rig.agents[struck.clone()].iter().for_each(|agent| agent.signal(Signal::SIGKILL));
    rig.agents[struck].iter_mut().for_each(|agent| agent.kill());
}

/// From now on the node lies. Gives whether it did before the deployment was over.
fn lie(rig: &mut Rig) -> Result<bool> {
    let liar = rig.liar.as_mut().expect("made for this kind");
    liar.signal(Signal::SIGUSR1);
    let deploy = &mut rig.deploy.process;
    let said = |liar: &Process| liar.out().contains(liar::STRUCK);
    liar.wait_until("lying", SOON, |liar| said(liar) || deploy.poll_exit().is_some())?;
    Ok(said(liar))
}

/// The proxy strikes by itself, or when it is told to.
fn by_proxy(rig: &mut Rig, case: &Case, random: &mut Random) -> Result<Strike> {
    // One that was given no byte waits to be told; the others pay no heed.
    if case.phase == Phase::Finishing || case.kind == Kind::GarbleOwn {
        if !rig.wait_until_written(case.phase.at(random))? {
            return Ok(Strike::Missed);
        }
        rig.tell_proxy();
    }
    let deadline = Instant::now() + SOON;
    loop {
        let ended = rig.deploy.process.poll_exit().is_some();
        if rig.proxy_said(proxy::STRUCK) {
            return Ok(Strike::Struck(None));
        }
        if ended {
            return Ok(Strike::Missed);
        }
        if Instant::now() >= deadline {
            return Err(LabError::Late { what: "the proxy striking".to_owned(), after: SOON, tail: rig.tails() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Firewall rules under which everything that arrives or leaves over the card vanishes.
fn drop_all(arriving: bool, leaving: bool) -> String {
    let rule = |wanted: bool, rule: &str| if wanted { rule.to_owned() } else { String::new() };
    drop_rules(&rule(arriving, "iifname \"eth0\" drop"), &rule(leaving, "oifname \"eth0\" drop"))
}

fn drop_rules(arriving: &str, leaving: &str) -> String {
    format!(
        "table inet chaos {{\nchain arriving {{\ntype filter hook input priority 0\n{arriving}\n}}\n\
         chain leaving {{\ntype filter hook output priority 0\n{leaving}\n}}\n}}\n"
    )
}

/// Rules under which everything of the connection from the upstream that stands now vanishes.
fn flow_from_upstream(rig: &mut Rig) -> Result<Option<String>> {
    let at = rig.struck.start;
    let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", rig.agents[at].pid()));
    let deadline = Instant::now() + SOON;
    while rig.deploy.process.poll_exit().is_none() && Instant::now() < deadline {
        let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
        if let Some((address, port)) = caller(&text) {
            return Ok(Some(drop_rules(
                &format!("ip saddr {address} tcp sport {port} drop"),
                &format!("ip daddr {address} tcp dport {port} drop"),
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(None)
}

/// Who is connected to a port that is listened on, in the kernel's tables of TCP sockets (proc_pid_net(5)): field 1 is the
/// local end, 2 the other one, 3 the state (0A listens, 01 stands). An IPv4 address in the table of IPv6 is the last
/// eight digits of a mapped one.
fn caller(table: &str) -> Option<(std::net::Ipv4Addr, u16)> {
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    let port_of = |end: &str| end.rsplit_once(':').map(|(_, port)| port.to_owned());
    let with = |state: &'static str| rows.iter().filter(move |row| row.get(3) == Some(&state));
    let ports: Vec<String> = with("0A").filter_map(|row| port_of(row[1])).collect();
    let row = with("01").find(|row| port_of(row[1]).is_some_and(|port| ports.contains(&port)))?;
    let (address, port) = row[2].split_once(':')?;
    let address = u32::from_str_radix(address.get(address.len().checked_sub(8)?..)?, 16).ok()?;
    // The kernel prints the four bytes as one number of this machine's order.
    Some((address.to_ne_bytes().into(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_found_among_all_sockets() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
            0: 00000000:1D6B 00000000:0000 0A 00000000:00000000\n   \
            1: 0A004D0A:BF22 01004D0A:1D6B 01 00000000:00000000\n   \
            2: 0A004D0A:1D6B 01004D0A:C001 06 00000000:00000000\n   \
            3: 0A004D0A:1D6B 01004D0A:C002 01 00000000:00000000\n";
        assert_eq!(caller(table), Some(("10.77.0.1".parse().unwrap(), 0xC002)));
        let (without, _) = table.split_once("   3:").unwrap();
        assert_eq!(caller(without), None);
        let mapped = table.replace(
            "0A004D0A:1D6B 01004D0A:C002",
            "0000000000000000FFFF00000A004D0A:1D6B 0000000000000000FFFF000001004D0A:C003",
        );
        assert_eq!(caller(&mapped).map(|(_, port)| port), Some(0xC003));
    }
}
