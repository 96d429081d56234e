//! One broken machine among six, at each place of the chain: what it costs the others.

use crate::damage::Corruption;
use crate::scenario::{Fault, Scenario, at_ms};
use crate::world::{Outcome, World};

/// How many nodes there are.
const NODES: usize = 6;
/// Their speed in bytes per second.
const RATE: u64 = 10_000_000;
/// The blocks of the image.
const BLOCKS: u32 = 1200;

/// Runs a chain of [`NODES`] equal nodes in which only this goes wrong.
pub(crate) fn run(fault: Option<Fault>, shown: bool) -> Outcome {
    let mut scenario = Scenario::of_seed(0);
    scenario.alike(NODES, RATE);
    scenario.image.blocks = BLOCKS;
    scenario.network.window = 400_000;
    scenario.network.unsent = 100_000;
    scenario.faults = fault.map(|fault| (at_ms(500), fault)).into_iter().collect();
    World::new(scenario, shown).run()
}

/// Node `culprit` damages all that it sends; with `all`, headers and what it says to its upstream, too.
pub(crate) fn corrupted(culprit: usize, all: bool) -> Outcome {
    run(Some(Fault::Corrupt(culprit, Corruption { permille: 1000, all })), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use slidecast_proto::feed::Source;
    use slidecast_proto::units::BlockNo;

    fn image_bytes() -> u64 {
        let mut scenario = Scenario::of_seed(0);
        scenario.alike(NODES, RATE);
        scenario.image.blocks = BLOCKS;
        let image = Image::new(&scenario.image, scenario.seed);
        let frames = (0..image.blocks()).filter_map(|block| image.block(BlockNo(block)));
        frames.map(|frame| u64::from(frame.stored_len)).sum()
    }

    fn others(but: usize) -> Vec<usize> {
        (0..NODES).filter(|agent| *agent != but).collect()
    }

    /// The others are done within 1.5 times the undisturbed time, and the server sent at most 3 images.
    fn assert_the_others_are_well(culprit: usize, outcome: &Outcome) {
        assert_eq!(outcome.violation, None, "culprit {culprit}");
        let done: Vec<usize> = outcome.done.iter().copied().filter(|agent| *agent != culprit).collect();
        assert_eq!(done, others(culprit), "culprit {culprit}");
        let calm = run(None, false).last_done.unwrap().as_secs_f64();
        let took = outcome.last_done.unwrap().as_secs_f64();
        assert!(took <= 1.5 * calm, "culprit {culprit}: {took:.2} s, undisturbed {calm:.2} s");
        assert!(outcome.egress <= 3 * image_bytes(), "culprit {culprit}: {} images", outcome.egress / image_bytes());
    }

    #[test]
    fn a_node_that_damages_all_that_it_sends_costs_the_others_little_and_is_named() {
        for culprit in 0..NODES {
            let outcome = corrupted(culprit, false);
            assert_the_others_are_well(culprit, &outcome);
            // A tail sends nothing to anybody.
            let named = if culprit == NODES - 1 { vec![] } else { vec![culprit] };
            assert_eq!(outcome.corrupting, named);
            assert!(outcome.done.contains(&culprit), "it receives well");
        }
    }

    #[test]
    fn a_node_that_damages_headers_and_words_as_well_costs_the_others_little_and_is_named() {
        for culprit in 0..NODES {
            let outcome = corrupted(culprit, true);
            assert_the_others_are_well(culprit, &outcome);
            assert_eq!(outcome.corrupting, [culprit], "{outcome:?}");
        }
    }

    #[test]
    fn a_node_that_reports_nothing_or_takes_nothing_or_complains_falsely_costs_the_others_little() {
        for culprit in 0..NODES {
            for fault in [Fault::Mute(culprit), Fault::FalseDown(culprit), Fault::Stuck(culprit)] {
                let outcome = run(Some(fault), false);
                assert_eq!(outcome.violation, None, "{fault:?}");
                assert!(others(culprit).iter().all(|agent| outcome.done.contains(agent)), "{fault:?}: {outcome:?}");
                assert!(outcome.corrupting.is_empty(), "{fault:?}");
            }
        }
    }
}
