//! The flags of `slidecast serve` and `slidecast token`.

use super::examples::TOKEN_EXAMPLES;
use super::look::CacheFlags;
use super::values::{card_speed, layer_path, words};
use crate::boot::BootMode;
use crate::nic::CardSpeed;
use crate::serve::role::Role;
use clap::{Args, Subcommand};
use slidecast_proto::discovery::DEFAULT_PORT;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// `slidecast serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The folder with the images, also s3://BUCKET/FOLDER/ or https://HOST/FOLDER/; what ends in .slide there can be deployed.
    #[arg(long, value_name = "DIR", value_parser = layer_path())]
    pub images: PathBuf,
    /// Where layers of servers are kept.
    #[command(flatten)]
    pub kept: CacheFlags,
    /// Keep the database, this server's key and the state of deployments here [default: slidecast in the XDG state folder].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where requests are taken. At an address that is not of the loopback card they are encrypted (HTTPS).
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7540")]
    pub http: SocketAddr,
    /// The certificate for HTTPS with those that lead to its authority, in PEM; read again when it changes [default: one that the server makes].
    #[arg(long, value_name = "F", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "F", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The port for discovery (UDP) and control links (TCP).
    #[arg(long, value_name = "P", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Use this network card; may be given several times [default: every card].
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// The server's secret key, as `key new` made it [default: one kept in the state folder].
    #[arg(long, value_name = "F", conflicts_with = "insecure")]
    pub key_file: Option<PathBuf>,
    /// Do without a key: anybody may pose as this server. Agents must be told so, too.
    #[arg(long, conflicts_with = "key_file")]
    pub insecure: bool,
    /// Run this program when a machine is woken: it may switch its power on. The environment tells which machine it is; see docs/SERVE.md.
    #[arg(long, value_name = "PROGRAM")]
    pub power_hook: Option<PathBuf>,
    /// Boot machines from the network, on each --interface: beside its DHCP server (proxy), or give out the addresses of a RANGE such as 10.0.0.100-10.0.0.200. Accepted machines with nothing to do boot their own disk. Needs root.
    #[arg(long, value_name = "proxy|RANGE", num_args = 0..=1, require_equals = true, default_missing_value = "proxy", requires = "interface", value_parser = BootMode::from_str)]
    pub boot: Option<BootMode>,
    /// The folder with the boot files, as ./mkimage.sh makes it.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub boot_dir: PathBuf,
    /// Keep events that are about no machine for so many days. What has happened to machines, and reports, stay.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub keep_events: u32,
    /// The speed of a network card whose own claim is unknown or wrong, such as eth1=10G.
    #[arg(long, value_name = "IF=RATE", value_parser = card_speed)]
    pub card_speed: Vec<CardSpeed>,
}

/// `slidecast token ...`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for the API of `serve` and print it. It can't be shown again.
    #[command(after_help = TOKEN_EXAMPLES)]
    New(TokenNew),
}

/// `slidecast token new`
#[derive(Debug, Args)]
pub struct TokenNew {
    /// What its holder may do: look; start and stop deployments, too; or accept machines, too.
    #[arg(long, value_name = "ROLE", value_parser = words::<Role>(Role::WORDS))]
    pub role: Role,
    /// The state folder of the server [default: slidecast in the XDG state folder].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// For how many days it works [default: until it is removed].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    /// A group that an operator's token is limited to; may be given several times [default: all machines].
    #[arg(long, value_name = "NAME")]
    pub group: Vec<String>,
}
