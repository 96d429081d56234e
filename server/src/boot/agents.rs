//! Machines that boot as agents of one server are told its address and its key: `deploy --boot` and `serve --boot`.

use super::DEFAULT_HTTP_PORT;
use super::booted::BootedMachines;
use super::config::UefiStage;
use super::error::BootError;
use super::event::Tell;
use super::range::BootMode;
use super::server::{BootServer, Options};
use slidecast_proto::noise::PublicKey;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

/// What is booted, and where.
#[derive(Debug)]
pub struct Agents<'a> {
    /// Who gives out addresses.
    pub mode: BootMode,
    /// The cards on which machines boot.
    pub interfaces: &'a [String],
    /// The folder with the boot files.
    pub dir: &'a Path,
    /// The server's port for control links.
    pub port: u16,
    /// The server's key; none with `--insecure`.
    pub key: Option<&'a PublicKey>,
}

impl Agents<'_> {
    /// Starts a boot server on each card. Machines that have `booted` are sent on to their own disk.
    ///
    /// # Errors
    /// Something is missing, in use or refused; nothing is left running.
    pub fn start(&self, booted: &Arc<BootedMachines>, tell: &Tell) -> Result<Vec<BootServer>, BootError> {
        let range = match self.mode {
            BootMode::Proxy => None,
            BootMode::Dhcp(_) if self.interfaces.len() > 1 => return Err(BootError::SeveralInterfaces),
            BootMode::Dhcp(range) => Some(range),
        };
        let start = |interface: &String| {
            let options = Options {
                interface: interface.clone(),
                dir: self.dir.to_owned(),
                range,
                http_port: DEFAULT_HTTP_PORT,
                uefi: UefiStage::Ipxe,
            };
            BootServer::start(&options, |address| self.words(address), booted.clone(), tell.clone())
        };
        self.interfaces.iter().map(start).collect()
    }

    /// What agents are told on the kernel command line. The key is the public one: nothing secret goes over the wire.
    fn words(&self, address: Ipv4Addr) -> Vec<String> {
        let key = self.key.map_or_else(|| "insecure".to_owned(), ToString::to_string);
        vec![format!("slidecast.server={address}:{}", self.port), format!("slidecast.key={key}")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::noise::SecretKey;

    #[test]
    fn agents_are_told_the_server_and_its_public_key() {
        let public = SecretKey::generate().unwrap().public();
        let words = |key| {
            let agents = Agents { mode: BootMode::Proxy, interfaces: &[], dir: Path::new(""), port: 7531, key };
            agents.words([10, 0, 0, 1].into())
        };
        let expected = ["slidecast.server=10.0.0.1:7531".to_owned(), format!("slidecast.key={public}")];
        assert_eq!(words(Some(&public)), expected);
        assert_eq!(words(None)[1], "slidecast.key=insecure");
    }
}
