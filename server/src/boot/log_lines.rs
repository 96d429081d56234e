//! What dnsmasq says, turned into events.
//!
//! Lines look like `dnsmasq-dhcp[313]: 554040207 vendor class: PXEClient:Arch:00000:UNDI:002001`. The number is the
//! transaction's; what belongs together comes in several lines with the same one.

use super::event::{Architecture, BootEvent, Firmware, Mac, Protocol};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Transactions that are remembered.
const TALKS: usize = 128;
/// Machines whose last question is remembered.
const ASKERS: usize = 512;
/// Architectures without boot files that are told. The registry knows some forty; a stranger may invent the others.
const UNSERVED: usize = 48;
/// The same question from the same machine within so long is told once.
const AGAIN: Duration = Duration::from_secs(10);

/// What a line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// dnsmasq has its ports and runs.
    Started,
    /// Something to tell. A file's size is not in the line: `Fetched` comes with 0.
    Event(BootEvent),
    /// Nothing that matters to people.
    Nothing,
}

#[derive(Debug)]
struct Talk {
    id: u32,
    architecture: Option<Architecture>,
    firmware: Option<Firmware>,
    ipxe: bool,
}

/// Remembers what is needed to understand the next line.
#[derive(Debug, Default)]
pub(super) struct LogReader {
    talks: VecDeque<Talk>,
    asked: VecDeque<(Mac, Firmware, Instant)>,
    unserved: Vec<Architecture>,
}

impl LogReader {
    /// Takes a line, heard at `now`.
    pub(super) fn on_line(&mut self, line: &str, now: Instant) -> Said {
        let Some((who, text)) = line.trim().strip_prefix("dnsmasq").and_then(|rest| rest.split_once(": ")) else {
            return Said::Nothing;
        };
        match who.split('[').next() {
            Some("") if text.starts_with("started, version") => Said::Started,
            Some("-dhcp") => self.on_dhcp(text, now).map_or(Said::Nothing, Said::Event),
            Some("-tftp") => tftp(text).map_or(Said::Nothing, Said::Event),
            _ => Said::Nothing,
        }
    }

    fn on_dhcp(&mut self, text: &str, now: Instant) -> Option<BootEvent> {
        let (id, text) = text.split_once(' ')?;
        let id = id.parse().ok()?;
        if let Some(class) = text.strip_prefix("vendor class: ") {
            // The first line about a question; some firmware numbers all its questions 0.
            let talk = self.talk(id);
            (talk.architecture, talk.firmware, talk.ipxe) = (architecture(class), firmware(class), false);
            return None;
        }
        if text == "user class: iPXE" {
            self.talk(id).ipxe = true;
            return None;
        }
        let mut words = text.split_whitespace();
        let verb = words.next()?.split('(').next()?;
        let (mut first, mut address) = (words.next()?, None);
        if let Ok(known) = first.parse::<Ipv4Addr>() {
            (address, first) = (Some(known).filter(|known| !known.is_unspecified()), words.next()?);
        }
        let mac = Mac::parse(first)?;
        let said = words.collect::<Vec<_>>().join(" ");
        match verb {
            "PXE" if said == "proxy-ignored" => self.unserved(id, mac),
            "DHCPACK" | "PXE" => self.asked(id, mac, address, now),
            "DHCPDISCOVER" if said == "no address available" => {
                Some(BootEvent::Trouble(format!("{mac} gets no address: all of the range are given out")))
            }
            _ => None,
        }
    }

    fn talk(&mut self, id: u32) -> &mut Talk {
        if let Some(at) = self.talks.iter().position(|talk| talk.id == id) {
            return &mut self.talks[at];
        }
        if self.talks.len() == TALKS {
            self.talks.pop_back();
        }
        self.talks.push_front(Talk { id, architecture: None, firmware: None, ipxe: false });
        &mut self.talks[0]
    }

    fn asked(&mut self, id: u32, mac: Mac, address: Option<Ipv4Addr>, now: Instant) -> Option<BootEvent> {
        let talk = self.talks.iter().find(|talk| talk.id == id)?;
        let firmware = talk.firmware?;
        let firmware = if talk.ipxe { Firmware::Ipxe } else { firmware };
        let recent = |when: &Instant| now.saturating_duration_since(*when) < AGAIN;
        if self.asked.iter().any(|(other, with, when)| *other == mac && *with == firmware && recent(when)) {
            return None;
        }
        self.asked.retain(|(other, with, _)| *other != mac || *with != firmware);
        self.asked.truncate(ASKERS - 1);
        self.asked.push_front((mac, firmware, now));
        Some(BootEvent::Asked { mac, address, firmware })
    }

    /// A question that dnsmasq was told not to answer: news only if it is the first of its architecture.
    fn unserved(&mut self, id: u32, mac: Mac) -> Option<BootEvent> {
        let talk = self.talks.iter().find(|talk| talk.id == id)?;
        let architecture = talk.architecture?;
        if self.unserved.contains(&architecture) || self.unserved.len() == UNSERVED {
            return None;
        }
        self.unserved.push(architecture);
        Some(BootEvent::Unserved { mac, architecture })
    }
}

/// The architecture in a vendor class such as `PXEClient:Arch:00007:UNDI:003016`.
fn architecture(class: &str) -> Option<Architecture> {
    let mut parts = class.split(':').skip(1);
    match (parts.next(), parts.next()) {
        (Some("Arch"), Some(number)) => number.parse().ok().map(Architecture),
        _ => None,
    }
}

/// What asks, by its vendor class; none: no machine that wants to boot.
fn firmware(class: &str) -> Option<Firmware> {
    let architecture = architecture(class)?;
    match (class.split(':').next()?, architecture.0) {
        ("PXEClient", 0) => Some(Firmware::Bios),
        ("PXEClient", 7 | 9) => Some(Firmware::Uefi),
        ("HTTPClient", 16) => Some(Firmware::UefiHttp),
        ("PXEClient" | "HTTPClient", _) => Some(Firmware::Other(architecture)),
        _ => None,
    }
}

/// `sent PATH to ADDRESS`, `failed sending PATH to ADDRESS`.
fn tftp(text: &str) -> Option<BootEvent> {
    let (whole, rest) = match text.strip_prefix("sent ") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("failed sending ")?),
    };
    let (path, address) = rest.rsplit_once(" to ")?;
    let file = path.rsplit('/').next()?.to_owned();
    let address = address.parse().ok()?;
    Some(BootEvent::Fetched { mac: None, address, file, bytes: 0, over: Protocol::Tftp, whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x99, 0xaa, 7]);

    fn events(reader: &mut LogReader, lines: &str, now: Instant) -> Vec<BootEvent> {
        let said = lines.lines().map(|line| reader.on_line(line, now));
        said.filter_map(|said| if let Said::Event(event) = said { Some(event) } else { None }).collect()
    }

    const FULL: &str = "dnsmasq-dhcp[32356]: 1232601195 available DHCP range: 10.99.0.100 -- 10.99.0.200
dnsmasq-dhcp[32356]: 1232601195 vendor class: PXEClient:Arch:00007:UNDI:003001
dnsmasq-dhcp[32356]: 1232601195 DHCPREQUEST(e0) 10.99.0.190 52:54:00:99:aa:07 
dnsmasq-dhcp[32356]: 1232601195 tags: uefi, e0
dnsmasq-dhcp[32356]: 1232601195 DHCPACK(e0) 10.99.0.190 52:54:00:99:aa:07 
dnsmasq-dhcp[32356]: 1232601195 requested options: 1:netmask, 3:router, 43:vendor-encap, 60:vendor-class, 
";

    const PROXY: &str = "dnsmasq-dhcp[313]: 2878900116 available DHCP subnet: 10.99.0.0/255.255.255.0
dnsmasq-dhcp[313]: 2878900116 vendor class: HTTPClient:Arch:00016:UNDI:003001
dnsmasq-dhcp[313]: 2878900116 PXE(e0) 52:54:00:99:aa:07 proxy
dnsmasq-dhcp[313]: 92229399 vendor class: PXEClient:Arch:00007:UNDI:003001
dnsmasq-dhcp[313]: 92229399 user class: iPXE
dnsmasq-dhcp[313]: 92229399 PXE(e0) 10.99.0.5 52:54:00:99:aa:07 boot.ipxe
";

    #[test]
    fn a_question_is_told_once_with_address_and_firmware() {
        let (mut reader, now) = (LogReader::default(), Instant::now());
        let asked = BootEvent::Asked { mac: MAC, address: Some([10, 99, 0, 190].into()), firmware: Firmware::Uefi };
        assert_eq!(events(&mut reader, FULL, now), std::slice::from_ref(&asked));
        assert_eq!(events(&mut reader, FULL, now + Duration::from_secs(9)), []);
        assert_eq!(events(&mut reader, FULL, now + Duration::from_secs(20)), [asked]);
    }

    #[test]
    fn questions_to_a_proxy_are_understood() {
        let told = events(&mut LogReader::default(), PROXY, Instant::now());
        let http = BootEvent::Asked { mac: MAC, address: None, firmware: Firmware::UefiHttp };
        let ipxe = BootEvent::Asked { mac: MAC, address: Some([10, 99, 0, 5].into()), firmware: Firmware::Ipxe };
        assert_eq!(told, [http, ipxe]);
    }

    #[test]
    fn an_architecture_without_boot_files_is_told_once() {
        let mut reader = LogReader::default();
        let question = |id: u32, arch: u16| {
            format!(
                "dnsmasq-dhcp[1]: {id} vendor class: PXEClient:Arch:{arch:05}:UNDI:003001\n\
                 dnsmasq-dhcp[1]: {id} PXE(e0) {MAC} proxy-ignored"
            )
        };
        let told = |arch| vec![BootEvent::Unserved { mac: MAC, architecture: Architecture(arch) }];
        let now = Instant::now();
        assert_eq!(events(&mut reader, &question(1, 11), now), told(11));
        assert_eq!(events(&mut reader, &question(2, 11), now + Duration::from_secs(3600)), []);
        assert_eq!(events(&mut reader, &question(3, 6), now), told(6));
        let invented: usize = (100..60_000).map(|arch| events(&mut reader, &question(4, arch), now).len()).sum();
        assert_eq!(invented, UNSERVED - 2, "a stranger's numbers fill no log");
        // Firmware that does not say what it is has nothing to be told about.
        let silent =
            "dnsmasq-dhcp[1]: 5 vendor class: PXEClient\ndnsmasq-dhcp[1]: 5 PXE(e0) 52:54:00:99:aa:07 proxy-ignored";
        assert_eq!(events(&mut reader, silent, now), []);
    }

    #[test]
    fn machines_that_do_not_boot_are_of_no_interest() {
        let lines = "dnsmasq-dhcp[1]: 5 vendor class: dhcpcd-9\ndnsmasq-dhcp[1]: 5 DHCPACK(e0) 10.0.0.9 52:54:00:99:aa:07\n\
                     dnsmasq-dhcp[1]: 6 DHCPACK(e0) 10.0.0.9 52:54:00:99:aa:07";
        assert_eq!(events(&mut LogReader::default(), lines, Instant::now()), []);
    }

    #[test]
    fn an_empty_range_is_told() {
        let lines = "dnsmasq-dhcp[1]: 5 DHCPDISCOVER(e0) 52:54:00:99:aa:07 no address available";
        let told = events(&mut LogReader::default(), lines, Instant::now());
        assert!(matches!(&told[..], [BootEvent::Trouble(text)] if text.contains("52:54:00:99:aa:07")), "{told:?}");
    }

    #[test]
    fn files_over_tftp_are_told() {
        let lines = "dnsmasq-tftp[3]: sent /tmp/b to c/tftp/snponly.efi to 10.0.0.9\n\
                     dnsmasq-tftp[3]: failed sending /tmp/tftp/snponly.efi to 10.0.0.9\n\
                     dnsmasq-tftp[3]: file /tmp/bsx/tftp/nope not found for 10.99.0.9";
        let told: Vec<_> =
            events(&mut LogReader::default(), lines, Instant::now()).iter().map(ToString::to_string).collect();
        let expected =
            ["10.0.0.9 fetched snponly.efi (0 B over TFTP)", "10.0.0.9 broke off fetching snponly.efi (0 B over TFTP)"];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_start_is_heard_and_noise_is_not() {
        let mut reader = LogReader::default();
        let mut say = |line: &str| reader.on_line(line, Instant::now());
        assert_eq!(say("dnsmasq[313]: started, version 2.90 DNS disabled"), Said::Started);
        assert_eq!(say("dnsmasq: started, version 2.90 DNS disabled"), Said::Started);
        for noise in [
            "",
            "dnsmasq",
            "dnsmasq-dhcp[1]: 99999999999 vendor class: PXEClient:Arch:00000",
            "x: y",
            "dnsmasq-dhcp: 1 PXE",
        ] {
            assert_eq!(say(noise), Said::Nothing, "{noise}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut reader, now) = (LogReader::default(), Instant::now());
        for id in 0..2000_u32 {
            let mac = Mac([2, 0, 0, 0, id.to_be_bytes()[2], id.to_be_bytes()[3]]);
            let lines =
                format!("dnsmasq-dhcp: {id} vendor class: PXEClient:Arch:00000\ndnsmasq-dhcp: {id} PXE(e) {mac} proxy");
            assert_eq!(events(&mut reader, &lines, now).len(), 1);
        }
        assert_eq!((reader.talks.len(), reader.asked.len()), (TALKS, ASKERS));
    }
}
