//! A pairwise cover: few cases among which every two values that can stand together do so at least once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::case::Case;

/// A pair of values of two different columns.
type Pair = (usize, usize, usize, usize);

/// The cases of `all` that cover all its pairs (kind and position, kind and phase, position and phase), chosen greedily:
/// the one with most pairs that are still open comes next; of several the one whose position was seldom chosen in its phase,
/// so that no phase sees one position only.
pub fn pairwise(all: &[Case]) -> Vec<Case> {
    let mut open: BTreeSet<Pair> = all.iter().flat_map(pairs).collect();
    let mut seen: BTreeMap<Pair, usize> = BTreeMap::new();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let worth = |case: &&Case| {
            let [.., place] = pairs(case);
            let gain = pairs(case).iter().filter(|pair| open.contains(*pair)).count();
            (gain, Reverse(seen.get(&place).copied().unwrap_or(0)))
        };
        // Of equals `max_by_key` takes the last.
        let Some(best) = all.iter().rev().max_by_key(worth) else { break };
        let [.., place] = pairs(best);
        for pair in pairs(best) {
            open.remove(&pair);
        }
        *seen.entry(place).or_default() += 1;
        chosen.push(*best);
    }
    chosen
}

fn pairs(case: &Case) -> [Pair; 3] {
    let (kind, position, phase) = (case.kind as usize, case.position as usize, case.phase as usize);
    [(0, kind, 1, position), (0, kind, 2, phase), (1, position, 2, phase)]
}

#[cfg(test)]
mod tests {
    use super::super::case::{Kind, Phase, Position};
    use super::*;

    #[test]
    fn every_pair_that_can_be_occurs_and_no_case_twice() {
        let all = Case::all();
        let cover = pairwise(&all);
        let of = |cases: &[Case]| -> BTreeSet<Pair> { cases.iter().flat_map(pairs).collect() };
        assert_eq!(of(&cover), of(&all));
        assert_eq!(cover.iter().collect::<BTreeSet<_>>().len(), cover.len());
    }

    #[test]
    fn the_cover_is_as_small_as_kinds_times_phases_lets_it_be() {
        let cover = pairwise(&Case::all());
        // Every kind with every phase needs a case of its own; two phases cannot happen in one.
        let least = Case::all().iter().map(|case| (case.kind, case.phase)).collect::<BTreeSet<_>>().len();
        assert!(cover.len() >= least && cover.len() <= least + Kind::ALL.len() / 4, "{} of {least}", cover.len());
    }

    #[test]
    fn every_phase_sees_every_position_about_as_often() {
        let cover = pairwise(&Case::all());
        for (phase, position) in
            Phase::ALL.into_iter().flat_map(|phase| Position::ALL.map(|position| (phase, position)))
        {
            let count = cover.iter().filter(|case| (case.phase, case.position) == (phase, position)).count();
            assert!(count * 6 > Kind::ALL.len(), "{count} of {phase:?} {position:?}");
        }
    }

    #[test]
    fn one_case_covers_itself() {
        let one = Case { kind: Kind::Kill, position: Position::Head, phase: Phase::Late };
        assert_eq!(pairwise(&[one]), [one]);
    }
}
