//! What a stranger does to a deployment in the lab: another machine on the same switch, without a secret.

use std::fs;

use nix::sys::signal::Signal;

use super::case::Kind;
use super::rig::{Rig, SOON};
use super::stranger::{READY, SPOOFED, STRUCK};
use crate::error::{LabError, Result};
use crate::lab::PORT;
use crate::programs;

/// Longer than any deployment.
const SECONDS: &str = "--seconds=200";

/// Lets the stranger of a case ask the server what it must know; it floods when it is told to. What it does takes time to begin,
/// and of a deployment's last phase there is little.
///
/// # Errors
/// When the lab cannot do it.
pub(super) fn prepare(rig: &mut Rig, kind: Kind) -> Result<()> {
    match kind {
        Kind::SpoofFlood => seeks(rig),
        Kind::HelloFlood => {
            hellos(rig, 300)?;
            start(rig, "calls", &["--rate=50".to_owned()])
        }
        Kind::FalseHello => hellos(rig, 60),
        _ => Ok(()),
    }
}

/// Tells the stranger to begin, and waits until it has.
///
/// # Errors
/// When it does not.
pub(super) fn begin(rig: &mut Rig) -> Result<()> {
    rig.floods.iter().for_each(|flood| flood.signal(Signal::SIGUSR1));
    rig.floods.iter_mut().try_for_each(|flood| flood.wait_for(STRUCK, SOON).map(drop))
}

/// Seeks, each from another address, of which there are so many that the server's kernel looks for all of them in vain.
fn seeks(rig: &mut Rig) -> Result<()> {
    let stranger = rig.stranger.as_ref().expect("made for this kind");
    let net = format!("{SPOOFED}/16");
    let here = ["route", "add", "local", &net, "dev", "lo"];
    rig.lab.on_node(stranger, "route-out", "ip", here)?.wait_exit(SOON)?;
    // The kernel answers for the addresses of its card alone.
    let silence = ["-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore"];
    rig.lab.on_node(stranger, "silence", "sh", silence)?.wait_exit(SOON)?;
    // Else the server could not answer them, as a server with a default route can.
    rig.lab.on_server("route-back", "ip", ["route", "add", &net, "dev", "eth0"])?.wait_exit(SOON)?;
    start(rig, "seeks", &["--rate=5000".to_owned()])
}

/// Hellos of a chain link to the struck node, with the numbers of its upstream and its own.
fn hellos(rig: &mut Rig, rate: u32) -> Result<()> {
    let at = rig.struck.start;
    let chain = planned(&rig.deploy.process.out())
        .ok_or_else(|| LabError::Unable { why: "the progress has no plan".to_owned() })?;
    let (to, from) = (chain.get(at), at.checked_sub(1).map_or(Some(&0), |above| chain.get(above)));
    let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", rig.agents[at].pid()));
    let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let (Some(to), Some(from), Some(port)) = (to, from, listens(&text)) else {
        return Err(LabError::Unable { why: "the struck node listens nowhere".to_owned() });
    };
    let node = format!("--node={}:{port}", rig.nodes[at].address);
    start(rig, "hellos", &[node, format!("--to={to}"), format!("--from={from}"), format!("--rate={rate}")])
}

fn start(rig: &mut Rig, deed: &str, more: &[String]) -> Result<()> {
    let stranger = rig.stranger.as_ref().expect("made for this kind");
    let server = format!("{}:{PORT}", rig.lab.server_address(0));
    let args = ["stranger".to_owned(), deed.to_owned(), server, SECONDS.to_owned(), "--held".to_owned()];
    let args = args.into_iter().chain(more.iter().cloned());
    let mut flood = rig.lab.on_node(stranger, deed, &programs::lab()?.display().to_string(), args)?;
    flood.wait_for(READY, SOON)?;
    rig.floods.push(flood);
    Ok(())
}

/// The numbers of the first chain's nodes, head first, in what `deploy --progress json` printed.
pub(crate) fn planned(out: &str) -> Option<Vec<u64>> {
    let line = out.lines().find(|line| line.contains("\"event\":\"plan\""))?;
    let plan: serde_json::Value = serde_json::from_str(line).ok()?;
    plan["chains"][0]["nodes"].as_array()?.iter().map(serde_json::Value::as_u64).collect()
}

/// The first port that is listened on, in the kernel's tables of TCP sockets (proc_pid_net(5)): field 1 is the local end, 3
/// the state, 0A is LISTEN.
pub(crate) fn listens(table: &str) -> Option<u16> {
    table.lines().find_map(|line| {
        let row: Vec<&str> = line.split_whitespace().take(4).collect();
        let [_, local, _, "0A"] = row.as_slice() else { return None };
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_from_the_plan_and_the_port_from_the_kernels_table() {
        let out = "{\"event\":\"start\"}\n{\"event\":\"plan\",\"chains\":[{\"nodes\":[3,1,2]}]}\n";
        assert_eq!(planned(out), Some(vec![3, 1, 2]));
        let table = "  sl  local_address rem_address   st\n   0: 0A004D0A:BF22 01004D0A:1D6B 01\n   1: 00000000:9C41 00000000:0000 0A\n";
        assert_eq!(listens(table), Some(0x9C41));
    }
}
