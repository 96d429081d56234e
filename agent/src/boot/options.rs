//! The kernel command line: what the boot medium or the boot server tells the agent.
//!
//! Words of ours restrict what may be written. One that is not understood might have been such a restriction, so it is a
//! [`Fault`], and a machine with a fault writes nothing. `BOOTIF=` and `ip=` restrict nothing: they choose cards and addresses,
//! and where they make no sense that is said and DHCP is used.

use super::dhcp::default_prefix;
use super::line::{Word, shown, words};
use crate::cli::Trust;
use slidecast_proto::hex;
use slidecast_proto::noise::KeyError;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// A kernel cuts longer lines without a word (`COMMAND_LINE_SIZE` of x86-64 and arm64, less the NUL at the end).
const MAX_LINE: usize = 2047;
/// What all words of ours begin with.
const OURS: &str = "slidecast.";
/// The words that restrict which disk is written and which server is obeyed. If one of them stands in the middle of another word, a space before it is missing.
const RESTRICTING: [&str; 3] = ["target", "server", "key"];

/// The options on the line, and what was not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `slidecast.server=`: HOST or HOST:PORT.
    pub(crate) server: Option<String>,
    /// `slidecast.key=`: the server's public key, or `insecure`.
    pub(crate) trust: Option<Trust>,
    /// `slidecast.target=`: the only disk that may be written.
    pub(crate) target: Option<String>,
    /// `slidecast.attended=1`: somebody is there to answer.
    pub(crate) attended: bool,
    /// `slidecast.shell=1`: somebody at the machine may have a shell.
    pub(crate) shell: bool,
    /// `BOOTIF=`: the card that the machine was booted from.
    pub(crate) boot_card: Option<[u8; 6]>,
    /// `ip=`.
    pub(crate) ip: Ip,
    /// One line for each word that is not understood and restricts nothing.
    pub(crate) complaints: Vec<String>,
    /// Reasons why the machine must not write anything.
    pub(crate) faults: Vec<Fault>,
}

/// Something on the line that may have been a restriction, and was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The word, and what is wrong with it.
    pub(crate) text: String,
    /// The server that the line names, or its key, may be what was not understood: no server may be talked to.
    pub(crate) hides_server: bool,
}

/// Where addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ip {
    /// DHCP on every card; link-local where nobody answers.
    #[default]
    Dhcp,
    /// No DHCP: link-local on every card.
    LinkLocal,
    /// One card has this address, the others use DHCP.
    Static(Static),
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Static {
    /// The card; without it the one that the machine was booted from, or else the first with a cable.
    pub(crate) card: Option<String>,
    pub(crate) address: Ipv4Addr,
    /// How many bits of it are the network.
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) host_name: Option<String>,
    pub(crate) dns: Vec<Ipv4Addr>,
}

impl Options {
    /// Reads the whole line. Words of others are ignored; a word of ours that is not understood is a fault.
    pub(crate) fn parse(line: &[u8]) -> Self {
        let mut options = Self::default();
        let mut seen = BTreeSet::new();
        if line.trim_ascii_end().len() >= MAX_LINE {
            let text = format!("it has {MAX_LINE} bytes or more: the kernel may have cut it; make it shorter");
            options.faults.push(Fault { text, hides_server: true });
        }
        for word in words(line) {
            options.take(&word, &mut seen);
        }
        options
    }

    /// The options of a machine on which the line cannot be read.
    pub(crate) fn unread(why: &str) -> Self {
        let fault = Fault { text: format!("reading /proc/cmdline: {why}"), hides_server: true };
        Self { faults: vec![fault], ..Self::default() }
    }

    fn take(&mut self, word: &Word, seen: &mut BTreeSet<String>) {
        if let Some(what) = structure(word) {
            return self.faults.push(Fault { text: format!("{}: {what}", word.shown()), hides_server: true });
        }
        let name = String::from_utf8_lossy(&word.name);
        let name = name.as_ref();
        let value = word.value.as_deref().map(str::from_utf8);
        match name {
            "BOOTIF" | "ip" => {
                let value = value.and_then(Result::ok).ok_or_else(|| "not valid UTF-8".to_owned());
                let taken = match value {
                    Ok(value) => self.take_network(name, value),
                    Err(wrong) => Err(format!("{}: {wrong}", word.shown())),
                };
                self.complaints.extend(taken.err());
            }
            _ if is_ours(name, word.value.is_some()) => {
                let taken = match value {
                    Some(Err(_)) => Err(format!("{}: the value is not UTF-8", word.shown())),
                    _ if !seen.insert(name.to_owned()) => {
                        Err(format!("{}: {} is given twice", word.shown(), shown(&word.name)))
                    }
                    value => self.take_ours(name, value.and_then(Result::ok)),
                };
                if let Err(text) = taken {
                    let hides_server = ["slidecast.server", "slidecast.key"].contains(&name);
                    self.faults.push(Fault { text, hides_server });
                }
            }
            _ => {}
        }
    }

    fn take_network(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name == "ip" {
            self.ip = ip(value)?;
            return Ok(());
        }
        let wrong = || format!("BOOTIF={}: not a hardware address", shown(value.as_bytes()));
        self.boot_card = Some(hardware_address(value).ok_or_else(wrong)?);
        Ok(())
    }

    fn take_ours(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let given = value.filter(|value| !value.is_empty());
        let needed = |what: &str| given.map(str::to_owned).ok_or_else(|| format!("{name}=: empty; expected {what}"));
        match name {
            "slidecast.server" => self.server = Some(needed("HOST or HOST:PORT")?),
            "slidecast.key" => self.trust = Some(trust(&needed("a public key")?)?),
            "slidecast.target" => self.target = Some(needed("a disk's path or a selector")?),
            "slidecast.attended" => self.attended = switch(name, value)?,
            "slidecast.shell" => self.shell = switch(name, value)?,
            _ => return Err(format!("{}: no such option", shown(name.as_bytes()))),
        }
        Ok(())
    }
}

/// Whether a word is one of ours, or was meant to be.
fn is_ours(name: &str, has_value: bool) -> bool {
    let lower = name.to_ascii_lowercase();
    // Loaders hand the name of the file over as the first word.
    let is_file = !has_value && lower.ends_with(".efi");
    let is_like = has_value && lower.starts_with("slidecast");
    (lower.starts_with(OURS) && !is_file) || is_like
}

/// What is wrong with how a word is put together: it may have swallowed others.
fn structure(word: &Word) -> Option<String> {
    if word.open {
        return Some("the quote is not closed".to_owned());
    }
    let is_ours = word.name.to_ascii_lowercase().starts_with(OURS.as_bytes());
    let hidden = RESTRICTING.iter().find(|name| word.hides(&format!("{OURS}{name}=")));
    if let Some(name) = hidden {
        return Some(format!("{OURS}{name}= stands within another word; a space before it is missing"));
    }
    // A beginning that is misspelt or missing. No word of the kernel's own ends like this.
    let alike = ["target", "server"].into_iter().find(|name| {
        let is_bare = word.value.is_some() && word.name.eq_ignore_ascii_case(name.as_bytes());
        !is_ours && (is_bare || word.holds(&format!(".{name}=")))
    });
    alike.map(|name| format!("no such option; {OURS}{name} may be meant"))
}

fn switch(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "yes" | "on" | "true") => Ok(true),
        Some("0" | "no" | "off" | "false") => Ok(false),
        Some(other) => Err(format!("{name}={}: expected 1 or 0", shown(other.as_bytes()))),
    }
}

fn trust(text: &str) -> Result<Trust, String> {
    if text == "insecure" {
        return Ok(Trust::Insecure);
    }
    // What stands there may be a secret: it is not shown.
    text.parse().map(Trust::Pinned).map_err(|error: KeyError| format!("slidecast.key: {error}"))
}

/// `01-aa-bb-cc-dd-ee-ff`, where the first two digits are the kind of hardware and may be missing; `:` is as good.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(['-', ':']).map(|byte| hex::parse(byte).map(|[byte]| byte)).collect();
    match bytes?.as_slice() {
        [_, address @ ..] if address.len() == 6 => address.try_into().ok(),
        address => address.try_into().ok(),
    }
}

/// As in the kernel's own documentation (admin-guide/nfs/nfsroot), and `CARD:dhcp` besides.
fn ip(text: &str) -> Result<Ip, String> {
    let shown = |text: &str| shown(text.as_bytes());
    let wrong = |what: &str| format!("ip={}: {what}", shown(text));
    let fields: Vec<&str> = text.split(':').collect();
    let field = |at: usize| fields.get(at).copied().filter(|field| !field.is_empty());
    let is_auto = |word: &str| matches!(word, "dhcp" | "on" | "any" | "both" | "bootp");
    match fields[..] {
        ["off" | "none"] => return Ok(Ip::LinkLocal),
        [only] if only.is_empty() || is_auto(only) => return Ok(Ip::Dhcp),
        [_, how] if is_auto(how) => return Ok(Ip::Dhcp),
        _ => {}
    }
    let Some(first) = field(0) else {
        return match field(6) {
            Some("off" | "none") => Ok(Ip::LinkLocal),
            None => Ok(Ip::Dhcp),
            Some(how) if is_auto(how) => Ok(Ip::Dhcp),
            Some(how) => Err(wrong(&format!("{} is not a known method of address configuration", shown(how)))),
        };
    };
    let address =
        |text: &str| text.parse::<Ipv4Addr>().map_err(|_| wrong(&format!("{} is not an IPv4 address", shown(text))));
    let own = address(first)?;
    let prefix = match field(3) {
        None => default_prefix(own),
        Some(mask) => prefix(mask).ok_or_else(|| wrong(&format!("{} is not a network mask", shown(mask))))?,
    };
    let dns = [field(7), field(8)].into_iter().flatten().map(address).collect::<Result<_, _>>()?;
    Ok(Ip::Static(Static {
        card: field(5).map(str::to_owned),
        address: own,
        prefix,
        gateway: field(2).map(address).transpose()?.filter(|gateway| !gateway.is_unspecified()),
        host_name: field(4).map(str::to_owned),
        dns,
    }))
}

/// `255.255.255.0` or `24`.
fn prefix(mask: &str) -> Option<u8> {
    if let Ok(bits) = mask.parse::<u8>() {
        return (1..=32).contains(&bits).then_some(bits);
    }
    let bits = mask.parse::<Ipv4Addr>().ok()?.to_bits();
    let whole = bits != 0 && bits.leading_ones() + bits.trailing_zeros() == 32;
    u8::try_from(bits.leading_ones()).ok().filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddee01";

    fn parse(line: &str) -> Options {
        Options::parse(line.as_bytes())
    }

    fn complaint(line: &str) -> String {
        let options = parse(line);
        assert_eq!((options.complaints.len(), options.faults.len()), (1, 0), "{line}: {options:?}");
        options.complaints[0].clone()
    }

    fn fault(line: &[u8]) -> Fault {
        let options = Options::parse(line);
        assert_eq!((options.complaints.len(), options.faults.len()), (0, 1), "{options:?}");
        options.faults[0].clone()
    }

    #[test]
    fn what_is_ours_is_taken_and_the_rest_left_alone() {
        let line = format!(
            "slidecast.efi BOOT_IMAGE=/slidecast/vmlinuz initrd=slidecast.img console=ttyS0,115200 quiet rd.shell=0 \
             slidecast.server=10.0.0.1:7531 slidecast.key={KEY} slidecast.target=\"model=ACME Fast*\" \
             slidecast.attended=1 BOOTIF=01-52-54-00-AA-bb-01 panic=10\n"
        );
        let options = parse(&line);
        assert_eq!(options.server.as_deref(), Some("10.0.0.1:7531"));
        assert_eq!(options.trust, Some(Trust::Pinned(KEY.parse().unwrap())));
        assert_eq!(options.target.as_deref(), Some("model=ACME Fast*"));
        assert!(options.attended && !options.shell);
        assert_eq!(options.boot_card, Some([0x52, 0x54, 0, 0xaa, 0xbb, 1]));
        assert_eq!((options.complaints, options.faults), (vec![], vec![]));
        assert_eq!(parse("slidecast.key=insecure").trust, Some(Trust::Insecure));
        assert_eq!(parse(""), Options::default());
    }

    #[test]
    fn what_makes_no_sense_is_named_and_never_means_less_safety() {
        for (line, named) in [
            (&b"slidecast.key=0011"[..], "slidecast.key: a key has 64 hexadecimal digits"),
            (b"slidecast.keys=insecure", "slidecast.keys: no such option"),
            (b"slidecast.key=", "slidecast.key=: empty"),
            (b"slidecast.target=", "slidecast.target=: empty"),
            (b"slidecast.target", "slidecast.target=: empty"),
            (b"slidecast.targets=serial=NOPE", "slidecast.targets: no such option"),
            (b"SlideCast.Target=serial=NOPE", "SlideCast.Target"),
            (b"slidecast-target=serial=NOPE", "slidecast-target"),
            (b"slidcast.target=serial=NOPE", "slidecast.target may be meant"),
            (b"target=serial=NOPE", "slidecast.target may be meant"),
            (b"slidecast.target=serial=\xff", "serial=\\xff: the value is not UTF-8"),
            (b"slidecast.t\xffrget=serial=NOPE", "no such option"),
            (b"slidecast.target=serial=A slidecast.target=serial=A", "slidecast.target is given twice"),
            (b"quiet foo=\"a b slidecast.target=serial=NOPE", "quote is not closed"),
            (b"slidecast.target=\"serial=NOPE", "quote is not closed"),
            (b"quiet\xc2\xa0slidecast.target=serial=NOPE", "within another word"),
            (b"quiet,slidecast.target=serial=NOPE", "within another word"),
            (b"slidecast.shell=perhaps", "perhaps"),
            (b"slidecast.shell=", "slidecast.shell"),
        ] {
            let fault = fault(line);
            assert!(fault.text.contains(named), "{fault:?}");
        }
        let secret = fault(format!("slidecast.key=slidecast-secret-key-v1:{KEY}").as_bytes());
        assert!(secret.text.contains("secret key") && !secret.text.contains(KEY), "{secret:?}");
        assert!(parse(&format!("slidecast.key=slidecast-public-key-v1:{KEY}")).trust.is_some());
        assert!(complaint("BOOTIF=01-52-54").contains("BOOTIF"));
        assert_eq!(parse("slidecast.key=Insecure").trust, None);
        assert!(!parse("slidecast.shell=perhaps").shell);
    }

    #[test]
    fn other_words_may_hold_any_bytes() {
        let options = Options::parse(b"name=\xff\xfe \xff slidecast.target=serial=NOPE root=\xe4");
        assert_eq!((options.target.as_deref(), options.faults.len()), (Some("serial=NOPE"), 0));
        let odd = Options::parse(b"ip=\xff BOOTIF=\xff slidecast.attended");
        assert_eq!((odd.complaints.len(), odd.faults.len(), odd.attended), (2, 0, true));
        assert_eq!((odd.ip, odd.boot_card), (Ip::Dhcp, None));
    }

    #[test]
    fn a_line_that_may_have_been_cut_and_one_that_cannot_be_read_are_faults() {
        let long = |bytes: usize| Options::parse(&[&vec![b'a'; bytes][..], b"\n"].concat()).faults;
        assert_eq!(long(MAX_LINE - 1), vec![]);
        assert!(long(MAX_LINE)[0].hides_server);
        assert!(Options::unread("Permission denied").faults[0].text.contains("Permission denied"));
    }

    #[test]
    fn a_server_is_told_only_where_its_name_and_key_are_understood() {
        assert!(!fault(b"slidecast.targets=serial=A").hides_server);
        assert!(!fault(b"slidecast.target=").hides_server);
        for line in [&b"slidecast.server="[..], b"slidecast.key=00", b"a=\"b", b"a,slidecast.server=10.0.0.1"] {
            assert!(fault(line).hides_server);
        }
    }

    #[test]
    fn switches_need_no_value() {
        assert!(parse("slidecast.shell").shell);
        assert!(!parse("slidecast.shell=0").shell);
    }

    #[test]
    fn an_address_can_be_given_as_the_kernel_takes_it() {
        let Ip::Static(full) = parse("ip=10.0.0.9::10.0.0.1:255.255.255.0:node-9:eth1:off:10.0.0.2").ip else {
            panic!()
        };
        assert_eq!((full.address, full.prefix), (Ipv4Addr::new(10, 0, 0, 9), 24));
        assert_eq!((full.card.as_deref(), full.host_name.as_deref()), (Some("eth1"), Some("node-9")));
        assert_eq!((full.gateway, full.dns.len()), (Some(Ipv4Addr::new(10, 0, 0, 1)), 1));
        // As PXELINUX adds it.
        let Ip::Static(short) = parse("ip=10.0.0.9:10.0.0.1:10.0.0.254:255.0.0.0").ip else { panic!() };
        assert_eq!((short.prefix, short.card), (8, None));
        let Ip::Static(least) = parse("ip=192.168.1.9").ip else { panic!() };
        assert_eq!((least.prefix, least.gateway), (24, None));
    }

    #[test]
    fn dhcp_has_many_names() {
        for text in ["ip=dhcp", "ip=on", "ip=any", "ip=eth0:dhcp", "ip=:::::eth0:dhcp", "ip=", "quiet"] {
            assert_eq!(parse(text).ip, Ip::Dhcp, "{text}");
        }
        assert_eq!(parse("ip=off").ip, Ip::LinkLocal);
        assert_eq!(parse("ip=:::::eth0:off").ip, Ip::LinkLocal);
    }

    #[test]
    fn a_wrong_address_is_named_and_dhcp_used() {
        assert!(complaint("ip=10.0.0.300").contains("10.0.0.300"));
        assert!(complaint("ip=10.0.0.3:::255.0.255.0").contains("255.0.255.0"));
        assert!(complaint("ip=10.0.0.3:::0").contains("mask"));
        assert!(complaint("ip=:::::eth0:magic").contains("magic"));
        assert_eq!(parse("ip=10.0.0.300").ip, Ip::Dhcp);
    }

    const TARGET: &[u8] = b"slidecast.target=serial=S1";

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Options::parse(&line);
        }

        #[test]
        fn nothing_that_is_said_of_a_line_acts_on_a_terminal(rubbish in proptest::collection::vec(any::<u8>(), 0..20)) {
            for word in [&b"ip="[..], b"ip=10.0.0.9:::", b"BOOTIF=", b"slidecast.attended=", b"slidecast.shell=1 slidecast."] {
                let line = [word, &rubbish, b" ", word, &rubbish].concat();
                let options = Options::parse(&line);
                let faults = options.faults.iter().map(|fault| &fault.text);
                prop_assert!(options.complaints.iter().chain(faults).all(|text| !text.contains(char::is_control)));
            }
        }

        #[test]
        fn no_address_makes_the_parser_panic(text in "[0-9:a-z./]{0,40}") {
            let _ = parse(&format!("ip={text} BOOTIF={text}"));
        }

        #[test]
        fn whatever_stands_around_a_restriction_it_holds_or_the_machine_is_held(
            before in proptest::collection::vec(any::<u8>(), 0..60),
            after in proptest::collection::vec(any::<u8>(), 0..60),
            space in proptest::sample::select(&b" \t\n\x0b\x0c\r"[..]),
        ) {
            let options = Options::parse(&[&before[..], &[space], TARGET, &[space], &after].concat());
            prop_assert!(options.target.as_deref() == Some("serial=S1") || !options.faults.is_empty(), "{options:?}");
        }
    }

    #[test]
    fn no_single_wrong_byte_takes_a_restriction_away() {
        let right = [&b"quiet "[..], TARGET, b" panic=5"].concat();
        for (at, byte) in (0..right.len()).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut line = right.clone();
            line[at] = byte;
            let options = Options::parse(&line);
            assert!(options.target.is_some() || !options.faults.is_empty(), "{}: {options:?}", line.escape_ascii());
        }
    }
}
