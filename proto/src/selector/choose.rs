//! The choice of the one disk, and the refusals.

use super::Selector;
use crate::control::{Disk, Held};
use crate::reason::Reason;
use core::fmt;

/// Why a node has no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The facts behind it in one line, for people: which disks, and what about them.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Refusal {}

/// The one disk among `disks` that both selectors allow and that can take an image of `disk_bytes` with logical sectors
/// of `sector` bytes.
///
/// A regular file counts only if the agent's own selector names its path.
///
/// # Errors
/// [`Refusal`]: no disk is what was asked for, more than one is, or the one that is may not be written.
pub fn choose(
    disks: &[Disk],
    server: &Selector,
    agent: &Selector,
    disk_bytes: u64,
    sector: u32,
) -> Result<usize, Refusal> {
    let asked_for = |disk: &Disk| is_offered(disk, agent) && server.matches(disk);
    let matching: Vec<usize> =
        (0..disks.len()).filter(|no| asked_for(&disks[*no]) && agent.matches(&disks[*no])).collect();
    let obstacle = |no: usize| obstacle(&disks[no], disk_bytes, sector);

    let candidates = if server.is_empty() && agent.is_empty() {
        let able: Vec<_> = matching.iter().copied().filter(|no| obstacle(*no).is_none()).collect();
        match (&able[..], &matching[..]) {
            // Of the only disk its own reason says more than "not found".
            ([], [_]) => matching,
            ([], [_, _, ..]) => {
                let why: Vec<_> = matching.into_iter().filter_map(obstacle).map(|refusal| refusal.detail).collect();
                let detail = format!("no disk can be the target: {}", enumerate(&why));
                return Err(Refusal { reason: Reason::TargetNotFound, detail });
            }
            _ => able,
        }
    } else {
        matching
    };
    match candidates[..] {
        [only] => obstacle(only).map_or(Ok(only), Err),
        [] if !server.is_empty() && !agent.is_empty() && disks.iter().any(asked_for) => Err(Refusal {
            reason: Reason::TargetRefused,
            detail: format!("the server asks for {server}, the agent's own --target allows only {agent}"),
        }),
        [] => Err(not_found(disks, server, agent)),
        _ => {
            let found: Vec<_> = candidates.iter().map(|no| &disks[*no]).collect();
            let detail = format!("{} disks match: {}", found.len(), enumerate(&found));
            Err(Refusal { reason: Reason::TargetAmbiguous, detail })
        }
    }
}

/// A file is a disk only where the agent itself says so.
fn is_offered(disk: &Disk, agent: &Selector) -> bool {
    !disk.file || agent.path() == Some(&disk.path)
}

/// Why this disk may not be the target, if it may not.
fn obstacle(disk: &Disk, disk_bytes: u64, sector: u32) -> Option<Refusal> {
    let (reason, what) = match &disk.held {
        Held::BootMedium(why) => (Reason::TargetBootMedium, format!("is what this system was booted from: {why}")),
        Held::Mounted(place) => (Reason::TargetMounted, format!("is mounted: {place}")),
        Held::InUse(why) => (Reason::TargetHeld, format!("is in use: {why}")),
        Held::No if disk.read_only => (Reason::TargetReadOnly, "is read-only".to_owned()),
        Held::No if disk.removable => (Reason::TargetRemovable, "is removable".to_owned()),
        Held::No if disk.bytes < disk_bytes => {
            (Reason::TargetTooSmall, format!("has {} bytes, the image needs {disk_bytes}", disk.bytes))
        }
        Held::No if !disk.file && disk.logical_sector != sector => (
            Reason::TargetSectorSize,
            format!("has logical sectors of {} bytes, the image has {sector}", disk.logical_sector),
        ),
        Held::No => return None,
    };
    Some(Refusal { reason, detail: format!("{disk} {what}") })
}

fn not_found(disks: &[Disk], server: &Selector, agent: &Selector) -> Refusal {
    let offered: Vec<_> = disks.iter().filter(|disk| is_offered(disk, agent)).collect();
    let wanted = match (server.is_empty(), agent.is_empty()) {
        (true, true) => "no disk".to_owned(),
        (false, _) => format!("no disk is {server}"),
        (true, false) => format!("no disk is {agent}, which the agent's own --target asks for"),
    };
    let detail = match &offered[..] {
        [] => format!("{wanted}; the node has no disks"),
        _ => format!("{wanted}; the node has {}", enumerate(&offered)),
    };
    Refusal { reason: Reason::TargetNotFound, detail }
}

/// The first few of a list; it has to fit a line.
fn enumerate(items: &[impl fmt::Display]) -> String {
    const SHOWN: usize = 6;
    let mut list: Vec<_> = items.iter().take(SHOWN).map(|item| item.to_string()).collect();
    if items.len() > SHOWN {
        list.push(format!("and {} more", items.len() - SHOWN));
    }
    list.join("; ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const IMAGE: u64 = 100 << 30;

    pub(in crate::selector) fn disk(path: &str) -> Disk {
        Disk {
            path: path.into(),
            model: "ACME Fast".into(),
            serial: format!("S-{}", path.rsplit('/').next().unwrap()),
            wwn: String::new(),
            transport: "sata".into(),
            bytes: IMAGE,
            logical_sector: 512,
            physical_sector: 4096,
            rotational: false,
            removable: false,
            read_only: false,
            held: Held::No,
            file: false,
            other_paths: Vec::new(),
        }
    }

    fn chosen(disks: &[Disk], server: &str, agent: &str) -> Result<usize, Refusal> {
        let (server, agent) = (Selector::parse(server).unwrap(), Selector::parse(agent).unwrap());
        choose(disks, &server, &agent, IMAGE, 512)
    }

    fn refused(disks: &[Disk], server: &str, agent: &str) -> (Reason, String) {
        let refusal = chosen(disks, server, agent).unwrap_err();
        (refusal.reason, refusal.detail)
    }

    /// Every way in which a disk cannot be the target, with its reason and a word of its detail.
    fn unable() -> Vec<(Disk, Reason, &'static str)> {
        let sda = || disk("/dev/sda");
        vec![
            (Disk { held: Held::BootMedium("/run/boot".into()), ..sda() }, Reason::TargetBootMedium, "/run/boot"),
            (Disk { held: Held::Mounted("/dev/sda2 at /".into()), ..sda() }, Reason::TargetMounted, "/dev/sda2 at /"),
            (Disk { held: Held::InUse("md0".into()), ..sda() }, Reason::TargetHeld, "md0"),
            (Disk { read_only: true, ..sda() }, Reason::TargetReadOnly, "read-only"),
            (Disk { removable: true, ..sda() }, Reason::TargetRemovable, "removable"),
            (Disk { bytes: IMAGE - 512, ..sda() }, Reason::TargetTooSmall, "has 107374181888 bytes"),
            (Disk { logical_sector: 4096, ..sda() }, Reason::TargetSectorSize, "4096"),
        ]
    }

    #[test]
    fn the_default_takes_the_only_disk() {
        assert_eq!(chosen(&[disk("/dev/sda")], "", ""), Ok(0));
    }

    #[test]
    fn the_default_passes_over_disks_that_cannot_be_the_target() {
        for (other, ..) in unable() {
            assert_eq!(chosen(&[other.clone(), disk("/dev/sdb"), other], "", ""), Ok(1));
        }
    }

    #[test]
    fn the_default_never_guesses_between_two() {
        let (reason, detail) = refused(&[disk("/dev/sda"), disk("/dev/sdb")], "", "");
        assert_eq!(reason, Reason::TargetAmbiguous);
        assert_eq!(
            detail,
            "2 disks match: /dev/sda (ACME Fast, serial S-sda, 100 GiB); /dev/sdb (ACME Fast, serial S-sdb, 100 GiB)"
        );
    }

    #[test]
    fn a_disk_that_was_asked_for_and_cannot_be_the_target_is_refused_with_its_own_reason() {
        for (unable, reason, word) in unable() {
            let disks = [disk("/dev/sdb"), unable];
            for (server, agent) in [("/dev/sda", ""), ("", "/dev/sda"), ("serial=S-sda", "transport=sata")] {
                let (found, detail) = refused(&disks, server, agent);
                assert_eq!(found, reason);
                assert!(detail.starts_with("/dev/sda (ACME Fast, serial S-sda, ") && detail.contains(word), "{detail}");
            }
        }
    }

    #[test]
    fn the_only_disk_is_refused_with_its_own_reason_by_default_too() {
        for (unable, reason, _) in unable() {
            assert_eq!(refused(&[unable], "", "").0, reason);
        }
    }

    #[test]
    fn several_disks_of_which_none_can_be_the_target_are_listed_with_their_reasons() {
        let (small, mounted) = (unable().swap_remove(5).0, unable().swap_remove(1).0);
        let (reason, detail) = refused(&[small, mounted], "", "");
        assert_eq!(reason, Reason::TargetNotFound);
        assert!(detail.contains("the image needs 107374182400") && detail.contains("is mounted"), "{detail}");
    }

    #[test]
    fn two_disks_that_match_are_ambiguous_even_if_one_cannot_be_the_target() {
        let disks = [disk("/dev/sda"), Disk { held: Held::Mounted("/".into()), ..disk("/dev/sdb") }];
        for (server, agent) in [("transport=sata", ""), ("", "size=50G..200G"), ("model=ACME*", "transport=sata")] {
            assert_eq!(refused(&disks, server, agent).0, Reason::TargetAmbiguous);
        }
    }

    #[test]
    fn nothing_that_matches_is_not_found_and_lists_what_there_is() {
        let (reason, detail) = refused(&[disk("/dev/sda")], "serial=X", "");
        assert_eq!(reason, Reason::TargetNotFound);
        assert_eq!(detail, "no disk is serial=X; the node has /dev/sda (ACME Fast, serial S-sda, 100 GiB)");
        let (reason, detail) = refused(&[], "", "");
        assert_eq!((reason, &detail[..]), (Reason::TargetNotFound, "no disk; the node has no disks"));
        assert_eq!(refused(&[disk("/dev/sda")], "", "/dev/sdb").0, Reason::TargetNotFound);
        let many: Vec<_> = (0..200).map(|no| disk(&format!("/dev/sd{no}"))).collect();
        let (_, detail) = refused(&many, "serial=X", "");
        assert!(detail.ends_with("; and 194 more"), "{detail}");
    }

    #[test]
    fn what_the_agent_does_not_allow_is_refused_by_that_name() {
        let disks = [disk("/dev/sda"), disk("/dev/sdb")];
        let (reason, detail) = refused(&disks, "/dev/sda", "/dev/sdb");
        assert_eq!(reason, Reason::TargetRefused);
        assert_eq!(detail, "the server asks for /dev/sda, the agent's own --target allows only /dev/sdb");
        assert_eq!(refused(&disks, "/dev/sdc", "/dev/sdb").0, Reason::TargetNotFound);
    }

    #[test]
    fn both_selectors_together_narrow_to_one() {
        let disks = [disk("/dev/sda"), Disk { transport: "nvme".into(), ..disk("/dev/nvme0n1") }, disk("/dev/sdb")];
        assert_eq!(chosen(&disks, "transport=sata", "/dev/sdb"), Ok(2));
        assert_eq!(chosen(&disks, "transport=nvme", ""), Ok(1));
        assert_eq!(chosen(&disks, "", "serial=S-sda"), Ok(0));
    }

    #[test]
    fn a_regular_file_is_a_target_only_if_the_agent_names_it() {
        let file = Disk { file: true, logical_sector: 4096, ..disk("/tmp/target") };
        let disks = [file.clone(), disk("/dev/sda")];
        assert_eq!(chosen(&disks, "", "/tmp/target"), Ok(0), "a file has no sectors of its own");
        assert_eq!(chosen(&disks, "size=1G..1T", "/tmp/target"), Ok(0));
        assert_eq!(chosen(&disks, "", ""), Ok(1));
        assert_eq!(chosen(&disks, "transport=sata", ""), Ok(1), "by an attribute it is not even ambiguous");
        assert_eq!(refused(&disks, "/tmp/target", "").0, Reason::TargetNotFound, "the server cannot name it");
        assert_eq!(refused(&disks, "", "serial=S-target").0, Reason::TargetNotFound);
        let (_, detail) = refused(&disks, "/tmp/other", "/tmp/target");
        assert!(detail.starts_with("no disk is /tmp/other; the node has /tmp/target ("), "{detail}");
        let small = Disk { bytes: IMAGE - 1, ..file };
        assert_eq!(refused(&[small], "", "/tmp/target").0, Reason::TargetTooSmall);
    }
}
