//! Wakes machines: by a packet on each network card of the server, and by a program of the site that may switch their power on.
//!
//! The packet is that of AMD's "Magic Packet Technology" (1995): six bytes 0xFF, then the hardware address sixteen times, here as a
//! broadcast datagram to port 9. It is sent by a card that is chosen by its number, ip(7), so it reaches networks without a route as well.

use super::api::Api;
use super::commands::blocking;
use super::problem::Problem;
use super::redfish::{self, Wish};
use super::store::{Machine, StoreError, Who};
use super::waking::{Deed, Waking};
use crate::nic::Nics;
use axum::http::StatusCode;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use slidecast_proto::approval::{Identity, parse_list};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Discard: nothing listens there, and network cards look at every frame.
const PORT: u16 = 9;
/// How long the site's program may take.
const HOOK_LASTS: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What wakes machines.
#[derive(Debug)]
pub(super) struct Power {
    pub(super) nics: Nics,
    pub(super) hook: Option<PathBuf>,
    /// One for each program of the site that may run at once, and for each board that is asked. A program takes a thread, and requests need some, too.
    pub(super) places: Semaphore,
}

/// How many programs of the site run at once.
pub(super) const HOOKS: usize = 4;

/// The packet for a card with this hardware address.
fn packet(mac: [u8; 6]) -> [u8; 102] {
    let mut bytes = [0xFF; 102];
    for (at, byte) in bytes.iter_mut().skip(6).enumerate() {
        *byte = mac[at % 6];
    }
    bytes
}

impl Power {
    /// Sends the packet by each card. Gives how many took it, and the failure of the last one that did not.
    fn send(&self, mac: [u8; 6]) -> (usize, Option<io::Error>) {
        let socket = match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
            socket.set_broadcast(true)?;
            Ok(socket)
        }) {
            Ok(socket) => socket,
            Err(error) => return (0, Some(error)),
        };
        let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::BROADCAST, PORT));
        let (bytes, mut sent, mut failed) = (packet(mac), 0, None);
        for index in self.nics.indices() {
            let card = libc::in_pktinfo {
                ipi_ifindex: i32::try_from(index).unwrap_or_default(),
                ipi_spec_dst: libc::in_addr { s_addr: 0 },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&card)];
            match sendmsg(socket.as_raw_fd(), &[IoSlice::new(&bytes)], &control, MsgFlags::MSG_DONTWAIT, Some(&to)) {
                Ok(_) => sent += 1,
                Err(errno) => failed = Some(io::Error::from(errno)),
            }
        }
        (sent, failed)
    }

    /// Calls a machine; gives what went wrong, if anything did.
    fn call(&self, machine: &Machine, first: bool) -> Option<String> {
        let list = machine.hardware.join("\n");
        let known = parse_list(list.as_bytes()).unwrap_or_default().into_iter();
        let macs = known.filter_map(|identity| match identity {
            Identity::Mac(mac) => Some(mac),
            _ => None,
        });
        let (sent, failed) =
            macs.map(|mac| self.send(mac)).fold((0, None), |(sum, last), (sent, failed)| (sum + sent, failed.or(last)));
        let unsent =
            failed.filter(|_| sent == 0 && first).map(|error| format!("no network card took the packet: {error}"));
        let hook = self.hook.as_deref().filter(|_| first).and_then(|hook| run_hook(hook, machine, HOOK_LASTS).err());
        match (unsent, hook) {
            (Some(unsent), Some(hook)) => Some(format!("{unsent}; {hook}")),
            (one, other) => one.or(other),
        }
    }
}

/// Has the site's program switch a machine on. It has so long.
fn run_hook(hook: &Path, machine: &Machine, lasts: Duration) -> Result<(), String> {
    let failed = |what: String| format!("--power-hook {}: {what}", hook.display());
    let mut child = Command::new(hook)
        .env("SLIDECAST_ACTION", "on")
        .env("SLIDECAST_MACHINE", machine.id.to_string())
        .env("SLIDECAST_NAME", &machine.name)
        .env("SLIDECAST_HARDWARE", machine.hardware.join(" "))
        .env("SLIDECAST_ADDRESS", &machine.address)
        .env("SLIDECAST_GROUPS", machine.groups.join(","))
        .env("SLIDECAST_NOTE", &machine.note)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("starting it: {error}")))?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(format!("it failed with {status}"))),
            Ok(None) if begun.elapsed() < lasts => std::thread::sleep(LOOK),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("it took longer than {} s and was ended", lasts.as_secs())));
            }
            Err(error) => return Err(failed(format!("waiting for it: {error}"))),
        }
    }
}

/// Begins to wake those of these machines that are not connected; gives how many those are.
pub(super) async fn wake(api: &Arc<Api>, ids: Vec<i64>, who: &Who) -> Result<usize, Problem> {
    let (by, name) = (who.clone(), who.name.clone());
    let machines = api.database.call(move |store| store.to_wake(&ids, &by)).await?;
    let here = here(api);
    let away: BTreeMap<i64, Machine> =
        machines.into_iter().filter(|machine| !is_here(machine, &here)).map(|machine| (machine.id, machine)).collect();
    let ids: Vec<i64> = away.keys().copied().collect();
    let count = ids.len();
    let told = ids.clone();
    api.database.call(move |store| store.machine_events("machine-wake", &told, "", &name)).await?;
    if count > 0 {
        tokio::spawn(carry(api.clone(), Waking::new(&ids), away));
    }
    Ok(count)
}

/// Hardware addresses of the machines that are connected.
fn here(api: &Api) -> HashSet<String> {
    api.live.lock().connected()
}

fn is_here(machine: &Machine, here: &HashSet<String>) -> bool {
    machine.hardware.iter().any(|mac| here.contains(mac))
}

/// Calls one machine, once a place is free where the site's program is to run.
async fn call(api: Arc<Api>, machine: i64, row: Machine, first: bool) {
    let shared = api.clone();
    let board = match first {
        true => api.database.call(move |store| store.board(machine)).await.unwrap_or_default(),
        false => None,
    };
    let takes_time = first && (api.power.hook.is_some() || board.is_some());
    let _place = if takes_time { api.power.places.acquire().await.ok() } else { None };
    if let Some(board) = board
        && let Err(why) = redfish::boot(&board, Wish::On).await
    {
        not_woken(&api, machine, why);
    }
    let called = blocking(move || {
        if let Some(why) = shared.power.call(&row, first) {
            not_woken(&shared, machine, why);
        }
        Ok(())
    });
    if let Err(problem) = called.await {
        log::error!("waking machine {machine}: {problem}");
    }
}

fn not_woken(api: &Api, machine: i64, why: String) {
    log::warn!("waking machine {machine}: {why}");
    api.database.post("keeping why a machine was not woken", move |store| {
        store.machine_events("machine-not-woken", &[machine], &why, "")
    });
}

/// Begins to restart a machine into the agent, by its management board.
pub(super) async fn restart(api: &Arc<Api>, machine: i64, who: &Who) -> Result<(), Problem> {
    let by = who.clone();
    let found = api.database.call(move |store| {
        let row = store.to_wake(&[machine], &by)?.pop();
        Ok(row.zip(store.board(machine)?))
    });
    let no_board =
        || Problem::new(StatusCode::CONFLICT, "no-board", format!("machine {machine} has no management board"));
    let (row, board) = found.await?.ok_or_else(no_board)?;
    if row.deployment.is_some() && is_here(&row, &here(api)) {
        return Err(StoreError::InUse { machine }.into());
    }
    let name = who.name.clone();
    api.database.call(move |store| store.machine_events("machine-restart", &[machine], "", &name)).await?;
    let api = api.clone();
    tokio::spawn(async move {
        let _place = api.power.places.acquire().await.ok();
        if let Err(why) = redfish::boot(&board, Wish::Restart).await {
            log::warn!("restarting machine {machine}: {why}");
            api.database.post("keeping why a machine was not restarted", move |store| {
                store.machine_events("machine-not-restarted", &[machine], &why, "")
            });
        }
    });
    Ok(())
}

async fn carry(api: Arc<Api>, mut waking: Waking, machines: BTreeMap<i64, Machine>) {
    let begun = tokio::time::Instant::now();
    while let Some(at) = waking.deadline() {
        tokio::time::sleep_until(begun + at).await;
        let here = here(&api);
        waking.on_here(|id| machines.get(&id).is_none_or(|machine| is_here(machine, &here)));
        while let Some(deed) = waking.poll(begun.elapsed()) {
            match deed {
                Deed::Late(id) => {
                    let text = "it was called three times and did not come within 120 s";
                    api.database.post("keeping that a machine did not come", move |store| {
                        store.machine_events("machine-not-woken", &[id], text, "")
                    });
                }
                Deed::Call { machine, first } => {
                    let Some(row) = machines.get(&machine).cloned() else { continue };
                    // The site's program may take its time: the others are not kept waiting.
                    tokio::spawn(call(api.clone(), machine, row, first));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            id: 7,
            name: "pc7".to_owned(),
            state: "accepted".to_owned(),
            hardware: vec!["02:00:00:00:00:07".to_owned(), "02:00:00:00:00:08".to_owned()],
            address: "10.1.7.7".to_owned(),
            interface: "eth0".to_owned(),
            disks: serde_json::json!([]),
            first_seen: 0,
            last_seen: 0,
            deployment: None,
            holds: None,
            holds_since: None,
            note: String::new(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn the_packet_is_six_times_ff_and_sixteen_times_the_address() {
        let mac = [2, 0, 0, 0, 0, 7];
        let bytes = packet(mac);
        assert_eq!(bytes[..6], [0xFF; 6]);
        assert!(bytes[6..].chunks(6).all(|chunk| chunk == mac) && bytes.len() == 6 + 16 * 6);
    }

    fn hook(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("hook");
        // Another process writes it: one that this process has open for writing can't be run while any of its threads forks.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\"; chmod 755 \"$0\"";
        assert!(Command::new("sh").args(["-c", write]).arg(&path).arg(text).status().unwrap().success());
        path
    }

    #[test]
    fn the_sites_program_is_told_which_machine_it_is_and_its_failure_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let text = format!("echo \"$SLIDECAST_ACTION $SLIDECAST_MACHINE $SLIDECAST_HARDWARE\" > {}", out.display());
        run_hook(&hook(dir.path(), &text), &machine(), HOOK_LASTS).unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "on 7 02:00:00:00:00:07 02:00:00:00:00:08\n");
        let said = run_hook(&hook(dir.path(), "exit 3"), &machine(), HOOK_LASTS).unwrap_err();
        assert!(said.contains("exit status: 3"), "{said}");
        let said = run_hook(&dir.path().join("none"), &machine(), HOOK_LASTS).unwrap_err();
        assert!(said.contains("starting it: No such file"), "{said}");
        let said = run_hook(&hook(dir.path(), "exec sleep 60"), &machine(), Duration::ZERO).unwrap_err();
        assert!(said.contains("longer than 0 s and was ended"), "{said}");
    }
}
