//! The command line: what may be asked of the agent, and what its exit code says.

use crate::key_file::{read_own_key, read_server_key};
use lexopt::ValueExt;
use slidecast_proto::discovery::DEFAULT_PORT;
use slidecast_proto::noise::{PublicKey, SecretKey};
use slidecast_proto::quantity::{parse_bytes, parse_duration, parse_mbits};
use slidecast_proto::selector::Selector;
use std::ffi::OsString;
use std::fmt::Display;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const MIN_RING: u64 = 4 << 20;
const MAX_RING: u64 = 64 << 30;
const DEFAULT_RING: u64 = 64 << 20;
const DEFAULT_PATIENCE: Duration = Duration::from_secs(120);

const HELP: &str = "\
Writes the image that a SlideCast server sends to the disk of this machine, and passes it on

Usage: slidecast-agent [OPTIONS]

Options:
      --server <HOST[:PORT]>     The server; without it, it is looked for by broadcast
      --interface <IF>           Look for the server on this interface only, and offer only its
                                 addresses; may be repeated
      --target <PATH|SELECTOR>   The only disk that may be written: a path, or a selector such as
                                 serial=S,size=100G..1T; a value with a comma of its own stands in
                                 quotes (\"model='ACME, Inc.*'\") or has \\ before the comma
      --server-key <FILE|HEX>    The server's public key: a file (as `slidecast key new` writes it)
                                 or 64 hexadecimal digits
      --insecure                 Take orders from any server on the network that is insecure too
                                 (for tests)
      --key-file <F>             This agent's own secret key, as `slidecast key new` makes it; a
                                 server may approve agents by its public part. Without one, a new
                                 key is drawn at each start
      --ring <SIZE>              Memory for blocks on their way; never more than a quarter of what
                                 is available [default: 64MiB]
      --once                     Exit after one deployment
      --patience <DUR>           How long a deployment that writes goes on without its server
                                 [default: 120s]
      --link-speed <RATE>        What to tell the server about the speed of the network cards, where
                                 a driver says nothing or something wrong (virtual cards)
      --port <PORT>              The port on which servers are looked for [default: 7531]
  -h, --help                     Print help
  -V, --version                  Print version

Examples:
  slidecast-agent --server-key lab.key.pub
      look for the server on every network, write the only eligible disk
  slidecast-agent --server 10.0.0.1:7531 --server-key lab.key.pub --target serial=WD-1234 --once
      one deployment from this server to this disk, then exit
  slidecast-agent --insecure --interface eth0 --target /tmp/disk.img --once
      a test: any server that is insecure too, a regular file as the disk

Started by the kernel as /init it is the whole machine: docs/BOOT.md says what the kernel
command line may hold.

Exit codes: 0 its own disk is done (or written, where the server asked for no read-back), 1 nothing
was written: stopped, refused or aborted before, 2 wrong usage, 3 a deployment to its disk failed;
the disk stays marked.
";

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Arguments {
    server: Option<String>,
    /// `--interface`: the network cards to look for the server on, and to offer addresses of; empty: all.
    pub(crate) interface: Vec<String>,
    /// `--target`: the only disk that may be written.
    pub(crate) target: Option<Target>,
    /// The agent's own key, from the file that `--key-file` names.
    pub(crate) own_key: Option<SecretKey>,
    /// `--ring`: bytes for blocks on their way, at most.
    pub(crate) ring: u64,
    /// `--once`: exit after one deployment.
    pub(crate) once: bool,
    /// `--patience`: how long a deployment that writes goes on without its server.
    pub(crate) patience: Duration,
    /// `--link-speed`: the speed to tell for every network card, in Mbit/s.
    pub(crate) link_speed: Option<u32>,
    /// `--port`: where servers are looked for.
    pub(crate) port: u16,
}

/// What `--target` said.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The text, as the server is told it.
    pub(crate) text: String,
    /// The same, understood.
    pub(crate) selector: Selector,
}

/// Which server is obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The one with this key.
    Pinned(PublicKey),
    /// Any that is insecure as well.
    Insecure,
}

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Its disk is done, or written where that was asked for.
    Done,
    /// Nothing was written.
    NotStarted,
    /// The command line was wrong.
    Usage,
    /// Writing had begun and did not come to its end.
    Failed,
}

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Help or the version was asked for: the text of it.
    Text(String),
    /// The command line is wrong, and this one line says why.
    Wrong(String),
}

/// The words of a command line, each option at most once unless it may be repeated.
#[derive(Default)]
struct Given {
    server: Option<String>,
    interface: Vec<String>,
    target: Option<Target>,
    server_key: Option<String>,
    insecure: Option<()>,
    key_file: Option<PathBuf>,
    ring: Option<u64>,
    once: Option<()>,
    patience: Option<Duration>,
    link_speed: Option<u32>,
    port: Option<u16>,
}

impl Given {
    fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        use lexopt::Arg::{Long, Short};
        let mut words = lexopt::Parser::from_iter(words);
        let mut given = Self::default();
        while let Some(word) = words.next().map_err(usage)? {
            match word {
                Short('h') | Long("help") => return Err(Stop::Text(HELP.to_owned())),
                Short('V') | Long("version") => {
                    return Err(Stop::Text(format!("slidecast-agent {}\n", env!("CARGO_PKG_VERSION"))));
                }
                Long("server") => once(&mut given.server, "--server", text(&mut words)?)?,
                Long("interface") => given.interface.push(text(&mut words)?),
                Long("target") => {
                    let target = understood(&text(&mut words)?, "--target", parse_target)?;
                    once(&mut given.target, "--target", target)?;
                }
                Long("server-key") => once(&mut given.server_key, "--server-key", text(&mut words)?)?,
                Long("insecure") => once(&mut given.insecure, "--insecure", ())?,
                Long("key-file") => {
                    once(&mut given.key_file, "--key-file", words.value().map_err(usage)?.into())?;
                }
                Long("ring") => once(&mut given.ring, "--ring", understood(&text(&mut words)?, "--ring", parse_ring)?)?,
                Long("once") => once(&mut given.once, "--once", ())?,
                Long("patience") => {
                    let patience = understood(&text(&mut words)?, "--patience", parse_duration)?;
                    once(&mut given.patience, "--patience", patience)?;
                }
                Long("link-speed") => {
                    let speed = understood(&text(&mut words)?, "--link-speed", parse_mbits)?;
                    once(&mut given.link_speed, "--link-speed", speed)?;
                }
                Long("port") => once(&mut given.port, "--port", understood(&text(&mut words)?, "--port", parse_port)?)?,
                other => return Err(usage(other.unexpected())),
            }
        }
        Ok(given)
    }
}

/// Keeps the value of an option that may be given once.
fn once<T>(place: &mut Option<T>, option: &str, value: T) -> Result<(), Stop> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(usage(format!("{option} is given twice"))),
    }
}

fn text(words: &mut lexopt::Parser) -> Result<String, Stop> {
    words.value().and_then(|value| value.string()).map_err(usage)
}

fn understood<T, E: Display>(text: &str, option: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, Stop> {
    parse(text).map_err(|error| usage(format!("{option} {text}: {error}")))
}

fn usage(error: impl Display) -> Stop {
    Stop::Wrong(format!("{error} (--help tells more)"))
}

impl Arguments {
    /// Reads a command line, and the key files that it names. The first word is the program. Gives also which server is obeyed.
    ///
    /// # Errors
    /// Help or the version was asked for, or one line that says what is wrong.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<(Self, Trust), Stop> {
        let given = Given::read(words)?;
        let trust = match (&given.server_key, given.insecure) {
            (Some(_), Some(())) => Err("--server-key and --insecure exclude each other".to_owned()),
            (Some(key), None) => read_server_key(key).map(Trust::Pinned),
            (None, Some(())) if given.key_file.is_some() => {
                Err("--key-file and --insecure exclude each other".to_owned())
            }
            (None, Some(())) => Ok(Trust::Insecure),
            (None, None) => {
                Err("which server to trust? Give --server-key FILE|HEX, or --insecure here and at the server"
                    .to_owned())
            }
        };
        let trust = trust.map_err(Stop::Wrong)?;
        let arguments = Self {
            server: given.server,
            interface: given.interface,
            target: given.target,
            own_key: given.key_file.as_deref().map(read_own_key).transpose().map_err(Stop::Wrong)?,
            ring: given.ring.unwrap_or(DEFAULT_RING),
            once: given.once.is_some(),
            patience: given.patience.unwrap_or(DEFAULT_PATIENCE),
            link_speed: given.link_speed,
            port: given.port.unwrap_or(DEFAULT_PORT),
        };
        arguments.server_name().map_err(Stop::Wrong)?;
        Ok((arguments, trust))
    }

    /// The arguments in these words (the first one is the program), and which server is obeyed.
    ///
    /// # Errors
    /// One line that says what is wrong with them.
    pub(crate) fn understand(words: Vec<String>) -> Result<(Self, Trust), String> {
        Self::parse(words.into_iter().map(OsString::from)).map_err(|stop| match stop {
            Stop::Text(text) | Stop::Wrong(text) => text,
        })
    }

    /// The server's host and port, where `--server` names one.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub(crate) fn server_name(&self) -> Result<Option<(String, u16)>, String> {
        let Some(text) = &self.server else { return Ok(None) };
        let wrong = || format!("--server {text}: expected HOST or HOST:PORT");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Some((address.ip().to_string(), address.port())));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, port.parse().map_err(|_| wrong())?),
            _ => (text.as_str(), self.port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let odd = host.contains(char::is_whitespace) || (host.contains(':') && host.parse::<Ipv6Addr>().is_err());
        if host.is_empty() || odd || port == 0 {
            return Err(wrong());
        }
        Ok(Some((host.to_owned(), port)))
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    // A path may be relative; everything else has a `=`.
    let path = if text.contains('=') { None } else { std::path::absolute(text).ok() };
    let path = path.and_then(|path| path.into_os_string().into_string().ok());
    let selector = Selector::parse(path.as_deref().unwrap_or(text)).map_err(|error| error.to_string())?;
    if selector.is_empty() {
        return Err("expected a path or a selector".to_owned());
    }
    Ok(Target { text: text.to_owned(), selector })
}

fn parse_ring(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    if !(MIN_RING..=MAX_RING).contains(&bytes) {
        return Err("expected 4MiB to 64GiB".to_owned());
    }
    Ok(bytes)
}

fn parse_port(text: &str) -> Result<u16, &'static str> {
    text.parse().ok().filter(|port| *port != 0).ok_or("expected a port, 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee01";

    fn parse(line: &str) -> Result<(Arguments, Trust), Stop> {
        let words = line.split(' ').filter(|word| !word.is_empty());
        Arguments::parse(["slidecast-agent"].into_iter().chain(words).map(OsString::from))
    }

    fn wrong(line: &str) -> String {
        match parse(line) {
            Err(Stop::Wrong(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn without_a_key_and_without_insecure_nothing_runs() {
        let line = wrong("--once");
        assert!(line.contains("--server-key") && line.contains("--insecure"), "{line}");
    }

    #[test]
    fn every_wrong_input_is_one_line() {
        for line in [
            "--no-such-flag",
            "--insecure --ring",
            "--insecure --ring 1",
            "--insecure --ring lots",
            "--insecure --server a:b:c:d",
            "--insecure --server host:notaport",
            "--insecure --server :7531",
            "--insecure --link-speed 0",
            "--insecure --port 0",
            "--insecure --port -1",
            "--insecure --target serial=",
            "--server-key /no/such/file",
            "--server-key 0011",
            "--insecure extra",
            "--insecure=yes",
        ] {
            let text = wrong(line);
            assert!(!text.contains('\n') && !text.is_empty(), "{text}");
        }
        assert!(wrong(&format!("--insecure --server-key {KEY}")).contains("exclude"));
    }

    #[test]
    fn the_server_may_be_a_name_an_address_or_either_with_a_port() {
        let name =
            |text: &str| parse(&format!("--insecure --server {text}")).unwrap().0.server_name().unwrap().unwrap();
        assert_eq!(name("boot"), ("boot".to_owned(), DEFAULT_PORT));
        assert_eq!(name("boot:99"), ("boot".to_owned(), 99));
        assert_eq!(name("10.0.0.1:99"), ("10.0.0.1".to_owned(), 99));
        assert_eq!(name("fe80::1"), ("fe80::1".to_owned(), DEFAULT_PORT));
        assert_eq!(name("[fe80::1]:99"), ("fe80::1".to_owned(), 99));
    }

    #[test]
    fn sizes_and_rates_are_understood() {
        let (arguments, trust) =
            parse("--insecure --ring 16MiB --link-speed 1G --once --interface a --interface b").unwrap();
        assert_eq!((arguments.ring, arguments.link_speed, arguments.once), (16 << 20, Some(1000), true));
        assert_eq!(arguments.interface, ["a", "b"]);
        assert_eq!(trust, Trust::Insecure);
    }

    #[test]
    fn an_option_is_given_once_unless_it_may_be_repeated() {
        for line in ["--insecure --insecure", "--insecure --port 1 --port 2", "--insecure --once --once"] {
            assert!(wrong(line).contains("is given twice"), "{line}");
        }
    }

    #[test]
    fn a_value_may_stand_behind_an_equals_sign() {
        let (arguments, _) = parse("--insecure --server=boot:99 --ring=8MiB --target=serial=S,size=1G..2G").unwrap();
        assert_eq!(arguments.server_name().unwrap().unwrap(), ("boot".to_owned(), 99));
        assert_eq!((arguments.ring, arguments.target.unwrap().text), (8 << 20, "serial=S,size=1G..2G".to_owned()));
    }

    #[test]
    fn a_key_of_the_agents_own_is_of_no_use_without_a_pinned_server() {
        assert!(wrong("--insecure --key-file pc7").contains("exclude each other"));
        assert!(wrong(&format!("--server-key {KEY} --key-file /no/such/file")).contains("/no/such/file"));
        assert!(parse(&format!("--server-key {KEY}")).unwrap().0.own_key.is_none());
    }

    #[test]
    fn help_has_examples_and_exit_codes_and_names_every_option() {
        let Err(Stop::Text(help)) = parse("--help") else { panic!() };
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "no line is wider than a terminal");
        assert!(help.contains(&format!("[default: {DEFAULT_PORT}]")));
        let named = include_str!("cli.rs").split("Long(\"").skip(1).filter_map(|rest| rest.split('"').next());
        for option in named.filter(|option| !option.contains('\\')) {
            assert!(help.contains(&format!("--{option}")), "{option}");
        }
        assert_eq!(parse("-h").unwrap_err(), Stop::Text(help));
    }
}
