//! Times, sizes and states in words.

use crate::serve::store::now;
use maud::{Markup, html};
use slidecast_proto::quantity::Bytes;
use slidecast_proto::reason::Reason;

/// A moment: how long ago it was, with the exact time for those that want it.
pub(super) fn moment(at: i64) -> Markup {
    let exact = utc(at);
    html! { time datetime=(exact.replace(' ', "T").replace("TUTC", "Z")) title=(exact) { (ago(now() - at)) } }
}

/// The same, exactly.
pub(super) fn exact(at: i64) -> Markup {
    let exact = utc(at);
    html! { time datetime=(exact.replace(' ', "T").replace("TUTC", "Z")) { (exact) } }
}

fn ago(seconds: i64) -> String {
    let some = |number: i64, what: &str| format!("{number} {what}{} ago", if number == 1 { "" } else { "s" });
    match seconds {
        i64::MIN..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => some(seconds / 3600, "hour"),
        _ => some(seconds / 86_400, "day"),
    }
}

/// `2026-11-29 18:45:10 UTC`; the days are counted as in the Gregorian calendar.
pub(super) fn utc(at: i64) -> String {
    let (days, second) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    // Years begin in March here, so that the day that comes and goes is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

/// `0:31`, `1:02:33`.
pub(super) fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

pub(super) fn size(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// A state with its dot.
pub(super) fn state(kind: &str, word: &str) -> Markup {
    html! { span class=(format!("state {kind}")) { span.dot aria-hidden="true" {} (word) } }
}

/// The word for a kind of event.
pub(super) fn kind(kind: &str) -> &str {
    match kind {
        "machine-new" => "called for the first time",
        "machine-accepted" => "accepted",
        "machine-forgotten" => "forgotten",
        "machine-wake" => "woken",
        "machine-not-woken" => "did not wake",
        "machine-restart" => "restarted from the network",
        "machine-not-restarted" => "was not restarted",
        "machine-board" => "management board",
        "machine-note" => "note written",
        "machine-conflict" => "claimed by several machines",
        "machine-conflict-over" => "claimed by one machine again",
        "group-new" => "group made",
        "group-changed" => "group changed",
        "group-removed" => "group removed",
        "group-joined" => "joined the group",
        "group-left" => "left the group",
        "rule-new" => "accepts machines from",
        "rule-removed" => "no longer accepts machines from",
        "deployment-confirmed" => "confirmed",
        "deployment-accepted" => "deployment ordered",
        "deployment-hurried" => "begun without waiting",
        "deployment-missed" => "start missed",
        "wave-called-off" => "wave called off",
        "deployment-started" => "deployment started",
        "deployment-stopped" => "stop ordered",
        "deployment-over" => "deployment over",
        "node" => "ended its part",
        "line" => "note",
        "user-invited" => "user invited",
        "user-new" => "became a user",
        "user-password" => "new password",
        "user-role" => "new role",
        "user-groups" => "groups of a user",
        "user-removed" => "user removed",
        "token-new" => "token made",
        "token-removed" => "token removed",
        "signed-in" => "signed in",
        other => other,
    }
}

/// What a reason means, who must act, and how.
pub(super) fn advice(reason: &str) -> (&'static str, &'static str) {
    const OPERATOR: &str = "Whoever starts deployments";
    const ON_SITE: &str = "Somebody at the machine";
    const ADMIN: &str = "The administrator of this server";
    const NETWORK: &str = "Whoever looks after the network";
    match reason.parse().unwrap_or(Reason::Internal) {
        Reason::None => ("Nobody", "nothing failed"),
        Reason::TargetNotFound => (OPERATOR, "choose a disk that this machine has (the target of the deployment)"),
        Reason::TargetAmbiguous => (OPERATOR, "name the disk more exactly: several fit"),
        Reason::TargetTooSmall => (OPERATOR, "choose a larger disk, or an image of a smaller one"),
        Reason::TargetSectorSize => (OPERATOR, "use an image that was made from a disk with the same sector size"),
        Reason::TargetMounted | Reason::TargetHeld => (ON_SITE, "free the disk: it is mounted or something uses it"),
        Reason::TargetReadOnly => (ON_SITE, "make the disk writable, or replace it"),
        Reason::TargetRemovable | Reason::TargetBootMedium | Reason::TargetRefused => {
            (OPERATOR, "choose another disk, or permit this one on the machine itself")
        }
        Reason::MemoryShort => (ON_SITE, "add memory, or close what uses it"),
        Reason::DiskOpen
        | Reason::DiskWrite
        | Reason::DiskFlush
        | Reason::DiskRead
        | Reason::DiskMismatch
        | Reason::DiskWraps => (ON_SITE, "check the disk and its cable; replace the disk if it fails again"),
        Reason::ImageCorrupt | Reason::ManifestMismatch => {
            (ADMIN, "verify the image (slidecast image verify) and make it anew")
        }
        Reason::UpstreamLost | Reason::DownstreamLost | Reason::LinkCorrupt => {
            (NETWORK, "check cable, port and switch of this machine and of its neighbours in the chain")
        }
        Reason::NodeLost => (ON_SITE, "see whether the machine is on and connected, then start it again"),
        Reason::ServerLost => (NETWORK, "check the way to this server"),
        Reason::VersionMismatch => (ADMIN, "give machines boot files of the same version as this server"),
        Reason::KeyMismatch | Reason::InsecureMismatch => {
            (ADMIN, "give machines boot files with the key of this server")
        }
        Reason::Aborted => (OPERATOR, "start the deployment again; machines take only what they lack"),
        Reason::JoinedTooLate => (OPERATOR, "start another deployment for this machine"),
        Reason::TimedOut => (ON_SITE, "look at the machine: its disk or its link stood still"),
        Reason::NotApproved => (ADMIN, "accept the machine"),
        Reason::ProtocolError | Reason::Internal => {
            (ADMIN, "report this, with the report of the deployment: it is a mistake in the program")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
        assert_eq!((ago(59), ago(3600), ago(200_000)), ("just now".into(), "1 hour ago".into(), "2 days ago".into()));
    }

    #[test]
    fn for_every_reason_somebody_is_named_and_told_what_to_do() {
        for reason in Reason::WORDS {
            let (who, what) = advice(reason);
            assert!(!who.is_empty() && !what.is_empty(), "{reason}");
        }
    }
}
