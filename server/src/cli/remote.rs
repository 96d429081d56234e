//! The flags of `slidecast remote`.

use super::ProgressStyle;
use super::examples::{REMOTE_DEPLOY_EXAMPLES, REMOTE_EXAMPLES};
use super::values::words;
use clap::{Args, Subcommand};
use slidecast_proto::quantity::parse_duration;
use slidecast_proto::reason::{Free, Then, Verify};
use slidecast_proto::selector::Selector;
use std::path::PathBuf;
use std::time::Duration;

/// `slidecast remote ...`
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// List the machines that the server knows.
    #[command(after_help = REMOTE_EXAMPLES)]
    Machines(RemoteMachines),
    /// List the images that it can deploy.
    #[command(after_help = REMOTE_EXAMPLES)]
    Images(RemoteImages),
    /// Start a deployment there and follow it to its end.
    #[command(after_help = REMOTE_DEPLOY_EXAMPLES)]
    Deploy(Box<RemoteDeploy>),
    /// Show what happens there, as it happens.
    #[command(after_help = REMOTE_EXAMPLES)]
    Watch(RemoteWatch),
}

/// Which server, and how it is known.
#[derive(Debug, Args)]
pub struct RemoteServer {
    /// Where it is, such as https://HOST:7540; http only on this machine.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// The file with the token, as `token new` printed it.
    #[arg(long, value_name = "F")]
    pub token_file: PathBuf,
    /// Trust the certificate authorities in this PEM file [default: those that this system trusts].
    #[arg(long, value_name = "F", conflicts_with = "fingerprint")]
    pub ca: Option<PathBuf>,
    /// Trust one certificate alone: the SHA-256 that the server prints when it starts, as for one that it made itself.
    #[arg(long, value_name = "SHA256", value_parser = crate::remote::parse_fingerprint)]
    pub fingerprint: Option<String>,
}

/// `slidecast remote machines`
#[derive(Debug, Args)]
pub struct RemoteMachines {
    /// The server.
    #[command(flatten)]
    pub server: RemoteServer,
    /// Print the answer of the API, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast remote images`
#[derive(Debug, Args)]
pub struct RemoteImages {
    /// The server.
    #[command(flatten)]
    pub server: RemoteServer,
    /// Print the answer of the API, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast remote watch`
#[derive(Debug, Args)]
pub struct RemoteWatch {
    /// The server.
    #[command(flatten)]
    pub server: RemoteServer,
    /// Begin after the event with this number [default: with what happens from now on].
    #[arg(long, value_name = "N")]
    pub after: Option<i64>,
    /// Print one JSON object a line, with progress, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast remote deploy`
#[derive(Debug, Args)]
pub struct RemoteDeploy {
    /// The server.
    #[command(flatten)]
    pub server: RemoteServer,
    /// The name of the image, as `remote images` lists it.
    pub image: String,
    /// The number of a machine, as `remote machines` lists it; given once for each.
    #[arg(long, value_name = "ID", required_unless_present = "group")]
    pub machine: Vec<i64>,
    /// Instead: the name of a group; its accepted machines are taken as they are now.
    #[arg(long, value_name = "NAME", conflicts_with = "machine")]
    pub group: Option<String>,
    /// Start once this many of them are ready [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub wait_for: Option<u32>,
    /// Give up if they are not ready after so long [default: wait].
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Which disk of each node to write, as with `deploy`.
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true, value_parser = Selector::parse)]
    pub target: Selector,
    /// How much is read back and compared before a node counts as finished.
    #[arg(long, value_name = "HOW", default_value = "full", value_parser = words::<Verify>(Verify::WORDS))]
    pub verify: Verify,
    /// What happens to parts of the disk that the image says nothing of.
    #[arg(long, value_name = "HOW", default_value = "keep", value_parser = words::<Free>(Free::WORDS))]
    pub free: Free,
    /// What a node that booted the agent does when it is finished.
    #[arg(long, value_name = "WHAT", default_value = "hold", value_parser = words::<Then>(Then::WORDS))]
    pub then: Then,
    /// Write everything, also where a disk holds the same bytes already.
    #[arg(long)]
    pub fresh: bool,
    /// Take in nodes that come after the start for so long [default: until the end].
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub join_window: Option<Duration>,
    /// How to show what happens; `auto` is `plain` here.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressStyle,
    /// Write a report of the deployment to this file when it is over.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
}
