//! What goes wrong in a run, drawn from its number.

use std::fmt;

use slidecast_lab::disk::random::Random;

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victims {
    /// Any one.
    One,
    /// Any two that stand side by side.
    Neighbours,
    /// Any three.
    Three,
}

/// How a node dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Its process is killed: its kernel closes the connections.
    Reset,
    /// Its cable is cut for good before it is killed: nothing is heard any more.
    Silent,
    /// Drawn anew for each victim.
    Mixed,
}

/// A fault.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// The number of the run.
    pub(super) seed: u64,
    /// Who dies, by number in the chain from 0, and whether silently.
    pub(super) victims: Vec<(usize, bool)>,
    /// When the first of them has received so many bytes, they all die.
    pub(super) byte: u64,
}

impl Fault {
    /// The fault of run `seed` among so many nodes, of which each receives `bytes`.
    pub(super) fn draw(seed: u64, victims: Victims, way: Way, nodes: usize, bytes: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(0x0100_0000_01b3));
        let mut below = |end: usize| usize::try_from(random.below(end as u64)).unwrap_or(0);
        let mut chosen = match victims {
            Victims::One => vec![below(nodes)],
            Victims::Neighbours => {
                let first = below(nodes - 1);
                vec![first, first + 1]
            }
            Victims::Three => {
                let mut left: Vec<usize> = (0..nodes).collect();
                (0..3).map(|_| left.swap_remove(below(left.len()))).collect()
            }
        };
        chosen.sort_unstable();
        let mut silent = || match way {
            Way::Reset => false,
            Way::Silent => true,
            Way::Mixed => below(2) == 1,
        };
        let victims = chosen.into_iter().map(|node| (node, silent())).collect();
        Self { seed, victims, byte: random.below(bytes) }
    }

    /// Whether node `at` dies.
    pub(super) fn hits(&self, at: usize) -> bool {
        self.victims.iter().any(|(victim, _)| *victim == at)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, ", self.seed)?;
        for (at, (victim, silent)) in self.victims.iter().enumerate() {
            let (and, how) = (if at > 0 { " and " } else { "" }, if *silent { "silent" } else { "killed" });
            write!(f, "{and}position {} {how}", victim + 1)?;
        }
        write!(f, " at {:.1} MiB", self.byte as f64 / f64::from(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_always_draws_the_same_and_different_numbers_hit_everybody() {
        let draw = |seed| Fault::draw(seed, Victims::Three, Way::Mixed, 8, 1 << 20);
        let again = |seed| (draw(seed).victims, draw(seed).byte);
        assert!((0..100).all(|seed| again(seed) == (draw(seed).victims, draw(seed).byte)));
        assert!((0..8).all(|node| (0..100).any(|seed| draw(seed).hits(node))));
        assert!((0..100).all(|seed| draw(seed).victims.windows(2).all(|pair| pair[0].0 < pair[1].0)));
        let ways = |silent| (0..100).any(|seed| draw(seed).victims.iter().any(|victim| victim.1 == silent));
        assert!(ways(true) && ways(false));
    }
}
