//! How much a node may say in the operator's view: agents are believed in what they report, not in how often.

use slidecast_proto::units::{NodeId, Time};
use std::collections::HashMap;

/// Lines that a node may say at once.
const BURST: u32 = 50;
/// After that, one line in so many microseconds: two a second.
const EVERY: u64 = 500_000;
/// Lines that a node may say in a deployment.
const TOTAL: u32 = 2_000;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is shown; so many before it were not.
    Shown { left_out: u64 },
    /// It is left out, and so is everything that this node says later. This is told once.
    Silenced,
    /// It is left out.
    LeftOut,
}

/// What one node has said.
#[derive(Debug)]
struct Speaker {
    /// Lines that it may say now.
    tokens: u32,
    /// When the last one of them was added.
    filled: Time,
    shown: u32,
    left_out: u64,
    silenced: bool,
}

/// The lines of all nodes.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    speakers: HashMap<NodeId, Speaker>,
}

impl LogLimit {
    /// Decides about a line of this node.
    pub(super) fn on_line(&mut self, node: NodeId, now: Time) -> Said {
        let new = Speaker { tokens: BURST, filled: now, shown: 0, left_out: 0, silenced: false };
        let speaker = self.speakers.entry(node).or_insert(new);
        let micros = u64::try_from(now.since(speaker.filled).as_micros()).unwrap_or(u64::MAX);
        let more = micros / EVERY;
        if more > 0 {
            speaker.tokens = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(speaker.tokens).min(BURST);
            speaker.filled = now;
        }
        if speaker.shown >= TOTAL {
            speaker.left_out += 1;
            return if std::mem::replace(&mut speaker.silenced, true) { Said::LeftOut } else { Said::Silenced };
        }
        if speaker.tokens == 0 {
            speaker.left_out += 1;
            return Said::LeftOut;
        }
        speaker.tokens -= 1;
        speaker.shown += 1;
        Said::Shown { left_out: std::mem::take(&mut speaker.left_out) }
    }

    /// How many lines of each node were left out and not told of yet. Afterwards all are told of.
    pub(super) fn untold(&mut self) -> Vec<(NodeId, u64)> {
        let speakers = self.speakers.iter_mut().filter(|(_, speaker)| speaker.left_out > 0);
        let mut untold: Vec<_> =
            speakers.map(|(node, speaker)| (*node, std::mem::take(&mut speaker.left_out))).collect();
        untold.sort_unstable();
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NODE: NodeId = NodeId(3);

    #[test]
    fn a_flood_is_cut_to_a_burst_and_a_rate_and_told_when_a_line_is_shown_again() {
        let (mut limit, start) = (LogLimit::default(), Time(1));
        let said: Vec<_> = (0..1000).map(|_| limit.on_line(NODE, start)).collect();
        assert!(said[..50].iter().all(|said| *said == Said::Shown { left_out: 0 }));
        assert!(said[50..].iter().all(|said| *said == Said::LeftOut));
        // Another node is not held to it.
        assert_eq!(limit.on_line(NodeId(4), start), Said::Shown { left_out: 0 });
        let later = start.after(Duration::from_secs(1));
        assert_eq!(limit.on_line(NODE, later), Said::Shown { left_out: 950 });
        assert_eq!(limit.on_line(NODE, later), Said::Shown { left_out: 0 });
        assert_eq!(limit.on_line(NODE, later), Said::LeftOut);
        assert_eq!(limit.untold(), [(NODE, 1)]);
        assert!(limit.untold().is_empty());
    }

    #[test]
    fn a_flood_that_never_ends_is_silenced_once() {
        let (mut limit, mut shown, mut silenced) = (LogLimit::default(), 0, 0);
        for second in 0..10_000 {
            for _ in 0..5 {
                match limit.on_line(NODE, Time(1).after(Duration::from_secs(second))) {
                    Said::Shown { .. } => shown += 1,
                    Said::Silenced => silenced += 1,
                    Said::LeftOut => {}
                }
            }
        }
        assert_eq!((shown, silenced), (2_000, 1));
    }
}
