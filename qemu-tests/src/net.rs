//! The lab's network: one namespace is the switches, one is the server, one is each node.
//!
//! Every card of the server hangs on a bridge of its own in the namespace of the switches, and so do the nodes behind
//! that card. A link's rate is shaped at both of its ends (node egress and switch port egress) with a token bucket of
//! rate x 1514/1538: preamble, frame check sum and gap of real Ethernet are paid for, so that TCP carries 94 % of the
//! link, as it does there.

use std::path::PathBuf;

use crate::error::{LabError, Result};
use crate::process::Place;
use crate::run::Run;
use crate::tool;

/// What TCP can carry of a link's rate: 1,448 of 1,538 bytes (RFC 7323 time stamps on, MTU 1500).
pub const GOODPUT: f64 = 1448.0 / 1538.0;

/// The same congestion control on every machine, whatever the host prefers; and switches that don't show every frame to
/// the firewall. What the kernel has not got it can't do differently either.
const SETTINGS: &str = "cd /proc/sys/net
echo cubic > ipv4/tcp_congestion_control
for table in bridge/bridge-nf-call-*; do echo 0 > $table; done";
/// A namespace may only choose what the host allows (tcp(7), `tcp_allowed_congestion_control`).
const ALLOW_CUBIC: &str = "cd /proc/sys/net/ipv4
grep -qw cubic tcp_allowed_congestion_control ||
    echo $(cat tcp_allowed_congestion_control) cubic > tcp_allowed_congestion_control";
/// Buffer of a switch port in bytes.
const PORT_BUFFER: u32 = 512 * 1024;

/// The namespaces, bridges and cables of one run.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
}

/// One end of a cable: where a process is to be started, and its address.
#[derive(Debug, Clone)]
pub(crate) struct Cable {
    pub(crate) address: String,
    pub(crate) interface: String,
    /// A file that says the link's speed in Mbit/s, to be bound over the kernel's: a virtual cable says 10000.
    pub(crate) speed: Option<PathBuf>,
}

impl Network {
    /// The switches, one bridge for each of `cards`.
    pub(crate) fn new(run: &Run, cards: usize) -> Result<Self> {
        let network = Self { prefix: format!("{}-", run.name()) };
        let _ = tool::run("sh", ["-c", ALLOW_CUBIC]);
        network.add_namespace("switch")?;
        let mut batch = String::new();
        for card in 0..cards {
            // Forward from the first frame on, and broadcasts to everybody, as an unmanaged switch does.
            batch += &format!("link add br{card} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n");
            batch += &format!("link set br{card} up\n");
        }
        network.ip("switch", &batch)?;
        Ok(network)
    }

    /// A namespace's full name.
    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Where a process of the namespace `name` is started.
    pub(crate) fn place(&self, name: &str, cables: &[Cable]) -> Place {
        let bound = |cable: &Cable| {
            let over = PathBuf::from(format!("/sys/class/net/{}/speed", cable.interface));
            cable.speed.clone().map(|file| (file, over))
        };
        Place {
            namespace: Some(self.namespace(name)),
            hostname: Some(name.to_owned()),
            bound: cables.iter().filter_map(bound).collect(),
            ..Place::default()
        }
    }

    /// An empty namespace with its loopback up.
    pub(crate) fn add_namespace(&self, name: &str) -> Result<()> {
        let namespace = self.namespace(name);
        tool::run("ip", ["netns", "add", &namespace]).map_err(|error| LabError::Unable {
            why: format!("no network namespace can be made here ({error}); the lab needs root or user namespaces"),
        })?;
        self.ip(name, "link set lo up\n")?;
        let _ = tool::run("ip", ["netns", "exec", &namespace, "sh", "-c", SETTINGS]);
        Ok(())
    }

    /// A cable between the namespace `name` (its `eth{n}`) and the bridge of `card`; host number `host` in that
    /// card's subnet.
    pub(crate) fn cable(
        &self,
        run: &Run,
        name: &str,
        n: usize,
        card: usize,
        host: usize,
        mbits: Option<u32>,
    ) -> Result<Cable> {
        let (interface, port) = (format!("eth{n}"), format!("{name}.{n}"));
        let peer = self.namespace(name);
        self.ip(
            "switch",
            &format!(
                "link add {port} type veth peer name {interface} netns {peer}\nlink set {port} master br{card} up\n"
            ),
        )?;
        let address = format!("10.77.{card}.{host}");
        self.ip(name, &format!("addr add {address}/24 brd + dev {interface}\nlink set {interface} up\n"))?;
        let mut cable = Cable { address, interface, speed: None };
        if let Some(mbits) = mbits {
            self.shape(name, &cable.interface, mbits)?;
            self.shape("switch", &port, mbits)?;
            let file = run.dir().join(format!("{port}.speed"));
            std::fs::write(&file, format!("{mbits}\n")).map_err(LabError::io("writing", &file))?;
            cable.speed = Some(file);
        }
        Ok(cable)
    }

    /// A card of a virtual machine: a tap in the namespace of the switches, at the bridge of `card` or at none.
    pub(crate) fn tap(&self, name: &str, card: Option<usize>) -> Result<()> {
        self.ip("switch", &format!("tuntap add dev {name} mode tap\nlink set {name} up\n"))?;
        self.connect(name, card)
    }

    /// Connects a tap with the bridge of `card`, or with none.
    pub(crate) fn connect(&self, name: &str, card: Option<usize>) -> Result<()> {
        let how = card.map_or_else(|| "nomaster".to_owned(), |card| format!("master br{card}"));
        self.ip("switch", &format!("link set {name} {how}\n"))
    }

    /// Shapes what leaves `interface` to `mbits`; may be called again with another rate.
    pub(crate) fn shape(&self, name: &str, interface: &str, mbits: u32) -> Result<()> {
        let bits = u64::from(mbits) * 1_000_000 * 1514 / 1538;
        // Room for one whole offloaded segment and for what comes due between two timer ticks.
        let burst = (bits / 8 / 250).max(96 * 1024);
        let namespace = self.namespace(name);
        let words = format!(
            "-n {namespace} qdisc replace dev {interface} root tbf rate {bits}bit burst {burst} limit {PORT_BUFFER}"
        );
        tool::run("tc", words.split(' ')).map(drop)
    }

    /// Takes the cable between node `name` and its switch away, or puts it back: both ends stay up, frames vanish.
    pub(crate) fn plug(&self, name: &str, card: usize, plugged: bool) -> Result<()> {
        let how = if plugged { format!("master br{card}") } else { "nomaster".to_owned() };
        self.ip("switch", &format!("link set {name}.0 {how}\n"))
    }

    /// Adds rules to the firewall of the namespace `name`, as `nft -f` takes them.
    pub(crate) fn nft(&self, name: &str, rules: &str) -> Result<()> {
        let namespace = self.namespace(name);
        tool::feed("ip", ["netns", "exec", &namespace, "nft", "-f", "-"], rules).map(drop)
    }

    /// Switches the card of node `name` off or on.
    pub(crate) fn switch_card(&self, name: &str, on: bool) -> Result<()> {
        self.ip(name, &format!("link set eth0 {}\n", if on { "up" } else { "down" }))
    }

    fn ip(&self, name: &str, batch: &str) -> Result<()> {
        tool::feed("ip", ["-n", &self.namespace(name), "-batch", "-"], batch).map(drop)
    }
}
