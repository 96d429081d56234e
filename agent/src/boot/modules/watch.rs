//! The thread that sees devices turn up: those there are at the start, and later ones by the kernel's messages.

use super::load::Loader;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// When nothing has turned up for so long, the machine is taken to be complete.
const QUIET: Duration = Duration::from_millis(1000);
/// The longest wait for that.
const QUIET_LATEST: Duration = Duration::from_secs(20);
/// How long a machine without any disk waits for one.
const DISK_LATEST: Duration = Duration::from_secs(20);
/// How often everything is looked at, in case a message of the kernel was lost.
const RESCAN: Duration = Duration::from_secs(10);

/// Comes once, when the devices of the machine are there.
#[derive(Debug)]
pub(crate) struct Settled(Receiver<()>);

impl Settled {
    /// Waits for it.
    pub(crate) fn wait(&self) {
        // The thread that would say it never ends before it has; without it, waiting is of no use either.
        let _ = self.0.recv();
    }
}

/// Starts the thread.
///
/// # Errors
/// There is no room for a thread.
pub(crate) fn start() -> io::Result<Settled> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().name("slidecast-dev".to_owned()).spawn(move || run(&sender))?;
    Ok(Settled(receiver))
}

fn run(settled: &SyncSender<()>) {
    // Before the first look, so that nothing falls between.
    let messages = listen().map_err(|error| log::warn!("listening to the kernel's messages: {error}")).ok();
    let mut loader = Loader::new(tables());
    let began = Instant::now();
    let (mut changed, mut scanned) = (began, None::<Instant>);
    let mut is_settled = false;
    loop {
        if scanned.is_none_or(|at| at.elapsed() >= RESCAN) {
            // What was loaded finds further devices.
            while scan(Path::new("/sys/bus"), &mut loader) {
                changed = Instant::now();
            }
            scanned = Some(Instant::now());
        }
        let patience = if is_settled { RESCAN } else { QUIET / 4 };
        if hear(messages.as_ref(), patience, &mut loader) {
            changed = Instant::now();
        }
        if !is_settled {
            let quiet = changed.elapsed() >= QUIET || began.elapsed() >= QUIET_LATEST;
            if quiet && (has_disk() || began.elapsed() >= DISK_LATEST) {
                is_settled = true;
                log::info!("{} kernel modules loaded", loader.loaded());
                let _ = settled.try_send(());
            }
        }
    }
}

/// Where the tables for this kernel are.
fn tables() -> PathBuf {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Path::new("/lib/modules").join(release.trim())
}

/// Looks at every device there is; gives whether a module was loaded.
fn scan(buses: &Path, loader: &mut Loader) -> bool {
    let mut loaded = false;
    for bus in entries(buses) {
        for device in entries(&bus.join("devices")) {
            let text = fs::read(device.join("uevent")).unwrap_or_default();
            for modalias in text.split(|byte| *byte == b'\n').filter_map(modalias) {
                loaded |= loader.on_device(modalias);
            }
        }
    }
    loaded
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Whether there is any disk but RAM disks, loops and the like.
fn has_disk() -> bool {
    let mut names = entries(Path::new("/sys/block")).into_iter();
    names.any(|block| block.join("device").exists())
}

fn modalias(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line.strip_prefix(b"MODALIAS=")?).ok()
}

/// A socket for the messages of the kernel itself (multicast group 1).
fn listen() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
    Ok(socket)
}

/// Waits for messages and takes all there are; gives whether any came.
fn hear(messages: Option<&OwnedFd>, patience: Duration, loader: &mut Loader) -> bool {
    let Some(socket) = messages else {
        std::thread::sleep(patience);
        return false;
    };
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout);
    let mut buffer = [0; 8192];
    let mut heard = false;
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(len) => {
                heard = true;
                // Lines that end with a zero byte: "add@/devices/...", then NAME=VALUE.
                let lines = buffer[..len].split(|byte| *byte == 0);
                for alias in lines.filter_map(modalias) {
                    loader.on_device(alias);
                }
            }
            // Messages were lost: the next look at everything finds what they told.
            Err(Errno::ENOBUFS | Errno::EINTR) => heard = true,
            Err(_) => return heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_of_every_bus_is_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("mods/modules.dep", "a.txt:\nb.txt:\n");
        write("mods/modules.alias", "alias pci:v1* a.txt\nalias mmc:block b.txt\n");
        write("bus/pci/devices/0000:00:01.0/uevent", "DRIVER=\nMODALIAS=pci:v1d2\nPCI_ID=1\n");
        write("bus/mmc/devices/mmc0:1/uevent", "MODALIAS=mmc:block");
        write("bus/pci/drivers_probe", "");
        let mut loader = Loader::new(folder.path().join("mods"));
        assert!(!scan(&folder.path().join("bus"), &mut loader), "the files are missing, nothing could be loaded");
        assert_eq!(loader.tried.iter().map(String::as_str).collect::<Vec<_>>(), ["a.txt", "b.txt"]);
    }

    #[test]
    fn the_kernels_messages_can_be_listened_to() {
        assert!(listen().is_ok());
    }
}
