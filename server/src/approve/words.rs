//! Those that wait for approval, as people and programs are told of them.

use crate::shown::shown;
use slidecast_proto::approval::{Caller, Held, Identity};
use slidecast_proto::units::Time;
use std::net::IpAddr;
use std::time::Duration;

/// Agents that are told of at once; after that, one each [`EVERY`]. Strangers must not fill a log.
const BURST: u32 = 100;
const EVERY: Duration = Duration::from_secs(1);
/// Hardware addresses and serials of one machine that are told.
const TOLD: usize = 4;

/// One that waits. Every text has been made fit to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnapprovedView {
    /// Its host name, if it has one.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The server's card that it hangs on.
    pub interface: String,
    /// The code on its screen.
    pub code: Option<String>,
    /// Why it is not let in.
    pub why: String,
    /// Hardware addresses of its cards.
    pub hardware: Vec<String>,
    /// Serial numbers of its disks.
    pub serials: Vec<String>,
    /// The key of its agent; none with `--insecure`.
    pub key: Option<String>,
}

impl UnapprovedView {
    /// One that waits.
    pub(crate) fn of(held: &Held) -> Self {
        let Caller { hello, key, address, card, .. } = &held.caller;
        let macs = hello.cards.iter().map(|card| card.mac).filter(|mac| *mac != [0; 6]);
        let serials = hello.disks.iter().map(|disk| disk.serial.trim()).filter(|serial| !serial.is_empty());
        Self {
            name: shown(&hello.hostname),
            address: *address,
            interface: card.0.clone(),
            code: held.code.map(|code| code.to_string()),
            why: shown(&held.why()),
            hardware: macs.take(TOLD).map(|mac| Identity::Mac(mac).to_string()).collect(),
            serials: serials.take(TOLD).map(shown).collect(),
            key: key.map(|key| key.to_string()),
        }
    }

    /// The line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { name, address, interface, .. } = self;
        let who = if name.is_empty() { address.to_string() } else { format!("{name} ({address})") };
        match &self.code {
            Some(code) => {
                format!("{who} on {interface} waits for approval, code {code}: type it here if that machine shows it")
            }
            None => {
                let serials = self.serials.iter().map(|serial| format!("serial={serial}"));
                let known: Vec<_> = self.hardware.iter().cloned().chain(serials).collect();
                let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
                format!("{who} on {interface} waits for approval: {}{known}", self.why)
            }
        }
    }
}

/// How to name an agent to a person.
pub(crate) fn describe(caller: &Caller) -> String {
    let name = shown(&caller.hello.hostname);
    if name.is_empty() { caller.address.to_string() } else { format!("{name} ({})", caller.address) }
}

/// How many of those that wait are told of.
#[derive(Debug)]
pub(crate) struct Telling {
    tokens: u32,
    filled: Time,
    left_out: u64,
}

impl Telling {
    pub(crate) fn new(now: Time) -> Self {
        Self { tokens: BURST, filled: now, left_out: 0 }
    }

    /// Whether one more is told of, and if so how many were not since the last one that was.
    pub(crate) fn one(&mut self, now: Time) -> Option<u64> {
        let more = now.since(self.filled).as_secs() / EVERY.as_secs();
        if more > 0 {
            self.tokens = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(self.tokens).min(BURST);
            self.filled = now;
        }
        if self.tokens == 0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> UnapprovedView {
        UnapprovedView {
            name: "pc7".to_owned(),
            address: [10, 0, 0, 7].into(),
            interface: "eth1".to_owned(),
            code: None,
            why: "it is not on the list".to_owned(),
            hardware: vec!["52:54:00:00:00:07".to_owned()],
            serials: vec!["S1".to_owned()],
            key: None,
        }
    }

    #[test]
    fn the_line_says_who_waits_and_what_to_do() {
        let expected =
            "pc7 (10.0.0.7) on eth1 waits for approval: it is not on the list (52:54:00:00:00:07, serial=S1)";
        assert_eq!(view().line(), expected);
        let by_code = UnapprovedView { name: String::new(), code: Some("ABC234".to_owned()), ..view() };
        let expected = "10.0.0.7 on eth1 waits for approval, code ABC234: type it here if that machine shows it";
        assert_eq!(by_code.line(), expected);
    }

    #[test]
    fn a_flood_of_strangers_is_told_of_in_few_lines() {
        let start = Time(1);
        let mut telling = Telling::new(start);
        let told = (0..10_000).filter(|_| telling.one(start).is_some()).count();
        assert_eq!(told, 100);
        assert_eq!(telling.one(start.after(Duration::from_secs(1))), Some(9_900));
        assert_eq!(telling.one(start.after(Duration::from_secs(1))), None);
    }
}
