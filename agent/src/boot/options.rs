//! The kernel command line: what the boot medium or the boot server tells the agent.

use super::dhcp::default_prefix;
use crate::cli::Trust;
use nom::branch::alt;
use nom::bytes::complete::{is_not, tag, take_till};
use nom::character::complete::multispace0;
use nom::combinator::{map, opt};
use nom::multi::{many0, many1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};
use std::net::Ipv4Addr;

/// What was asked for, and what could not be understood.
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
    /// One line for each thing that makes no sense.
    pub(crate) complaints: Vec<String>,
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
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// How many bits of it are the network.
    pub(crate) prefix: u8,
    /// Where what is for elsewhere is sent.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// What the machine is called.
    pub(crate) host_name: Option<String>,
    /// Servers of names.
    pub(crate) dns: Vec<Ipv4Addr>,
}

impl Options {
    /// Reads the whole line. What is not ours is left alone; what is and makes no sense is complained of.
    pub(crate) fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for (name, value) in words(line) {
            if let Err(wrong) = options.take(&name, value.as_deref()) {
                options.complaints.push(wrong);
            }
        }
        options
    }

    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let given = value.filter(|value| !value.is_empty());
        let needed = |what: &str| given.map(str::to_owned).ok_or_else(|| format!("{name}: expected {what}"));
        match name {
            "slidecast.server" => self.server = Some(needed("HOST or HOST:PORT")?),
            "slidecast.key" => self.trust = Some(trust(&needed("a public key")?)?),
            "slidecast.target" => self.target = Some(needed("a disk's path or a selector")?),
            "slidecast.attended" => self.attended = switch(name, value)?,
            "slidecast.shell" => self.shell = switch(name, value)?,
            "BOOTIF" => {
                let text = needed("a hardware address")?;
                self.boot_card =
                    Some(hardware_address(&text).ok_or_else(|| format!("BOOTIF={text}: no hardware address"))?);
            }
            "ip" => self.ip = ip(given.unwrap_or_default())?,
            _ if name.starts_with("slidecast.") => return Err(format!("{name}: no such option")),
            _ => {}
        }
        Ok(())
    }
}

/// The words of the line, each cut at its first `=`. Quotes keep spaces inside, as for the kernel itself.
fn words(line: &str) -> Vec<(String, Option<String>)> {
    // Whatever the text, each word takes at least one character of it.
    let parsed = preceded(multispace0, many0(terminated(word, multispace0))).parse(line);
    let words = parsed.map(|(_, words): (&str, Vec<String>)| words).unwrap_or_default();
    let cut = |word: String| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word, None),
    };
    words.into_iter().map(cut).collect()
}

fn word(input: &str) -> IResult<&str, String> {
    let quoted = delimited(tag("\""), take_till(|c| c == '"'), opt(tag("\"")));
    let plain = is_not("\" \t\r\n");
    map(many1(alt((quoted, plain))), |pieces: Vec<&str>| pieces.concat()).parse(input)
}

fn switch(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "yes" | "on" | "true") => Ok(true),
        Some("0" | "no" | "off" | "false") => Ok(false),
        Some(other) => Err(format!("{name}={other}: expected 1 or 0")),
    }
}

fn trust(text: &str) -> Result<Trust, String> {
    if text == "insecure" {
        return Ok(Trust::Insecure);
    }
    text.parse().map(Trust::Pinned).map_err(|_| format!("slidecast.key={text}: expected 64 hexadecimal digits"))
}

/// `01-aa-bb-cc-dd-ee-ff`, where the first two digits are the kind of hardware and may be missing; `:` is as good.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(['-', ':'])
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2 && !byte.starts_with('+')))
        .collect();
    match bytes?.as_slice() {
        [_, address @ ..] if address.len() == 6 => address.try_into().ok(),
        address => address.try_into().ok(),
    }
}

/// As in the kernel's own documentation (admin-guide/nfs/nfsroot), and `CARD:dhcp` besides.
fn ip(text: &str) -> Result<Ip, String> {
    let wrong = |what: &str| format!("ip={text}: {what}");
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
            Some(how) => Err(wrong(&format!("{how} is no way to get an address"))),
        };
    };
    let address = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| wrong(&format!("{text} is no IPv4 address")));
    let own = address(first)?;
    let prefix = match field(3) {
        None => default_prefix(own),
        Some(mask) => prefix(mask).ok_or_else(|| wrong(&format!("{mask} is no network mask")))?,
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

    fn complaint(line: &str) -> String {
        let options = Options::parse(line);
        assert_eq!(options.complaints.len(), 1, "{line}: {options:?}");
        options.complaints[0].clone()
    }

    #[test]
    fn what_is_ours_is_taken_and_the_rest_left_alone() {
        let line = format!(
            "BOOT_IMAGE=vmlinuz console=ttyS0,115200 quiet slidecast.server=10.0.0.1:7531 slidecast.key={KEY} \
             slidecast.target=\"model=ACME Fast*\" slidecast.attended=1 BOOTIF=01-52-54-00-AA-bb-01 panic=10\n"
        );
        let options = Options::parse(&line);
        assert_eq!(options.server.as_deref(), Some("10.0.0.1:7531"));
        assert_eq!(options.trust, Some(Trust::Pinned(KEY.parse().unwrap())));
        assert_eq!(options.target.as_deref(), Some("model=ACME Fast*"));
        assert!(options.attended && !options.shell);
        assert_eq!(options.boot_card, Some([0x52, 0x54, 0, 0xaa, 0xbb, 1]));
        assert_eq!(options.complaints, Vec::<String>::new());
        assert_eq!(Options::parse("slidecast.key=insecure").trust, Some(Trust::Insecure));
        assert_eq!(Options::parse(""), Options::default());
    }

    #[test]
    fn what_makes_no_sense_is_named_and_never_means_less_safety() {
        assert!(complaint("slidecast.key=0011").contains("slidecast.key=0011"));
        assert!(complaint("slidecast.keys=insecure").contains("no such option"));
        assert!(complaint("slidecast.key=").contains("slidecast.key"));
        assert!(complaint("slidecast.shell=perhaps").contains("perhaps"));
        assert!(complaint("BOOTIF=01-52-54").contains("BOOTIF"));
        assert_eq!(Options::parse("slidecast.key=Insecure").trust, None);
        assert!(!Options::parse("slidecast.shell=perhaps").shell);
    }

    #[test]
    fn switches_need_no_value() {
        assert!(Options::parse("slidecast.shell").shell);
        assert!(!Options::parse("slidecast.shell=0").shell);
    }

    #[test]
    fn an_address_can_be_given_as_the_kernel_takes_it() {
        let Ip::Static(full) = Options::parse("ip=10.0.0.9::10.0.0.1:255.255.255.0:node-9:eth1:off:10.0.0.2").ip else {
            panic!()
        };
        assert_eq!((full.address, full.prefix), (Ipv4Addr::new(10, 0, 0, 9), 24));
        assert_eq!((full.card.as_deref(), full.host_name.as_deref()), (Some("eth1"), Some("node-9")));
        assert_eq!((full.gateway, full.dns.len()), (Some(Ipv4Addr::new(10, 0, 0, 1)), 1));
        // As PXELINUX adds it.
        let Ip::Static(short) = Options::parse("ip=10.0.0.9:10.0.0.1:10.0.0.254:255.0.0.0").ip else { panic!() };
        assert_eq!((short.prefix, short.card), (8, None));
        let Ip::Static(least) = Options::parse("ip=192.168.1.9").ip else { panic!() };
        assert_eq!((least.prefix, least.gateway), (24, None));
    }

    #[test]
    fn dhcp_has_many_names() {
        for text in ["ip=dhcp", "ip=on", "ip=any", "ip=eth0:dhcp", "ip=:::::eth0:dhcp", "ip=", "quiet"] {
            assert_eq!(Options::parse(text).ip, Ip::Dhcp, "{text}");
        }
        assert_eq!(Options::parse("ip=off").ip, Ip::LinkLocal);
        assert_eq!(Options::parse("ip=:::::eth0:off").ip, Ip::LinkLocal);
    }

    #[test]
    fn a_wrong_address_is_named_and_dhcp_used() {
        assert!(complaint("ip=10.0.0.300").contains("10.0.0.300"));
        assert!(complaint("ip=10.0.0.3:::255.0.255.0").contains("255.0.255.0"));
        assert!(complaint("ip=10.0.0.3:::0").contains("mask"));
        assert!(complaint("ip=:::::eth0:magic").contains("magic"));
        assert_eq!(Options::parse("ip=10.0.0.300").ip, Ip::Dhcp);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in "\\PC*") {
            let _ = Options::parse(&line);
        }

        #[test]
        fn no_address_makes_the_parser_panic(text in "[0-9:a-z./]{0,40}") {
            let _ = Options::parse(&format!("ip={text} BOOTIF={text}"));
        }

        #[test]
        fn words_are_what_stands_between_spaces(pieces in proptest::collection::vec("[a-z.=0-9]{1,8}", 0..8)) {
            let whole: Vec<_> = words(&pieces.join("  ")).into_iter().map(|(name, value)| match value {
                Some(value) => format!("{name}={value}"),
                None => name,
            }).collect();
            prop_assert_eq!(whole, pieces);
        }
    }
}
