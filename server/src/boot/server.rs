//! The boot server of one network card: dnsmasq, HTTP and router advertisements together.

use super::booted::BootedMachines;
use super::card::Card;
use super::child::{Dnsmasq, Order};
use super::config::{Setup, UKI, UefiStage};
use super::error::BootError;
use super::event::{BootEvent, Protocol, Tell};
use super::files::{BootFiles, INITRAMFS, Installed, KERNEL};
use super::http::{Content, HttpServer, mac_of};
use super::range::DhcpRange;
use super::router::Router;
use super::stage::Stage;
use super::{ports, script};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

/// How a boot server is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The card on which machines boot.
    pub interface: String,
    /// The folder with the boot files.
    pub dir: PathBuf,
    /// The addresses to give out; none: another DHCP server does that.
    pub range: Option<DhcpRange>,
    /// The port for HTTP.
    pub http_port: u16,
    /// What UEFI machines load first.
    pub uefi: UefiStage,
}

/// A running boot server. Dropping it ends everything that it started.
#[derive(Debug)]
pub struct BootServer {
    // dnsmasq goes first: machines that were told of files must be able to fetch them.
    _dnsmasq: Dnsmasq,
    _router: Option<Router>,
    _http: HttpServer,
    _stage: Stage,
    card: Card,
    http: SocketAddrV4,
    dhcp: Option<DhcpRange>,
}

impl BootServer {
    /// Starts to boot machines. `words` gives what is added to the kernel command line, from the address that machines
    /// reach us by; machines that are `through` are sent on; events go to `tell`.
    ///
    /// # Errors
    /// Something is missing, in use or refused; nothing is left running.
    pub fn start(
        options: &Options,
        words: impl FnOnce(Ipv4Addr) -> Vec<String>,
        booted: Arc<BootedMachines>,
        tell: Tell,
    ) -> Result<Self, BootError> {
        let card = Card::find(&options.interface, options.range)?;
        let files = BootFiles::open(&options.dir)?;
        let installed = Installed::find(&options.dir)?;
        let listener = HttpServer::bind(card.address, options.http_port)?;
        ports::check(&card, options.range.is_none())?;
        let http = SocketAddrV4::new(card.address, options.http_port);
        let command_line = script::command_line(&files.command_line, &words(card.address));
        let mut stage = Stage::make(&installed)?;
        let uki = stage.uki(&files, &command_line, options.uefi)?;
        let user = user();
        let setup = Setup { card: &card, range: options.range, http, uefi: options.uefi, dir: stage.path(), user };
        let config = stage.configure(&setup.to_text())?;
        let contents = HashMap::from([
            ("/boot.ipxe", Content::Text(script::ipxe(http, &command_line))),
            (path_of(KERNEL), Content::File(files.kernel)),
            (path_of(INITRAMFS), Content::File(files.initramfs)),
            (path_of(UKI), Content::File(uki)),
        ]);
        let server = HttpServer::start(listener, contents, booted, tell.clone())
            .map_err(BootError::system("starting a thread"))?;
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let (dir, stays_root) = (stage.path().to_owned(), in_user_namespace(&map));
        let order = Order { program: installed.dnsmasq, config, dir, stays_root };
        let dnsmasq = Dnsmasq::start(order, with_sizes(stage.sizes.clone(), tell))?;
        let router = options.range.and_then(|_| match Router::start(&card) {
            Ok(router) => Some(router),
            Err(error) => {
                log::warn!("no router advertisements on {}: {error}; iPXE may wait 16 s for one", card.name);
                None
            }
        });
        Ok(Self { _dnsmasq: dnsmasq, _router: router, _http: server, _stage: stage, card, http, dhcp: options.range })
    }

    /// What it does, in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let how = match self.dhcp {
            Some(range) => format!("DHCP, addresses {range}"),
            None => "proxy beside the DHCP server of this net".to_owned(),
        };
        format!("network boot on {}: {how}; boot files at http://{}/", self.card.name, self.http)
    }
}

/// The path of a name in the list of what is served.
fn path_of(name: &str) -> &'static str {
    match name {
        KERNEL => "/vmlinuz",
        INITRAMFS => "/initramfs.img",
        _ => "/slidecast.efi",
    }
}

/// The log of dnsmasq has neither the size of a file nor the machine behind an address.
fn with_sizes(sizes: HashMap<String, u64>, tell: Tell) -> Tell {
    Arc::new(move |event| {
        tell(match event {
            BootEvent::Fetched { address, file, over: Protocol::Tftp, whole, .. } => {
                let bytes = if whole { sizes.get(&file).copied().unwrap_or(0) } else { 0 };
                BootEvent::Fetched { mac: mac_of(address), address, file, bytes, over: Protocol::Tftp, whole }
            }
            other => other,
        });
    })
}

/// Whom dnsmasq becomes: its own user, or nobody.
fn user() -> &'static str {
    if matches!(nix::unistd::User::from_name("dnsmasq"), Ok(Some(_))) { "dnsmasq" } else { "nobody" }
}

/// Whether this is a user namespace, by the text of `/proc/self/uid_map` (user_namespaces(7)). There may be no other user in
/// it, and groups may not be given up.
fn in_user_namespace(map: &str) -> bool {
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_is_known_by_its_map() {
        assert!(!in_user_namespace("         0          0 4294967295\n"));
        assert!(in_user_namespace("         0       1000          1\n"));
        assert!(in_user_namespace("         0     100000      65536\n"));
    }
}
