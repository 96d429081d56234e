//! The lab: a server with its cards, nodes behind them, and the programs started in the right places.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::Group;
use crate::error::{LabError, Result};
use crate::net::{Cable, Network};
use crate::process::{Exit, Place, Process};
use crate::programs;
use crate::report::Report;
use crate::run::Run;
use crate::target::{Target, TargetKind};
use crate::tool;

/// The port of discovery and of the control link when none is named.
pub const PORT: u16 = 7531;

/// How a node is made.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its link in Mbit/s; none is as fast as the machine can.
    pub mbits: Option<u32>,
    /// What its disk is made of.
    pub kind: TargetKind,
    /// Its disk's size in bytes.
    pub bytes: u64,
}

impl NodeOptions {
    /// A node with a file of this size as its disk, on an unshaped link.
    pub fn file(bytes: u64) -> Self {
        Self { mbits: None, kind: TargetKind::File, bytes }
    }

    /// The same with another kind of disk.
    #[must_use]
    pub fn on(self, kind: TargetKind) -> Self {
        Self { kind, ..self }
    }

    /// The same with a shaped link.
    #[must_use]
    pub fn mbits(self, mbits: u32) -> Self {
        Self { mbits: Some(mbits), ..self }
    }
}

/// A machine behind one of the server's cards.
#[derive(Debug, Clone)]
pub struct Node {
    /// `n1`, `n2` and so on: its host name and the name of its output files.
    pub name: String,
    /// The server's card that it is behind.
    pub card: usize,
    /// Its address.
    pub address: String,
    /// Its disk.
    pub target: Target,
    /// Counts its processor time, where this machine can.
    pub group: Option<Group>,
    place: Place,
}

/// A network with a server and nodes. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct Lab {
    // Before `run`: namespaces are named, and so removed, by the run.
    network: Network,
    server: Place,
    server_group: Option<Group>,
    server_addresses: Vec<String>,
    nodes: RefCell<usize>,
    run: Run,
}

impl Lab {
    /// A server with this many unshaped cards.
    ///
    /// # Errors
    /// When this machine cannot make the network.
    pub fn new(cards: usize) -> Result<Self> {
        Self::build(cards, None)
    }

    /// A server whose cards run at `mbits`.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_card_rate(cards: usize, mbits: u32) -> Result<Self> {
        Self::build(cards, Some(mbits))
    }

    fn build(cards: usize, mbits: Option<u32>) -> Result<Self> {
        let run = Run::start()?;
        let network = Network::new(&run, cards)?;
        network.add_namespace("server")?;
        let plug = |card| network.cable(&run, "server", card, card, 1, mbits);
        let cables: Vec<Cable> = (0..cards).map(plug).collect::<Result<_>>()?;
        let mut server = network.place("server", &cables);
        // The server's own state must not be that of whoever runs the lab.
        server.env = vec![
            ("XDG_STATE_HOME".to_owned(), run.dir().join("state").display().to_string()),
            // What it can't remove because it is killed goes with the run.
            ("TMPDIR".to_owned(), run.dir().display().to_string()),
        ];
        let server_group = Group::new(&network.namespace("server"));
        server.group = server_group.as_ref().map(Group::entrance);
        let server_addresses = cables.into_iter().map(|cable| cable.address).collect();
        Ok(Self { network, server, server_group, server_addresses, nodes: RefCell::new(0), run })
    }

    /// A further node behind the server's card number `card`.
    ///
    /// # Errors
    /// When its namespace or its disk cannot be made.
    pub fn node(&self, card: usize, options: &NodeOptions) -> Result<Node> {
        let (name, number) = self.next("n");
        self.network.add_namespace(&name)?;
        let cable = self.network.cable(&self.run, &name, 0, card, 9 + number, options.mbits)?;
        let target = Target::new(&self.run, &name, options.kind, options.bytes)?;
        let group = Group::new(&self.network.namespace(&name));
        let mut place = self.network.place(&name, std::slice::from_ref(&cable));
        place.group = group.as_ref().map(Group::entrance);
        Ok(Node { name, card, address: cable.address, target, group, place })
    }

    /// The name and the number of a further machine.
    pub(crate) fn next(&self, letter: &str) -> (String, usize) {
        let mut nodes = self.nodes.borrow_mut();
        *nodes += 1;
        (format!("{letter}{nodes}"), *nodes)
    }

    /// The namespaces and bridges.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// `count` nodes, spread over the cards in turn.
    ///
    /// # Errors
    /// As [`Lab::node`].
    pub fn nodes(&self, count: usize, options: &NodeOptions) -> Result<Vec<Node>> {
        (0..count).map(|i| self.node(i % self.server_addresses.len(), options)).collect()
    }

    /// The run's name; its namespaces are called NAME-server, NAME-n1 and so on.
    pub fn name(&self) -> &str {
        self.run.name()
    }

    /// A file of this run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.run.dir().join(name)
    }

    /// The server's address on card number `card`.
    pub fn server_address(&self, card: usize) -> &str {
        &self.server_addresses[card]
    }

    /// Counts the server's processor time, where this machine can.
    pub fn server_group(&self) -> Option<&Group> {
        self.server_group.as_ref()
    }

    /// The run's key file, made by `slidecast key new` on first use. Its public part is beside it with `.pub`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn key(&self) -> Result<PathBuf> {
        let key = self.path("server.key");
        if !key.exists() {
            self.slidecast(["key", "new", "-o"].map(OsString::from).into_iter().chain([key.clone().into()]))?;
        }
        Ok(key)
    }

    /// Runs the `slidecast` command outside the network and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn slidecast(&self, args: impl IntoIterator<Item = OsString>) -> Result<String> {
        tool::run(&programs::server()?.display().to_string(), args)
    }

    /// Starts the `slidecast` command in the server's namespace, with exactly these arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn server(&self, name: &str, args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Process> {
        Process::start(name, self.run.dir(), &self.server, &programs::server()?, args)
    }

    /// Starts `slidecast deploy IMAGE` with the run's key and a report; `args` come on top.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn deploy(&self, image: &Path, wait_for: usize, args: &[&str]) -> Result<Deploy> {
        self.deploy_as("deploy", image, wait_for, args)
    }

    /// As [`Lab::deploy`], for a second one in the same lab: `name` is that of its output and report.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn deploy_as(&self, name: &str, image: &Path, wait_for: usize, args: &[&str]) -> Result<Deploy> {
        self.start_deploy(&self.server, name, image, wait_for, args)
    }

    /// As [`Lab::deploy_as`], with its screen shown to whoever runs the lab.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn deploy_shown(&self, name: &str, image: &Path, wait_for: usize, args: &[&str]) -> Result<Deploy> {
        self.start_deploy(&Place { shown: true, ..self.server.clone() }, name, image, wait_for, args)
    }

    /// As [`Lab::deploy_as`], where somebody types: what is written to the file that comes with it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn deploy_typed(&self, name: &str, image: &Path, wait_for: usize, args: &[&str]) -> Result<(Deploy, File)> {
        let input = self.path(&format!("{name}.in"));
        if !input.exists() {
            let made = nix::unistd::mkfifo(&input, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR);
            made.map_err(|errno| LabError::io("making", &input)(errno.into()))?;
        }
        // Open for reading, too: neither end waits for the other, and the input does not end before this is dropped.
        let typing = File::options().read(true).write(true).open(&input).map_err(LabError::io("opening", &input))?;
        let place = Place { input: Some(input), ..self.server.clone() };
        Ok((self.start_deploy(&place, name, image, wait_for, args)?, typing))
    }

    /// Starts a DHCP server in the server's namespace that gives addresses and nothing else, on every card.
    ///
    /// # Errors
    /// When `dnsmasq` cannot be started.
    pub fn dhcp(&self, more: &[&str]) -> Result<Process> {
        let leases = format!("--dhcp-leasefile={}", self.path("leases").display());
        let fixed =
            ["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping", "--log-dhcp"];
        let fixed = fixed.into_iter().chain(["--log-facility=-", "--dhcp-authoritative", &leases]);
        let ranges =
            (0..self.server_addresses.len()).map(|card| format!("--dhcp-range=10.77.{card}.100,10.77.{card}.199,1h"));
        let args = fixed.chain(more.iter().copied()).map(str::to_owned).chain(ranges);
        let mut process = self.on_server("dnsmasq", "dnsmasq", args)?;
        process.wait_for("DHCP", Duration::from_secs(10))?;
        Ok(process)
    }

    /// Starts `slidecast boot-server` with the boot files in `dir` on the server's first card: as a proxy with `--proxy`,
    /// or as the DHCP server too.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn boot_server(&self, dir: &Path, proxy: bool) -> Result<Process> {
        self.boot_server_with(dir, if proxy { &["--proxy"] } else { &["--dhcp", "10.77.0.100-10.77.0.199"] })
    }

    /// As [`Lab::boot_server`], with exactly these further arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn boot_server_with(&self, dir: &Path, more: &[&str]) -> Result<Process> {
        let dir = dir.display().to_string();
        let args = [&["boot-server", "--interface", "eth0", "--dir", &dir], more].concat();
        let mut process = self.server("boot-server", args)?;
        process.wait_for("boot files at", Duration::from_secs(20))?;
        Ok(process)
    }

    fn start_deploy(&self, place: &Place, name: &str, image: &Path, wait_for: usize, args: &[&str]) -> Result<Deploy> {
        let report = self.path(&format!("{name}.json"));
        let mut all: Vec<OsString> = vec!["deploy".into(), image.into()];
        all.extend(["--wait-for".into(), wait_for.to_string().into(), "--report".into(), report.clone().into()]);
        if !args.iter().any(|arg| matches!(*arg, "--insecure" | "--key-file")) {
            all.extend(["--key-file".into(), self.key()?.into()]);
        }
        all.extend(args.iter().map(OsString::from));
        let process = Process::start(name, self.run.dir(), place, &programs::server()?, all)?;
        Ok(Deploy { process, report })
    }

    /// Starts the usual agent on a node: its own disk, the run's key, the server found by broadcast, one deployment.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent(&self, node: &Node) -> Result<Process> {
        let key = self.key()?.with_extension("key.pub");
        let target = node.target.path.as_os_str();
        self.agent_with(
            node,
            [Path::new("--target").as_os_str(), target, "--server-key".as_ref(), key.as_os_str(), "--once".as_ref()],
        )
    }

    /// As [`Lab::agent`], with an agent that goes on without its server for so long only.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn impatient_agent(&self, node: &Node, patience: &str) -> Result<Process> {
        let key = self.key()?.with_extension("key.pub");
        let (target, key) = (node.target.path.display().to_string(), key.display().to_string());
        let args = ["--target", &target, "--server-key", &key, "--once", "--patience", patience];
        self.agent_with(node, args)
    }

    /// Starts an agent on a node with exactly these arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn agent_with(&self, node: &Node, args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Process> {
        Process::start(&node.name, self.run.dir(), &node.place, &programs::agent()?, args)
    }

    /// Starts any program on a node; `name` is that of its output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn on_node<S: Into<OsString>>(
        &self,
        node: &Node,
        name: &str,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        Process::start(name, self.run.dir(), &node.place, Path::new(program), args)
    }

    /// Starts any program in the server's namespace; `name` is that of its output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn on_server<S: Into<OsString>>(
        &self,
        name: &str,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        Process::start(name, self.run.dir(), &self.server, Path::new(program), args)
    }

    /// Changes the rate of a node's link, both ways.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn shape(&self, node: &Node, mbits: u32) -> Result<()> {
        self.network.shape(&node.name, "eth0", mbits)?;
        self.network.shape("switch", &format!("{}.0", node.name), mbits)
    }

    /// Pulls a node's cable: its frames vanish, its interfaces stay up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self, node: &Node) -> Result<()> {
        self.network.plug(&node.name, node.card, false)
    }

    /// Switches a node's card off (its cable is dead for both ends) or on.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn switch_card(&self, node: &Node, on: bool) -> Result<()> {
        self.network.switch_card(&node.name, on)
    }

    /// Adds rules to a node's firewall, as `nft -f` takes them.
    ///
    /// # Errors
    /// When `nft` is missing or refuses them.
    pub fn nft(&self, node: &Node, rules: &str) -> Result<()> {
        self.network.nft(&node.name, rules)
    }

    /// Puts a node's cable back.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn replug(&self, node: &Node) -> Result<()> {
        self.network.plug(&node.name, node.card, true)
    }
}

/// A running `slidecast deploy`.
#[derive(Debug)]
pub struct Deploy {
    /// The command.
    pub process: Process,
    /// Where its report will be.
    pub report: PathBuf,
}

impl Deploy {
    /// Waits for its end and reads the report.
    ///
    /// # Errors
    /// When it is late, or ended without a report.
    pub fn wait(&mut self, limit: Duration) -> Result<(Exit, Report)> {
        let exit = self.process.wait_exit(limit)?;
        let report = Report::read(&self.report).map_err(|error| match error {
            LabError::Io { .. } => LabError::Ended { what: "writing a report".to_owned(), tail: self.process.tail() },
            other => other,
        });
        Ok((exit, report?))
    }
}
