//! The command line: what may be asked of the agent, and what its exit code says.

use crate::error::AgentError;
use crate::target::plain;
use crate::{agent, boot, cards, logging};
use clap::Parser;
use clap::error::ErrorKind;
use slidecast_proto::discovery::DEFAULT_PORT;
use slidecast_proto::noise::{KeyError, PUBLIC_TAG, PublicKey, SecretKey};
use slidecast_proto::quantity::{parse_bytes, parse_duration, parse_mbits};
use slidecast_proto::selector::Selector;
use std::ffi::OsString;
use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const RING_MIN: u64 = 4 << 20;
const RING_MAX: u64 = 64 << 30;
/// A key file is one line; whatever is longer is none.
const LONGEST_KEY: u64 = 256;

const EXAMPLES: &str = "\
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
the disk stays marked.";

/// What the command line says.
#[derive(Debug, Parser)]
#[command(
    name = "slidecast-agent",
    version,
    max_term_width = 100,
    allow_negative_numbers = true,
    about = "Writes the image that a SlideCast server sends to the disk of this machine, and passes it on",
    after_help = EXAMPLES
)]
pub struct Arguments {
    /// The server; without it, it is looked for by broadcast
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,

    /// Look for the server on this interface only, and offer only its addresses; may be repeated
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,

    /// The only disk that may be written: a path, or a selector such as serial=S,size=100G..1T; a value
    /// with a comma of its own stands in quotes ("model='ACME, Inc.*'") or has \ before the comma
    #[arg(long, value_name = "PATH|SELECTOR", value_parser = parse_target)]
    pub target: Option<Target>,

    /// The server's public key: a file (as `slidecast key new` writes it) or 64 hexadecimal digits
    #[arg(long, value_name = "FILE|HEX")]
    server_key: Option<String>,

    /// Take orders from any server on the network that is insecure too (for tests)
    #[arg(long)]
    insecure: bool,

    /// This agent's own secret key, as `slidecast key new` makes it; a server may approve agents by
    /// its public part. Without one, a new key is drawn at each start
    #[arg(long, value_name = "F", conflicts_with = "insecure")]
    key_file: Option<PathBuf>,

    /// The key in that file
    #[arg(skip)]
    pub own_key: Option<SecretKey>,

    /// Memory for blocks on their way; never more than a quarter of what is available
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_ring)]
    pub ring: u64,

    /// Exit after one deployment
    #[arg(long)]
    pub once: bool,

    /// How long a deployment that writes goes on without its server
    #[arg(long, value_name = "DUR", default_value = "120s", value_parser = parse_duration)]
    pub patience: Duration,

    /// What to tell the server about the speed of the network cards, where a driver says nothing or
    /// something wrong (virtual cards)
    #[arg(long, value_name = "RATE", value_parser = parse_mbits)]
    pub link_speed: Option<u32>,

    /// The port on which servers are looked for
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
}

/// What `--target` said.
#[derive(Clone, Debug)]
pub struct Target {
    /// The text, as the server is told it.
    pub text: String,
    /// The same, understood.
    pub selector: Selector,
}

/// Which server is obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The one with this key.
    Pinned(PublicKey),
    /// Any that is insecure as well.
    Insecure,
}

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its disk is done, or written where that was asked for.
    Done,
    /// Nothing was written.
    NotStarted,
    /// The command line was wrong.
    Usage,
    /// Writing had begun and did not come to its end.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::NotStarted => 1,
            Exit::Usage => 2,
            Exit::Failed => 3,
        })
    }
}

/// Runs the agent with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    boot::run(&arguments).unwrap_or_else(|| run(arguments).into())
}

/// Runs the agent with these arguments.
fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let (arguments, trust) = match understand(arguments) {
        Ok(understood) => understood,
        Err(Stop::Text(text)) => {
            let _ = text.print();
            return Exit::Done;
        }
        Err(Stop::Wrong(line)) => {
            eprintln!("slidecast-agent: {line}");
            return Exit::Usage;
        }
    };
    // Later on a card may come and go; one that is not there at the start is a wrong name.
    if let Err(error @ AgentError::NoSuchInterface { .. }) = cards::interfaces(&arguments.interface) {
        eprintln!("slidecast-agent: {error}");
        return Exit::Usage;
    }
    let lines = logging::start();
    match agent::run(&arguments, &trust, lines, None) {
        Ok(ending) => ending.exit,
        Err(error) => {
            log::error!("{error}");
            if matches!(error, AgentError::NoSuchInterface { .. }) { Exit::Usage } else { Exit::NotStarted }
        }
    }
}

/// Why there is nothing to run.
#[derive(Debug)]
enum Stop {
    /// Help or the version was asked for.
    Text(clap::Error),
    /// The command line is wrong, and this one line says why.
    Wrong(String),
}

/// Parses the command line, and reads the key file if one is named.
fn understand(arguments: impl IntoIterator<Item = OsString>) -> Result<(Arguments, Trust), Stop> {
    let mut arguments = Arguments::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Text(error),
        _ => Stop::Wrong(one_line(&error.to_string())),
    })?;
    let trust = match (&arguments.server_key, arguments.insecure) {
        (Some(_), true) => Err("--server-key and --insecure exclude each other".to_owned()),
        (Some(key), false) => read_key(key).map(Trust::Pinned),
        (None, true) => Ok(Trust::Insecure),
        (None, false) => {
            Err("which server to trust? Give --server-key FILE|HEX, or --insecure here and at the server".to_owned())
        }
    };
    let trust = trust.map_err(Stop::Wrong)?;
    arguments.server_name().map_err(Stop::Wrong)?;
    arguments.own_key = arguments.key_file.as_deref().map(read_own_key).transpose().map_err(Stop::Wrong)?;
    Ok((arguments, trust))
}

/// The first paragraph of clap's message, as one line.
fn one_line(text: &str) -> String {
    let paragraph: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let line = paragraph.join(" ");
    format!("{} (--help tells more)", line.strip_prefix("error: ").unwrap_or(&line))
}

impl Arguments {
    /// The arguments in these words (the first one is the program), and whom to trust.
    ///
    /// # Errors
    /// One line that says what is wrong with them.
    pub(crate) fn understand(words: Vec<String>) -> Result<(Self, Trust), String> {
        understand(words.into_iter().map(OsString::from)).map_err(|stop| match stop {
            Stop::Text(text) => text.to_string(),
            Stop::Wrong(line) => line,
        })
    }

    /// The server's host and port, where `--server` names one.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn server_name(&self) -> Result<Option<(String, u16)>, String> {
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

/// A server key given as digits, or as the file that holds them. A secret key is refused: it has no business here. Files of
/// older versions do not say which half they hold; where a file of the same name with `.pub` stands beside and holds another
/// key, the named one is the secret.
fn read_key(text: &str) -> Result<PublicKey, String> {
    match text.parse() {
        Ok(key) => return Ok(key),
        // What was typed is not told again.
        Err(KeyError::Secret) => return Err(format!("--server-key: {}", KeyError::Secret)),
        Err(_) => {}
    }
    let (path, public) = (Path::new(text), PathBuf::from(format!("{text}.pub")));
    let path = if !path.exists() && public.exists() { public.as_path() } else { path };
    let wrong = |error: &dyn std::fmt::Display| format!("--server-key {}: {error}", path.display());
    let content = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let secret = || format!("--server-key {text}: {}: {text}.pub", KeyError::Secret);
    let key = content.trim().parse().map_err(|error| match error {
        KeyError::Secret if public.exists() => secret(),
        KeyError::Secret => wrong(&KeyError::Secret),
        _ => wrong(&"no public key; expected one line of 64 hexadecimal digits"),
    })?;
    let beside = std::fs::read_to_string(&public).ok().and_then(|content| content.trim().parse::<PublicKey>().ok());
    if path != public && !content.trim().starts_with(PUBLIC_TAG) && beside.is_some_and(|beside| beside != key) {
        return Err(secret());
    }
    Ok(key)
}

fn read_own_key(path: &Path) -> Result<SecretKey, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("--key-file {}: {what}", path.display());
    let mut text = zeroize::Zeroizing::new(String::new());
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(LONGEST_KEY).read_to_string(&mut text));
    read.map_err(|error| wrong(&plain(&error)))?;
    text.trim().parse().map_err(|error: KeyError| wrong(&error))
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
    if !(RING_MIN..=RING_MAX).contains(&bytes) {
        return Err("expected 4MiB to 64GiB".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee01";

    fn parse(line: &str) -> Result<(Arguments, Trust), Stop> {
        let words = line.split(' ').filter(|word| !word.is_empty());
        understand(["slidecast-agent"].into_iter().chain(words).map(OsString::from))
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
        assert_eq!(run(["slidecast-agent"].map(OsString::from)), Exit::Usage);
    }

    #[test]
    fn a_card_that_is_not_there_is_a_wrong_name_before_any_server_is_found() {
        let words = ["slidecast-agent", "--insecure", "--server", "192.0.2.1", "--interface", "no-such-card"];
        assert_eq!(run(words.map(OsString::from)), Exit::Usage);
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
        ] {
            let text = wrong(line);
            assert!(!text.contains('\n') && !text.is_empty(), "{text}");
        }
        assert!(wrong(&format!("--insecure --server-key {KEY}")).contains("exclude"));
    }

    #[test]
    fn a_key_is_taken_as_digits_or_as_a_file_with_or_without_its_tag() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("old.pub"), format!("{KEY}\n")).unwrap();
        std::fs::write(path("new.pub"), format!("slidecast-public-key-v1:{KEY}\n")).unwrap();
        let pinned = Trust::Pinned(KEY.parse().unwrap());
        let tagged = format!("slidecast-public-key-v1:{KEY}");
        for text in [KEY.to_owned(), tagged, path("old.pub"), path("new.pub"), path("new")] {
            assert_eq!(parse(&format!("--server-key {text}")).unwrap().1, pinned, "{text}");
        }
    }

    #[test]
    fn a_secret_key_is_refused_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let secret = "ff".repeat(32);
        std::fs::write(path("old"), format!("{secret}\n")).unwrap();
        std::fs::write(path("old.pub"), format!("{KEY}\n")).unwrap();
        for name in ["new", "alone"] {
            std::fs::write(path(name), format!("slidecast-secret-key-v1:{secret}\n")).unwrap();
        }
        std::fs::write(path("new.pub"), format!("slidecast-public-key-v1:{KEY}\n")).unwrap();
        for text in [path("old"), path("new"), path("alone"), format!("slidecast-secret-key-v1:{secret}")] {
            let line = wrong(&format!("--server-key {text}"));
            assert!(line.contains("secret key") && !line.contains(&secret), "{line}");
        }
        assert!(wrong(&format!("--server-key {}", path("new"))).ends_with("new.pub"));
    }

    #[test]
    fn an_agent_may_have_a_key_of_its_own_and_that_is_a_secret_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let secret = SecretKey::generate().unwrap();
        std::fs::write(path("pc7"), format!("{}\n", *secret.to_line())).unwrap();
        std::fs::write(path("pc7.pub"), format!("{}\n", secret.public().to_line())).unwrap();
        let own = |name: &str| format!("--server-key {KEY} --key-file {}", path(name));
        assert_eq!(parse(&own("pc7")).unwrap().0.own_key, Some(secret));
        assert_eq!(parse(&format!("--server-key {KEY}")).unwrap().0.own_key, None);
        assert!(wrong(&own("pc7.pub")).ends_with("pc7.pub: this is a public key; the secret one is meant"));
        assert!(wrong(&own("none")).contains("No such file"));
        wrong(&format!("--insecure --key-file {}", path("pc7")));
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
    fn help_has_examples_and_exit_codes() {
        let Err(Stop::Text(help)) = parse("--help") else { panic!() };
        let help = help.to_string();
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
        assert!(EXAMPLES.lines().all(|line| line.len() <= 100), "no line is wider than a terminal");
    }
}
