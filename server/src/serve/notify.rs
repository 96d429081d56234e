//! What the service manager is told, as sd_notify(3) has it: that the server is ready, that it is alive, that it ends. Without a manager
//! nobody is told.

use super::database::Database;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The server takes requests.
pub(super) const READY: &str = "READY=1";
/// The server ends in order.
pub(super) const STOPPING: &str = "STOPPING=1";
const ALIVE: &str = "WATCHDOG=1";

/// Tells the manager that has started this program, if one has.
pub(super) fn tell(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        log::warn!("telling the service manager {state}: {}", crate::failure::one_line(&error));
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // A name without a file.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// How often the manager wants to hear that the server is alive: half the time after which it kills it.
fn every(micros: Option<OsString>, pid: Option<OsString>) -> Option<Duration> {
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let ours = pid.is_none_or(|pid| number(pid) == Some(u64::from(std::process::id())));
    let micros = number(micros?).filter(|micros| *micros > 0 && ours)?;
    Some(Duration::from_micros(micros) / 2)
}

/// Says again and again that the server is alive, if the manager wants to know: HTTP runs, for this runs there, and the database answers.
pub(super) async fn stay_alive(database: Database) {
    let Some(every) = every(std::env::var_os("WATCHDOG_USEC"), std::env::var_os("WATCHDOG_PID")) else { return };
    loop {
        tokio::time::sleep(every).await;
        if database.call(|_| Ok(())).await.is_ok() {
            tell(ALIVE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_at_a_socket_with_and_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("slidecast-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, socket) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            send(&socket, READY).unwrap();
            let mut bytes = [0; 64];
            let len = listener.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], READY.as_bytes());
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_bites_and_only_by_the_program_that_it_watches() {
        let text = |text: &str| Some(OsString::from(text));
        assert_eq!(every(text("30000000"), None), Some(Duration::from_secs(15)));
        assert_eq!(every(text("30000000"), text("1")), None);
        assert_eq!((every(None, None), every(text("0"), None), every(text("x"), None)), (None, None, None));
    }
}
