//! Faults of every kind at every position and in every phase, as few cases as cover each two of them together. `./check.sh
//! chaos` plays the whole product.

use libtest_mimic::{Failed, Trial};
use slidecast_lab::chaos::{Able, Case, Kind, Outcome, pairwise, play, replay};
use slidecast_lab::slowest;

use crate::harness::in_turn;

/// What the lab tier draws for its cases.
const SEED: u64 = 1;

/// A test for each case of the cover, named after the case: first those that wait until a node that takes nothing is given up, and
/// then all others.
pub(crate) fn trials() -> (Vec<Trial>, Vec<Trial>) {
    let able = Able::look();
    let trial = |case: Case| {
        let ignored = able.lacks(case.kind).is_some();
        let name = format!("chaos::{case}");
        let judged = move |name: &str| slowest::timed(name, || judge(&case, &able));
        let trial =
            Trial::test(name.clone(), move || if waits(&case) { judged(&name) } else { in_turn(|| judged(&name)) });
        trial.with_ignored_flag(ignored)
    };
    let (waiting, others): (Vec<Case>, Vec<Case>) = pairwise(&Case::all()).into_iter().partition(waits);
    (waiting.into_iter().map(trial).collect(), others.into_iter().map(trial).collect())
}

fn waits(case: &Case) -> bool {
    case.kind == Kind::StuckTail
}

fn judge(case: &Case, able: &Able) -> Result<(), Failed> {
    match play(case, SEED, able)? {
        Outcome::Passed(_) => Ok(()),
        // What could not be played is no pass.
        Outcome::Skipped(why) => Err(why.into()),
        Outcome::Failed { wrong, said } => {
            Err(format!("{}\n{said}\nplay it again: {}", wrong.join("\n"), replay(case, SEED)).into())
        }
    }
}
