//! The command line. What is listed here is a contract: scripts call it.

mod examples;
mod look;
mod look_examples;
mod remote;
mod serve;
mod shell;
mod values;

pub use look::{CacheFlags, CollectImages, Diff, Flatten, ListImages, LookCommand, Nbd, Pull, Push, Rebase, Stage};
pub use remote::{RemoteCommand, RemoteDeploy, RemoteImages, RemoteMachines, RemoteServer, RemoteWatch};
pub use serve::{Serve, TokenCommand, TokenNew};
pub use shell::{Completions, Man, ShellName};

use crate::approve::ApproveBy;
use crate::boot::{BootMode, DEFAULT_HTTP_PORT, DhcpRange, UefiStage};
use crate::nic::CardSpeed;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use examples::{
    BOOT_EXAMPLES, COMPLETIONS_EXAMPLES, CREATE_EXAMPLES, DEPLOY_EXAMPLES, EXAMPLES, EXPORT_EXAMPLES, IMAGE_EXAMPLES,
    INFO_EXAMPLES, KEY_EXAMPLES, MAN_EXAMPLES, REMOTE_EXAMPLES, SERVE_EXAMPLES, TOKEN_EXAMPLES, VERIFY_EXAMPLES,
};
use slidecast_image::codec::Packing;
use slidecast_proto::discovery::DEFAULT_PORT;
use slidecast_proto::quantity::parse_duration;
use slidecast_proto::reason::{Free, Then, Verify};
use slidecast_proto::selector::Selector;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use values::{block_size, card_speed, dedup_run, grain_size, layer_path, sector_size, words};

/// Puts one disk image on many machines at once.
#[derive(Debug, Parser)]
#[command(name = "slidecast", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// A TOML file that may set what flags set; flags win.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, inspect, check and unpack images.
    #[command(subcommand, after_help = IMAGE_EXAMPLES)]
    Image(ImageCommand),
    /// Make the key by which agents know this server.
    #[command(subcommand, after_help = KEY_EXAMPLES)]
    Key(KeyCommand),
    /// Put an image on the disks of waiting agents.
    #[command(after_help = DEPLOY_EXAMPLES, allow_negative_numbers = true)]
    Deploy(Box<Deploy>),
    /// Stay, and take deployments through an API.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Make tokens for the API of `serve`.
    #[command(subcommand, after_help = TOKEN_EXAMPLES)]
    Token(TokenCommand),
    /// Operate a server that runs elsewhere, through its API.
    #[command(subcommand, after_help = REMOTE_EXAMPLES)]
    Remote(RemoteCommand),
    /// Let machines boot the agent from the network.
    #[command(after_help = BOOT_EXAMPLES)]
    BootServer(BootServer),
    /// Print what makes a shell complete these commands and their flags.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Write a manual page for each command into a folder.
    #[command(after_help = MAN_EXAMPLES)]
    Man(Man),
}

/// `slidecast image ...`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Turn a disk, or a file with the bytes of one, into an image.
    #[command(after_help = CREATE_EXAMPLES, allow_negative_numbers = true)]
    Create(Create),
    /// Show what an image holds.
    #[command(after_help = INFO_EXAMPLES)]
    Info(Info),
    /// Check every byte of an image and of its parents.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyImage),
    /// Write the disk that an image describes to a file or a device.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Commands that look into images, compare and move them.
    #[command(flatten)]
    Look(LookCommand),
}

/// `slidecast image create`
#[derive(Debug, Args)]
pub struct Create {
    /// The disk, a file that holds one, or a folder of Clonezilla or FOG. A disk should be at rest: not mounted for writing.
    pub source: PathBuf,
    /// The image to write. It appears, or replaces one of this name, when it is complete.
    #[arg(short, long, value_name = "FILE.slide")]
    pub output: PathBuf,
    /// Store only what differs from this image, which may be an increment itself. The disk may have grown or shrunk since.
    #[arg(long, value_name = "FILE.slide", value_parser = layer_path())]
    pub parent: Option<PathBuf>,
    /// How much is compressed, hashed and sent as one: a power of two from 64KiB to 16MiB [default: 1MiB, or the parent's].
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    pub block_size: Option<u32>,
    /// The unit of deduplication: a power of two, 4KiB or more [default: 4KiB, or the parent's].
    #[arg(long, value_name = "SIZE", value_parser = grain_size)]
    pub grain: Option<u32>,
    /// How blocks are compressed: zstd, zstd:LEVEL (1 to 19), lz4 or none.
    #[arg(long, value_name = "CODEC", default_value = "zstd:3", value_parser = Packing::from_str)]
    pub codec: Packing,
    /// Content that repeats for less than this, 1 byte to 16MiB, is stored again: every place is a seek on a hard disk.
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = dedup_run)]
    pub dedup_run: u64,
    /// The sector in bytes of the disk in a file, 512 or 4096 [default: what its partition table proves, or its parent has, else 512].
    #[arg(long, value_name = "BYTES", value_parser = sector_size)]
    pub sector: Option<u32>,
    /// What the source is, whatever its content says; raw images the bytes of a file as they are.
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(slidecast_image::source::names()))]
    pub format: Option<String>,
    /// Images a snapshot inside a qcow2 file, by its name, instead of the disk as it is now.
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// The partition table of the disk that a partclone image is a partition of: a text of sfdisk --dump, or a backup of sgdisk.
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// The number of that partition in the table [default: the one whose size it has].
    #[arg(long, value_name = "N", requires = "table")]
    pub partition: Option<u32>,
    /// Which disk of a folder with several: its name, as sda, or its number.
    #[arg(long, value_name = "NAME")]
    pub disk: Option<String>,
    /// Makes a layer of each file of a backing chain: NAME.layer0.slide and so on beside the newest, NAME.slide.
    #[arg(long)]
    pub layers: bool,
    /// Makes an image of a source that is written to meanwhile: a mixture of older and newer content.
    #[arg(long)]
    pub allow_changes: bool,
}

/// `slidecast image info`
#[derive(Debug, Args)]
pub struct Info {
    /// An image, or a file or folder with a disk that can be imported.
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
    /// Print one JSON object, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast image verify`
#[derive(Debug, Args)]
pub struct VerifyImage {
    /// The image.
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
}

/// `slidecast image export`
#[derive(Debug, Args)]
pub struct Export {
    /// The image.
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
    /// A file, which is made or replaced, or a block device that is not in use and at least as large as the image's disk.
    pub dest: PathBuf,
    /// Whether everything is read back and compared [default: full on a device, none on a file].
    #[arg(long, value_enum, value_name = "HOW")]
    pub verify: Option<ReadBack>,
}

/// What `image export` reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadBack {
    /// Everything that was written.
    Full,
    /// Nothing.
    None,
}

/// `slidecast key ...`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new key: the secret in F, for the server alone, and the public part in F.pub, for agents.
    #[command(after_help = KEY_EXAMPLES)]
    New(KeyNew),
}

/// `slidecast key new`
#[derive(Debug, Args)]
pub struct KeyNew {
    /// The file for the secret. Neither it nor F.pub may exist yet.
    #[arg(short, long, value_name = "F")]
    pub output: PathBuf,
}

/// `slidecast deploy`
#[derive(Debug, Args)]
pub struct Deploy {
    /// The image to deploy. Its parents must lie beside it.
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
    /// Start once this many nodes are ready.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub wait_for: u32,
    /// Give up if they have not come by then [default: wait for ever].
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Use this network card; may be given several times [default: every card].
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// The port for discovery (UDP) and control links (TCP).
    #[arg(long, value_name = "P", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Which disk of each node to write, as /PATH, serial=S, wwn=W, model=GLOB, size=A..B, transport=T, or several of these
    /// with commas; a value with a comma of its own stands in quotes: "model='ACME, Inc.*'" [default: the only eligible one].
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true, value_parser = Selector::parse)]
    pub target: Selector,
    /// How much is read back and compared before a node counts as finished: everything (it is `done` then), or only the
    /// head with its partition table, or nothing (it is `written`).
    #[arg(long, value_name = "HOW", default_value = "full", value_parser = words::<Verify>(Verify::WORDS))]
    pub verify: Verify,
    /// What happens to parts of the disk that the image says nothing of, such as the free space of its file systems: they
    /// are left as they are, given back to the disk, or overwritten with zeros.
    #[arg(long, value_name = "HOW", default_value = "keep", value_parser = words::<Free>(Free::WORDS))]
    pub free: Free,
    /// What a node that booted the agent does when it is finished; an agent that runs as a plain program leaves its machine alone.
    #[arg(long, value_name = "WHAT", default_value = "hold", value_parser = words::<Then>(Then::WORDS))]
    pub then: Then,
    /// Write everything, also where a disk holds the same bytes already.
    #[arg(long)]
    pub fresh: bool,
    /// Go on with the deployment that a killed server left, and start no other. The same command
    /// without this flag goes on, too, if one of its nodes is there.
    #[arg(long)]
    pub resume: bool,
    /// Take in nodes that come after the start for so long [default: until the end].
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub join_window: Option<Duration>,
    /// Keep state, such as this server's key, here [default: slidecast in the XDG state folder].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The server's secret key, as `key new` made it [default: one kept in the state folder].
    #[arg(long, value_name = "F", conflicts_with = "insecure")]
    pub key_file: Option<PathBuf>,
    /// Do without a key: anybody may pose as this server. Agents must be told so, too.
    #[arg(long, conflicts_with = "key_file")]
    pub insecure: bool,
    /// Only machines that are approved take part: those on the list in FILE (a hardware address, serial=S of a disk or key=K of an agent on each
    /// line), or with the word `code` those whose code, shown on their screens, is typed here. May be given several times.
    #[arg(long, value_name = "FILE|code", value_parser = OsStringValueParser::new().map(ApproveBy::from))]
    pub approve: Vec<ApproveBy>,
    /// Boot machines from the network meanwhile, on each --interface: beside its DHCP server (proxy), or give out the addresses of a RANGE such as 10.0.0.100-10.0.0.200. Needs root.
    #[arg(long, value_name = "proxy|RANGE", num_args = 0..=1, require_equals = true, default_missing_value = "proxy", requires = "interface", value_parser = BootMode::from_str)]
    pub boot: Option<BootMode>,
    /// The folder with the boot files, as ./mkimage.sh makes it.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub boot_dir: PathBuf,
    /// Where layers of servers are kept.
    #[command(flatten)]
    pub kept: CacheFlags,
    /// How to show what happens.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressStyle,
    /// Write a report of the deployment to this file when it is over.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    /// The speed of a network card whose own claim is unknown or wrong, such as eth1=10G.
    #[arg(long, value_name = "IF=RATE", value_parser = card_speed)]
    pub card_speed: Vec<CardSpeed>,
}

/// `slidecast boot-server`
#[derive(Debug, Args)]
pub struct BootServer {
    /// The network card on which machines boot.
    #[arg(long, value_name = "IF")]
    pub interface: String,
    /// The folder with the boot files, as ./mkimage.sh makes it.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub dir: PathBuf,
    /// Work beside the DHCP server of the net, which gives out the addresses; this is the default.
    #[arg(long, conflicts_with = "dhcp")]
    pub proxy: bool,
    /// Be the DHCP server of an isolated net and give out these addresses, such as 10.0.0.100-10.0.0.200.
    #[arg(long, value_name = "RANGE", value_parser = DhcpRange::from_str)]
    pub dhcp: Option<DhcpRange>,
    /// The port for boot files over HTTP.
    #[arg(long, value_name = "P", default_value_t = DEFAULT_HTTP_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: u16,
    /// What UEFI machines that boot by PXE load first.
    #[arg(long, value_name = "HOW", default_value = "ipxe")]
    pub uefi: UefiStage,
}

/// The ways of showing progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A live table on a terminal, plain lines elsewhere.
    Auto,
    /// A line for everything that changes.
    Plain,
    /// One JSON object a line, for programs.
    Json,
    /// Nothing.
    None,
}

#[cfg(test)]
mod tests {
    use super::examples::REMOTE_DEPLOY_EXAMPLES;
    use super::*;
    use clap::CommandFactory;

    fn deploy(args: &[&str]) -> Result<Deploy, clap::Error> {
        let args = ["slidecast", "deploy", "a.slide", "--wait-for", "2"].iter().chain(args);
        Cli::try_parse_from(args).map(|cli| match cli.command {
            Command::Deploy(deploy) => *deploy,
            _ => unreachable!("deploy was asked for"),
        })
    }

    fn create(args: &[&str]) -> Result<Create, clap::Error> {
        let args = ["slidecast", "image", "create", "disk", "-o", "a.slide"].iter().chain(args);
        Cli::try_parse_from(args).map(|cli| match cli.command {
            Command::Image(ImageCommand::Create(create)) => create,
            _ => unreachable!("create was asked for"),
        })
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_of_deploy_are_those_of_the_contract() {
        let deploy = deploy(&[]).unwrap();
        assert_eq!((deploy.verify, deploy.free, deploy.then), (Verify::Full, Free::Keep, Then::Hold));
        assert_eq!((deploy.port, deploy.wait_for, deploy.timeout), (7531, 2, None));
        assert!(
            deploy.interface.is_empty()
                && deploy.approve.is_empty()
                && !deploy.insecure
                && !deploy.fresh
                && !deploy.resume
        );
        assert_eq!(deploy.progress, ProgressStyle::Auto);
    }

    #[test]
    fn every_flag_of_deploy_is_understood() {
        let args = "--timeout 5m --interface eth1 --interface eth2 --port 7000 --target serial=X --verify head \
                    --free zero --then reboot --fresh --resume --join-window 1m --state /s --key-file k --progress json --report r.json \
                    --card-speed eth1=10G --approve code --approve room7.txt";
        let deploy = deploy(&args.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!((deploy.verify, deploy.free, deploy.then), (Verify::Head, Free::Zero, Then::Reboot));
        assert_eq!((deploy.timeout, deploy.port), (Some(Duration::from_secs(300)), 7000));
        assert_eq!(deploy.join_window, Some(Duration::from_secs(60)));
        assert!(deploy.resume);
        assert_eq!(deploy.approve, [ApproveBy::Code, ApproveBy::List("room7.txt".into())]);
        assert_eq!(deploy.interface, ["eth1", "eth2"]);
        assert_eq!(deploy.card_speed, [CardSpeed { name: "eth1".to_owned(), mbits: 10_000 }]);
        assert_eq!(deploy.progress, ProgressStyle::Json);
    }

    #[test]
    fn boot_is_a_proxy_unless_it_is_given_a_range() {
        let boot = |value: &str| deploy(&["--interface", "eth1", value]).map(|deploy| deploy.boot);
        assert_eq!(boot("--boot").unwrap(), Some(BootMode::Proxy));
        assert_eq!(boot("--boot=proxy").unwrap(), Some(BootMode::Proxy));
        assert!(matches!(boot("--boot=10.0.0.100-10.0.0.200").unwrap(), Some(BootMode::Dhcp(_))));
        assert!(boot("--boot=maybe").is_err() && boot("--boot=").is_err());
        let error = deploy(&["--boot"]).unwrap_err().to_string();
        assert!(error.contains("--interface"), "{error}");
        assert_eq!(deploy(&[]).unwrap().boot_dir, PathBuf::from("out"));
    }

    #[test]
    fn wrong_values_are_refused() {
        for args in [
            &["--verify", "some"][..],
            &["--target", "colour=red"],
            &["--port", "0"],
            &["--timeout", "soon"],
            &["--key-file", "k", "--insecure"],
            &["--card-speed", "eth1"],
            &["--wait-for", "0"],
        ] {
            assert!(deploy(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn sizes_of_blocks_and_grains_are_powers_of_two_within_limits() {
        let create_ok = create(&["--block-size", "4MiB", "--grain", "64K", "--dedup-run", "1"]).unwrap();
        assert_eq!((create_ok.block_size, create_ok.grain, create_ok.dedup_run), (Some(4 << 20), Some(64 << 10), 1));
        for args in [
            ["--block-size", "32MiB"],
            ["--block-size", "100K"],
            ["--grain", "2K"],
            ["--grain", "x"],
            ["--grain", "-1"],
            ["--dedup-run", "0"],
            ["--dedup-run", "17M"],
        ] {
            assert!(create(&args).is_err(), "{args:?}");
        }
        let error = create(&["--grain", "5000"]).unwrap_err().to_string();
        assert!(error.contains("expected a power of two from 4 KiB to 16 MiB"), "{error}");
    }

    #[test]
    fn codecs_are_understood() {
        assert_eq!(create(&[]).unwrap().codec, Packing::Zstd(3));
        assert_eq!(create(&["--codec", "zstd:19"]).unwrap().codec, Packing::Zstd(19));
        assert_eq!(create(&["--codec", "lz4"]).unwrap().codec, Packing::Lz4);
        assert_eq!(create(&["--codec", "none"]).unwrap().codec, Packing::None);
        for bad in ["zstd:0", "zstd:20", "zstd:x", "gzip", "lz4:1"] {
            assert!(create(&["--codec", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_boot_server_is_a_proxy_unless_it_is_told_a_range() {
        let boot = |args: &[&str]| {
            let args = ["slidecast", "boot-server", "--interface", "eth1"].iter().chain(args);
            Cli::try_parse_from(args).map(|cli| match cli.command {
                Command::BootServer(boot) => boot,
                _ => unreachable!("boot-server was asked for"),
            })
        };
        let default = boot(&[]).unwrap();
        assert_eq!((default.interface.as_str(), default.dhcp, default.http_port), ("eth1", None, 7580));
        assert_eq!((default.dir, default.uefi), (PathBuf::from("out"), UefiStage::Ipxe));
        assert!(boot(&["--proxy"]).unwrap().proxy);
        let range = boot(&["--dhcp", "10.0.0.100-10.0.0.200"]).unwrap().dhcp.unwrap();
        assert_eq!(range.to_string(), "10.0.0.100-10.0.0.200");
        let wrong = boot(&["--dhcp", "10.0.0.100"]).unwrap_err().to_string();
        assert!(wrong.contains("expected two addresses such as 10.0.0.100-10.0.0.200"), "{wrong}");
        for args in [&["--dhcp", "10.0.0.1-10.0.0.2", "--proxy"][..], &["--interface", "eth2"], &["--http-port", "0"]] {
            assert!(boot(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn the_help_of_every_command_has_examples_that_are_understood() {
        fn all(command: &clap::Command, words: &[&str], seen: &mut usize) {
            let help = Cli::try_parse_from(words.iter().chain(&["--help"])).unwrap_err().to_string();
            let examples: Vec<_> = help.lines().skip_while(|line| *line != "Examples:").skip(1).collect();
            let examples: Vec<_> = examples.into_iter().take_while(|line| line.starts_with("  ")).collect();
            assert!(!examples.is_empty(), "{words:?}: {help}");
            let ours = |line: &&&str| line.trim().starts_with("slidecast ");
            for line in examples.iter().filter(ours) {
                let example = line.split(" && ").next().unwrap_or(line).split(" > ").next().unwrap_or(line);
                assert!(Cli::try_parse_from(example.split_whitespace()).is_ok(), "{line}");
                *seen += 1;
            }
            for sub in command.get_subcommands() {
                all(sub, &[words, &[sub.get_name()]].concat(), seen);
            }
        }
        let mut seen = 0;
        all(&Cli::command(), &["slidecast"], &mut seen);
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn no_line_of_the_help_is_wider_than_a_terminal() {
        for line in [EXAMPLES, IMAGE_EXAMPLES, INFO_EXAMPLES, VERIFY_EXAMPLES, CREATE_EXAMPLES, EXPORT_EXAMPLES]
            .into_iter()
            .chain([KEY_EXAMPLES, DEPLOY_EXAMPLES, BOOT_EXAMPLES, SERVE_EXAMPLES, TOKEN_EXAMPLES])
            .chain([COMPLETIONS_EXAMPLES, MAN_EXAMPLES, REMOTE_DEPLOY_EXAMPLES, REMOTE_EXAMPLES])
            .chain(look_examples::ALL)
            .flat_map(str::lines)
        {
            assert!(line.len() <= 100, "{line}");
        }
    }
}
