//! `deploy --boot`: machines boot from the network as long as the deployment runs, and are told its server and key.

use crate::boot::{BootError, BootMode, BootServer, BootedMachines, DEFAULT_HTTP_PORT, Options, Tell, UefiStage};
use crate::cli::Deploy;
use crate::progress::Lines;
use slidecast_proto::noise::PublicKey;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Starts a boot server on each of the cards given; none if that was not asked for. Who is `through` is sent on.
pub(super) fn start(
    args: &Deploy,
    key: Option<&PublicKey>,
    booted: &Arc<BootedMachines>,
    lines: Lines,
) -> Result<Vec<BootServer>, BootError> {
    let Some(mode) = args.boot else { return Ok(Vec::new()) };
    let range = match mode {
        BootMode::Proxy => None,
        BootMode::Dhcp(_) if args.interface.len() > 1 => return Err(BootError::SeveralInterfaces),
        BootMode::Dhcp(range) => Some(range),
    };
    let tell: Tell = Arc::new(move |event| lines.line(event.to_string()));
    let start = |interface: &String| {
        let options = Options {
            interface: interface.clone(),
            dir: args.boot_dir.clone(),
            range,
            http_port: DEFAULT_HTTP_PORT,
            uefi: UefiStage::Ipxe,
        };
        BootServer::start(&options, |address| words(address, args.port, key), booted.clone(), tell.clone())
    };
    args.interface.iter().map(start).collect()
}

/// What agents are told on the kernel command line. The key is the public one: nothing secret goes over the wire.
fn words(address: Ipv4Addr, port: u16, key: Option<&PublicKey>) -> Vec<String> {
    let key = key.map_or_else(|| "insecure".to_owned(), ToString::to_string);
    vec![format!("slidecast.server={address}:{port}"), format!("slidecast.key={key}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use slidecast_proto::noise::SecretKey;

    #[test]
    fn agents_are_told_the_server_and_its_public_key() {
        let public = SecretKey::generate().unwrap().public();
        let expected = ["slidecast.server=10.0.0.1:7531".to_owned(), format!("slidecast.key={public}")];
        assert_eq!(words([10, 0, 0, 1].into(), 7531, Some(&public)), expected);
        assert_eq!(words([10, 0, 0, 1].into(), 7531, None)[1], "slidecast.key=insecure");
    }
}
