//! How fast it goes, how far it is, and how long it will still take.

use crate::status::{Figures, Stage, Status};
use slidecast_proto::quantity::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Rates are those of so long.
const WINDOW: Duration = Duration::from_secs(5);

/// Looks at the figures again and again.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<(Instant, Figures)>,
}

impl Meter {
    /// Takes the figures of now.
    pub(super) fn take(&mut self, figures: &Figures, now: Instant) {
        let began_anew = self.samples.back().is_some_and(|(_, last)| {
            last.received_bytes > figures.received_bytes
                || last.accepted > figures.accepted
                || last.blocks != figures.blocks
        });
        if began_anew {
            self.samples.clear();
        }
        self.samples.push_back((now, *figures));
        // One sample stays that is as old as the window.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Bytes in a second: received, and written to the disk.
    pub(super) fn rates(&self) -> (u64, u64) {
        let rate = |of: fn(&Figures) -> u64| self.rate(of);
        (rate(|figures| figures.received_bytes), rate(|figures| figures.written_bytes))
    }

    fn rate(&self, of: impl Fn(&Figures) -> u64) -> u64 {
        let (Some((from, first)), Some((to, last))) = (self.samples.front(), self.samples.back()) else { return 0 };
        let ms = to.duration_since(*from).as_millis();
        let bytes = u128::from(of(last).saturating_sub(of(first)));
        u64::try_from((bytes * 1000).checked_div(ms).unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// How long it will take at the present rate; nothing where there is none.
    pub(super) fn left(&self, status: &Status) -> Option<Duration> {
        let done: fn(&Figures) -> u64 = match status.stage {
            Stage::Receiving => |figures| figures.accepted.into(),
            Stage::Verifying => |figures| figures.verified.into(),
            _ => return None,
        };
        // In thousandths of a block, or slow links would show no rate at all.
        let rate = self.rate(|figures| done(figures) * 1000);
        let left = u64::from(status.figures.blocks).saturating_sub(done(&status.figures)) * 1000;
        let seconds = left.checked_div(rate)?;
        (seconds < 100 * 3600).then(|| Duration::from_secs(seconds))
    }

    /// How things stand, in one line.
    pub(super) fn line(&self, status: &Status) -> String {
        let mut line = stage(status.stage).to_lowercase();
        if let Some(percent) = percent(status) {
            line.push_str(&format!(" {percent}%"));
        }
        let (received, written) = self.rates();
        line.push_str(&format!(", {}/s in, {}/s to the disk", Bytes(received), Bytes(written)));
        if let Some(left) = self.left(status) {
            line.push_str(&format!(", {} left", clock(left)));
        }
        line
    }
}

/// The stage in one word.
pub(super) fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "STARTING",
        Stage::Searching => "NO SERVER",
        Stage::Waiting => "WAITING",
        Stage::Approving => "NOT APPROVED",
        Stage::Asking => "PICK A DISK",
        Stage::Ready => "READY",
        Stage::Comparing => "COMPARING",
        Stage::Receiving => "WRITING",
        Stage::Verifying => "CHECKING",
        Stage::Finishing => "FINISHING",
        Stage::Done(slidecast_proto::reason::EndState::Done) => "DONE",
        Stage::Done(_) => "WRITTEN",
        Stage::Failed => "FAILED",
    }
}

/// How much of the present stage is done.
pub(super) fn percent(status: &Status) -> Option<u64> {
    let done = match status.stage {
        Stage::Receiving => status.figures.accepted,
        Stage::Verifying => status.figures.verified,
        _ => return None,
    };
    (u64::from(done) * 100).checked_div(status.figures.blocks.into()).map(|percent| percent.min(100))
}

/// Hours, minutes and seconds.
pub(super) fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(accepted: u32) -> Status {
        let figures =
            Figures { blocks: 100, accepted, received_bytes: u64::from(accepted) << 20, ..Figures::default() };
        Status { stage: Stage::Receiving, figures, ..Status::default() }
    }

    #[test]
    fn rate_and_time_left_are_those_of_the_last_seconds() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        // Ten blocks at once, then two in each second.
        for second in 0..20_u64 {
            let accepted = 10 + 2 * u32::try_from(second).unwrap();
            meter.take(&status(accepted).figures, start + Duration::from_secs(second));
        }
        let now = status(48);
        assert_eq!(meter.rates().0, 2 << 20);
        assert_eq!(meter.left(&now), Some(Duration::from_secs(26)));
        assert_eq!(percent(&now), Some(48));
        assert_eq!(meter.line(&now), format!("writing 48%, {}/s in, 0 B/s to the disk, 0:00:26 left", Bytes(2 << 20)));
        assert!(meter.samples.len() <= 7);
    }

    #[test]
    fn nothing_is_said_that_is_not_known() {
        let (mut meter, now) = (Meter::default(), Instant::now());
        assert_eq!(meter.rates(), (0, 0));
        meter.take(&status(5).figures, now);
        assert_eq!(meter.left(&status(5)), None, "one look gives no rate");
        let unknown = Status { stage: Stage::Receiving, ..Status::default() };
        assert_eq!(percent(&unknown), None);
        assert_eq!(percent(&Status::default()), None);
    }

    #[test]
    fn another_deployment_begins_at_nothing() {
        let (mut meter, now) = (Meter::default(), Instant::now());
        meter.take(&status(50).figures, now);
        meter.take(&status(1).figures, now + Duration::from_secs(1));
        assert_eq!(meter.rates(), (0, 0));
    }
}
