//! `slidecast-lab`: the lab for people. Everything else uses the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slidecast_lab::chaos::{self, liar, misplace, proxy, stranger};
use slidecast_lab::demo::Demo;
use slidecast_lab::{
    Lab, LabError, NodeOptions, Result, TargetKind, disk, floods, forge, machine, noise, privilege, programs, pxe, run,
    standing, target, web,
};

#[derive(Debug, Parser)]
#[command(name = "slidecast-lab", about = "A server and its nodes in network namespaces", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the main job: a disk becomes an image, the image goes to nodes, their disks are compared
    Demo {
        /// A disk, a disk image or a .slide file [default: a Debian system, and an increment on top of it]
        source: Option<PathBuf>,
        /// Number of nodes
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
        nodes: u32,
    },
    /// Show the way from power-on: virtual machines with empty disks boot from the network, are written, restart
    Machines {
        /// Number of machines
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=4))]
        nodes: u32,
    },
    /// Play faults of every kind, at every position of a chain, in every phase of a deployment
    Chaos {
        /// How often everything is played, each time with the next seed
        #[arg(long, default_value_t = 1)]
        rounds: u64,
        /// What is drawn: bytes, delays, which middle node
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only this case (KIND/POSITION/PHASE) or all whose names begin so (KIND, KIND/POSITION); may be given again
        #[arg(long = "case")]
        cases: Vec<String>,
        /// How many are played at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Measure what one node of six costs the others that damages all it sends, at each position of the chain
    Culprit {
        /// How many are played at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Damage or cut what is passed on between two nodes; for the chaos cases, inside a node's namespace
    #[command(hide = true)]
    Proxy {
        /// What is done
        fault: proxy::Fault,
        /// To which bytes
        #[arg(long, default_value = "down")]
        which: proxy::Which,
        /// At this byte [default: at the next one after SIGUSR1]
        #[arg(long)]
        at: Option<u64>,
        /// How far apart the bytes are that are damaged
        #[arg(long, default_value_t = proxy::GARBLE_EVERY)]
        every: u64,
        /// Compute the CRC of what is changed anew
        #[arg(long)]
        mended: bool,
    },
    /// Pass on what an agent and its server say to each other, and lie; for the chaos cases, inside a node's namespace
    #[command(hide = true)]
    Liar {
        /// What the lie is
        lie: liar::Lie,
        /// The server's control port
        server: std::net::SocketAddr,
        /// The file with the server's public key
        key: PathBuf,
    },
    /// Show a file as a disk that puts writes in the wrong place; for the chaos cases
    #[command(hide = true)]
    Misplace {
        #[command(flatten)]
        what: misplace::Misplacing,
    },
    /// Flood a server or a node as a stranger without a secret
    #[command(hide = true)]
    Stranger {
        #[command(flatten)]
        flood: stranger::Flood,
    },
    /// Flood a deployment as a stranger without a secret, and measure how long agents take to get their place meanwhile
    Floods {
        /// What the stranger does; may be given again [default: all of it]
        #[arg(long = "deed")]
        deeds: Vec<stranger::Deed>,
        /// Datagrams or connections a second that are asked for
        #[arg(long, default_value_t = 10_000)]
        rate: u32,
        /// How long, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Agents that are started at the beginning, after a fifth and after three quarters of that time
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
        tries: u32,
    },
    /// Play peers whose bytes are right and whose meaning is wrong against real agents and real servers
    Forge {
        /// How many conversations
        #[arg(long, default_value_t = 1000)]
        runs: u64,
        /// What is drawn
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many are played at once
        #[arg(long, default_value_t = 4)]
        jobs: usize,
        /// Play nothing more after a failure
        #[arg(long)]
        until_failure: bool,
    },
    /// Play forged agents in a deployment that runs; for `forge`, inside a namespace
    #[command(hide = true)]
    ForgeAgents {
        /// The server's discovery and control port
        server: std::net::SocketAddr,
        /// The image that it deploys
        image: PathBuf,
        /// The most conversations
        #[arg(long)]
        runs: u64,
        /// What is drawn
        #[arg(long)]
        seed: u64,
    },
    /// Make a network and hold it until Ctrl-C, to try things in it by hand
    Hold {
        /// Number of nodes
        #[arg(long, default_value_t = 2)]
        nodes: usize,
        /// Number of the server's cards
        #[arg(long, default_value_t = 1)]
        cards: usize,
        /// Rate of the nodes' links in Mbit/s
        #[arg(long)]
        mbits: Option<u32>,
    },
    /// Test the pages of `serve` in a browser, with four machines: runs a script beside the server
    Web {
        /// The script
        script: PathBuf,
        /// Where screenshots go
        out: PathBuf,
        /// The interpreter
        #[arg(long, default_value = "python3")]
        python: PathBuf,
    },
    /// Leave a standing server with four machines running, for a browser, until it is interrupted
    Serve {
        /// The port of this machine at which its pages are
        #[arg(long, default_value_t = 7540)]
        port: u16,
    },
    /// Remove what runs left behind that were killed
    Clean,
    /// Make the sample disk with a Debian system, in two states, and say where it is
    Sample {
        /// The larger one, at least 512 MiB used
        #[arg(long)]
        full: bool,
    },
    /// Make the small sample disk of generated files in a folder
    Synthetic {
        /// The folder
        dir: PathBuf,
    },
    /// Send random datagrams or bytes to a program in the lab
    Noise {
        /// The program's address and port
        to: std::net::SocketAddr,
        /// Number of datagrams
        #[arg(long, default_value_t = 0)]
        datagrams: u32,
        /// Number of TCP connections
        #[arg(long, default_value_t = 0)]
        connections: u32,
    },
    /// Ask for boot as firmware does, and print the answers
    Pxe {
        /// The card to ask on
        interface: String,
        /// The architecture: 0 BIOS, 7 UEFI, 16 UEFI HTTP Boot
        #[arg(long, default_value_t = 0)]
        arch: u16,
        /// The vendor class
        #[arg(long, default_value = "PXEClient")]
        class: String,
        /// Ask as iPXE
        #[arg(long)]
        ipxe: bool,
        /// Ask this proxy for its boot file instead of everybody for an offer
        #[arg(long)]
        server: Option<std::net::Ipv4Addr>,
    },
    /// Ask for a router as iPXE does, and print the bytes of its advertisement
    Solicit {
        /// The card to ask on
        interface: String,
    },
}

fn main() -> ExitCode {
    match obey(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slidecast-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]
fn obey(command: Command) -> Result<()> {
    match command {
        Command::Demo { source, nodes } => {
            privilege::enter()?;
            // Ahead of the network: a name that is wrong is said at once.
            if let Some(path) = &source {
                std::fs::File::open(path).map_err(LabError::io("opening", path))?;
            }
            let nodes = usize::try_from(nodes).expect("at most 64 by the command line");
            Demo { source, nodes }.run(&|line| println!("{line}"))
        }
        Command::Machines { nodes } => {
            privilege::enter()?;
            let nodes = usize::try_from(nodes).expect("at most 4 by the command line");
            machine::demo::run(nodes, &|line| println!("{line}"))
        }
        Command::Chaos { rounds, seed, cases, jobs } => {
            privilege::enter()?;
            programs::server().and(programs::agent())?;
            let good = chaos::run(&chaos::Options { rounds, seed, cases, jobs }, &|line| println!("{line}"))?;
            run::remove_all();
            if good { Ok(()) } else { Err(LabError::Unable { why: "some cases failed".to_owned() }) }
        }
        Command::Culprit { jobs } => {
            privilege::enter()?;
            programs::server().and(programs::agent())?;
            let good = chaos::culprit(jobs, &|line| println!("{line}"))?;
            run::remove_all();
            if good { Ok(()) } else { Err(LabError::Unable { why: "the figure was missed".to_owned() }) }
        }
        Command::Proxy { fault, which, at, every, mended } => {
            proxy::run(proxy::Plan { fault, which, at, every, mended })
                .map_err(LabError::io("passing on at", format!("port {}", proxy::PORT)))
        }
        Command::Liar { lie, server, key } => {
            let text = std::fs::read_to_string(&key).map_err(LabError::io("reading", &key))?;
            let why = format!("{} is no public key", key.display());
            let key = text.split_whitespace().find_map(|word| word.parse().ok()).ok_or(LabError::Unable { why })?;
            liar::run(lie, server, key).map_err(LabError::io("passing on at", format!("port {}", liar::PORT)))
        }
        Command::Misplace { what } => misplace::run(&what, &mut misplace::say),
        Command::Stranger { flood } => {
            stranger::run(&flood).map_err(LabError::io("flooding", flood.server.to_string()))
        }
        Command::Floods { deeds, rate, seconds, tries } => {
            privilege::enter()?;
            let tries = usize::try_from(tries).expect("at most 16 by the command line");
            let good = floods::run(&floods::Options { deeds, rate, seconds, tries }, &|line| println!("{line}"))?;
            run::remove_all();
            if good { Ok(()) } else { Err(LabError::Unable { why: "some nodes are not done".to_owned() }) }
        }
        Command::Forge { runs, seed, jobs, until_failure } => {
            privilege::enter()?;
            let options = forge::Options { runs, seed, jobs, until_failure };
            let good = forge::run(options, &|line| println!("{line}"))?;
            run::remove_all();
            if good { Ok(()) } else { Err(LabError::Unable { why: "some runs failed".to_owned() }) }
        }
        Command::ForgeAgents { server, image, runs, seed } => {
            forge::agents(server, &image, runs, seed, &|line| println!("{line}"))
        }
        Command::Hold { nodes, cards, mbits } => {
            privilege::enter()?;
            hold(nodes, cards, mbits)
        }
        Command::Web { script, out, python } => {
            privilege::enter()?;
            programs::server().and(programs::agent())?;
            web::run(&python, &script, &out, &|line| println!("{line}"))
        }
        Command::Serve { port } => {
            privilege::enter()?;
            programs::server().and(programs::agent())?;
            standing::show(port, &|line| println!("{line}"))
        }
        Command::Clean => {
            privilege::enter()?;
            run::remove_leftovers();
            Ok(())
        }
        Command::Sample { full } => {
            let flavour = if full { disk::debian::Flavour::Full } else { disk::debian::Flavour::Minimal };
            let disks = disk::debian::make(flavour, &mut |step| eprintln!("{step}"))?;
            println!("{}\n{}", disks.first.display(), disks.second.display());
            Ok(())
        }
        Command::Noise { to, datagrams, connections } => {
            noise::datagrams(to, datagrams)?;
            noise::connections(to, connections)
        }
        Command::Pxe { interface, arch, class, ipxe, server } => {
            let asker = pxe::Asker { interface, arch, class, ipxe };
            let answers = match server {
                Some(server) => asker.ask_boot_server(server)?,
                None => asker.discover()?,
            };
            answers.iter().for_each(|answer| println!("{answer}"));
            Ok(())
        }
        Command::Solicit { interface } => {
            println!("{:?}", pxe::solicit(&interface)?);
            Ok(())
        }
        Command::Synthetic { dir } => {
            std::fs::create_dir_all(&dir).map_err(LabError::io("creating", &dir))?;
            let disks = disk::synthetic::make(&dir)?;
            println!("{}\n{}", disks.first.display(), disks.second.display());
            Ok(())
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]
fn hold(nodes: usize, cards: usize, mbits: Option<u32>) -> Result<()> {
    let lab = Lab::new(cards)?;
    let kind = if target::loops_work() { TargetKind::Loop { sector: 512 } } else { TargetKind::File };
    let options = NodeOptions { mbits, kind, bytes: 256 << 20 };
    for node in lab.nodes(nodes, &options)? {
        println!("{} {} {}", node.name, node.address, node.target.path.display());
    }
    println!("ready: {} (ip netns exec {0}-server ...); Ctrl-C removes it", lab.name());
    loop {
        std::thread::park();
    }
}
