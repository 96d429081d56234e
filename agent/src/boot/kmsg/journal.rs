//! What of the kernel's words matters here, how much of it is said, and what explains a failed disk.

use super::record::Record;
use std::collections::VecDeque;

/// Errors and worse, and warnings, by their level.
const ALERT: u32 = 2;
const WARNING: u32 = 4;
/// How many records are remembered.
const KEPT: usize = 64;
/// How many lines may be said at once, and the time in which one more may be.
const BURST: u64 = 20;
const PER_LINE: u64 = 1_000_000;
/// How old a record may be that explains a failure: a minute, in microseconds.
const RECENT: u64 = 60_000_000;
/// How many records explain a failure.
const REASONS: usize = 3;
/// How long they may be together, in bytes.
const EXPLANATION: usize = 400;
/// Subsystems of disks and cards.
const SUBSYSTEMS: [&str; 10] =
    ["block", "scsi", "nvme", "ata_port", "ata_link", "ata_device", "mmc", "virtio", "net", "edac"];
/// What stands in lines about disks, cards, machine checks and memory. Most such lines name no device for programs.
const WORDS: [&str; 19] = [
    "i/o error",
    "blk_update_request",
    "critical medium error",
    "critical target error",
    "nvme",
    "ahci",
    "failed command",
    "usb-storage",
    "uas_eh",
    "mmcblk",
    "xhci",
    "aer:",
    "netdev watchdog",
    "link is down",
    "hardware error",
    "mce:",
    "edac",
    "out of memory",
    "memory failure",
];

/// The memory of what the kernel said, and the rate at which it is passed on. Times are microseconds since the machine was
/// started, as in the records.
#[derive(Debug)]
pub(super) struct Journal {
    kept: VecDeque<Record>,
    /// How many lines may still be said at once, and since when one more is being earned.
    allowed: u64,
    earning_since: u64,
    unsaid: u64,
}

/// A line to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// The level of its record.
    pub(super) level: u32,
}

impl Default for Journal {
    fn default() -> Self {
        Self { kept: VecDeque::new(), allowed: BURST, earning_since: 0, unsaid: 0 }
    }
}

impl Journal {
    /// Takes a record; gives the line to say, if it matters and there were not too many.
    pub(super) fn take(&mut self, record: Record, now: u64) -> Option<Line> {
        if !matters(&record) {
            return None;
        }
        let text = self.may_say(now).then(|| match std::mem::take(&mut self.unsaid) {
            0 => format!("kernel: {}", record.text),
            more => format!("kernel: {} ({more} lines before it were left out)", record.text),
        });
        let line = text.map(|text| Line { text, level: record.level });
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(record);
        line
    }

    /// The kernel overwrote records before they were read.
    pub(super) fn on_overrun(&mut self) {
        self.unsaid += 1;
    }

    fn may_say(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.earning_since) / PER_LINE;
        if earned > 0 {
            self.allowed = self.allowed.saturating_add(earned).min(BURST);
            self.earning_since = now;
        }
        if self.allowed == 0 {
            self.unsaid += 1;
            return false;
        }
        self.allowed -= 1;
        true
    }

    /// The last words of the last minute about any of these devices, oldest first, for the end of a line.
    pub(super) fn explain(&self, devices: &[String], now: u64) -> Option<String> {
        let recent = |record: &&Record| now.saturating_sub(record.microseconds) <= RECENT;
        let about = |record: &&Record| devices.iter().any(|device| names(record, device));
        let mut lines: Vec<&str> = Vec::new();
        for record in self.kept.iter().rev().filter(recent).filter(about) {
            let used: usize = lines.iter().map(|line| line.len() + 2).sum();
            if lines.len() == REASONS || used + record.text.len() > EXPLANATION {
                break;
            }
            if !lines.contains(&record.text.as_str()) {
                lines.push(&record.text);
            }
        }
        lines.reverse();
        (!lines.is_empty()).then(|| format!("the kernel: {}", lines.join("; ")))
    }
}

/// Errors and warnings of the kernel itself about disks, cards, machine checks and memory; whatever is worse than an error.
fn matters(record: &Record) -> bool {
    if record.facility != 0 || record.level > WARNING || record.text.is_empty() {
        return false;
    }
    let text = record.text.to_ascii_lowercase();
    record.level <= ALERT
        || SUBSYSTEMS.contains(&record.subsystem.as_str())
        || WORDS.iter().any(|word| text.contains(word))
        || begins_with_ata(&text)
}

/// `ata7: ..`, `ata7.00: ..`: libata names its ports so.
fn begins_with_ata(text: &str) -> bool {
    text.strip_prefix("ata").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether a record is about the device of this name, or a partition of it.
fn names(record: &Record, device: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let in_text = |text: &str| {
        text.match_indices(device).any(|(at, _)| {
            let (before, after) = (text[..at].chars().next_back(), &text[at + device.len()..]);
            // The partitions of sda are sda1 and so on, those of nvme0n1 are nvme0n1p1.
            let after = match device.ends_with(|c: char| c.is_ascii_digit()) {
                true => strip_partition(after),
                false => after.trim_start_matches(|c: char| c.is_ascii_digit()),
            };
            !before.is_some_and(is_part) && !after.starts_with(is_part)
        })
    };
    in_text(&record.text) || in_text(&record.device)
}

/// What follows `p1` of `nvme0n1p1`.
fn strip_partition(after: &str) -> &str {
    let digits = after.strip_prefix('p').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    digits.map_or(after, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The names under which the kernel speaks of a disk: its own, and those of what it hangs on, from the folder that
/// `/sys/block/NAME` leads to.
pub(super) fn device_names(disk: &str, folder: &str) -> Vec<String> {
    let is_name = |part: &&str| {
        let general = ["devices", "block", "platform", "virtual", "nvme", "scsi", "..", "."].contains(part);
        let numbered = ["pci", "host", "target", "usb"].iter().any(|word| part.starts_with(word));
        part.len() > 2 && !general && !numbered && part.contains(|c: char| c.is_ascii_digit())
    };
    let mut names: Vec<String> = folder.split('/').filter(is_name).map(str::to_owned).collect();
    names.push(disk.to_owned());
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;
    use proptest::prelude::*;

    fn said(level: u32, text: &str, at: u64) -> Record {
        record(format!("{level},1,{at},-;{text}\n").as_bytes())
    }

    fn takes(level: u32, text: &str) -> bool {
        Journal::default().take(said(level, text, 0), 0).is_some()
    }

    #[test]
    fn errors_and_warnings_about_disks_cards_memory_and_machine_checks_matter() {
        for text in [
            "I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
            "Buffer I/O error on dev sda1, logical block 0, lost sync page write",
            "nvme nvme0: I/O 12 QID 3 timeout, aborting",
            "ata7.00: exception Emask 0x0 SAct 0x0 SErr 0x0 action 0x6 frozen",
            "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out",
            "mce: [Hardware Error]: Machine check events logged",
            "EDAC MC0: 1 CE memory read error on CPU_SrcID#0",
            "Out of memory: Killed process 77 (slidecast-worke)",
        ] {
            assert!(takes(3, text) && takes(4, text), "{text}");
            assert!(!takes(6, text), "of less weight: {text}");
        }
        let line = Journal::default().take(said(3, "I/O error, dev vda", 0), 0).unwrap();
        assert_eq!(line, Line { text: "kernel: I/O error, dev vda".to_owned(), level: 3 });
        assert!(!takes(3, "tpm tpm0: A TPM error (6) occurred"));
        assert!(takes(2, "anything that is worse than an error"));
        assert!(!takes(8 + 3, "I/O error, written by a program"));
        let device = record(b"3,1,2,-;swapper: page allocation\n SUBSYSTEM=net\n DEVICE=n2\n");
        assert!(Journal::default().take(device, 0).is_some());
    }

    #[test]
    fn a_flood_is_cut_to_a_line_a_second_and_counted() {
        let mut journal = Journal::default();
        let mut say = |now: u64| journal.take(said(3, "I/O error, dev vda", now), now);
        let lines = (0..1000).filter_map(|_| say(0)).count();
        assert_eq!(lines, usize::try_from(BURST).unwrap());
        assert_eq!(say(PER_LINE - 1), None);
        assert!(say(PER_LINE).unwrap().text.contains("981 lines before it were left out"));
        assert_eq!(say(PER_LINE), None);
        assert_eq!((0..100).filter_map(|_| say(100 * PER_LINE)).count(), usize::try_from(BURST).unwrap());
        assert_eq!(journal.kept.len(), KEPT);
    }

    #[test]
    fn a_failed_disk_is_explained_by_the_last_minutes_words_about_it() {
        let mut journal = Journal::default();
        let minute = 60_000_000;
        for (text, at) in [
            ("I/O error, dev vda, sector 1", 0),
            ("I/O error, dev vdab, sector 2", 2 * minute),
            ("Buffer I/O error on dev vda1, logical block 0", 2 * minute),
            ("I/O error, dev vda, sector 3", 2 * minute),
            ("I/O error, dev vda, sector 3", 2 * minute),
        ] {
            journal.take(said(3, text, at), at);
        }
        let explanation = journal.explain(&["vda".to_owned()], 2 * minute + 5).unwrap();
        assert_eq!(
            explanation,
            "the kernel: Buffer I/O error on dev vda1, logical block 0; I/O error, dev vda, sector 3"
        );
        assert_eq!(journal.explain(&["vdb".to_owned()], 2 * minute), None);
        assert_eq!(journal.explain(&["vda".to_owned()], 4 * minute), None);
    }

    #[test]
    fn a_disk_is_known_by_the_names_of_what_it_hangs_on() {
        let folder = "../devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";
        let names = device_names("sda", folder);
        assert_eq!(names, ["0000:00:1f.2", "ata1", "0:0:0:0", "sda"]);
        let about = |text: &str| names.iter().any(|name| super::names(&said(3, text, 0), name));
        for text in
            ["ata1.00: failed command", "ata1: hard resetting link", "sd 0:0:0:0: [sda] abort", "ahci 0000:00:1f.2: x"]
        {
            assert!(about(text), "{text}");
        }
        assert!(about("dev sda12,") && !about("ata10: x") && !about("dev sdab") && !about("10:0:0:0: x"));
        let names = device_names("nvme0n1", "../devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1");
        assert_eq!(names, ["0000:01:00.0", "nvme0", "nvme0n1"]);
        let about = |text: &str| names.iter().any(|name| super::names(&said(3, text, 0), name));
        assert!(about("nvme nvme0: I/O 3 QID 1 timeout, aborting") && about("dev nvme0n1p2,"));
        assert!(!about("nvme nvme10: x") && !about("dev nvme1n1,"));
    }

    proptest! {
        #[test]
        fn no_words_make_it_panic(text in "\\PC{0,80}", name in "[a-z0-9:]{1,4}") {
            let mut journal = Journal::default();
            journal.take(said(2, &text, 0), 0);
            let _ = journal.explain(&[name], 0);
        }
    }
}
