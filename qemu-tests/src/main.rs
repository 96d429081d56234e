//! `slidecast-lab`: the lab for people. Everything else uses the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slidecast_lab::{Lab, NodeOptions, Result, TargetKind, disk, privilege, run, target};

#[derive(Debug, Parser)]
#[command(name = "slidecast-lab", about = "A server and its nodes in network namespaces", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
        Command::Hold { nodes, cards, mbits } => {
            privilege::enter()?;
            hold(nodes, cards, mbits)
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
        Command::Synthetic { dir } => {
            std::fs::create_dir_all(&dir).map_err(slidecast_lab::LabError::io("creating", &dir))?;
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
