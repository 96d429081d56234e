//! Plays many cases, several at once, and says what came of them.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::case::{Case, Kind, Phase};
use super::play::{Able, Measured, Outcome, play};
use crate::error::{LabError, Result};

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often everything is played; each round with the next seed.
    pub rounds: u64,
    /// The seed of the first round.
    pub seed: u64,
    /// The names of cases, or their beginnings; none is all.
    pub cases: Vec<String>,
    /// How many are played at once.
    pub jobs: usize,
}

/// A case that was played.
#[derive(Debug, Clone)]
struct Played {
    case: Case,
    outcome: Outcome,
}

/// Plays them all, and gives `say` a line for each, then the tables, then the total. Gives whether none failed.
///
/// # Errors
/// When no case has such a name.
pub fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<bool> {
    let wanted = |case: &Case| options.cases.is_empty() || options.cases.iter().any(|name| case.is_called(name));
    let cases: Vec<Case> = Case::all().into_iter().filter(wanted).collect();
    if let Some(name) = options.cases.iter().find(|name| !cases.iter().any(|case| case.is_called(name))) {
        let why = format!("no case is called {name} (KIND, KIND/POSITION or KIND/POSITION/PHASE, as kill/head/early)");
        return Err(LabError::Unable { why });
    }
    let rounds = options.seed..options.seed.saturating_add(options.rounds);
    let todo = Mutex::new(rounds.flat_map(|seed| cases.iter().map(move |case| (*case, seed))));
    let played = Mutex::new(Vec::new());
    let able = Able::look();
    let work = || {
        loop {
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((case, seed)) = next else { return };
            let started = Instant::now();
            let outcome = play(&case, seed, &able).unwrap_or_else(failed);
            say(&line(&case, seed, &outcome, started.elapsed().as_secs_f64()));
            played.lock().unwrap_or_else(PoisonError::into_inner).push(Played { case, outcome });
        }
    };
    std::thread::scope(|scope| (0..options.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let played = played.into_inner().unwrap_or_else(PoisonError::into_inner);
    say(&table(&played));
    let count = |is: fn(&Outcome) -> bool| played.iter().filter(|played| is(&played.outcome)).count();
    let bad = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let left_out = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let mut total = format!("{} passed, {bad} failed", played.len() - bad - left_out);
    if left_out > 0 {
        let _ = write!(total, ", {left_out} skipped");
    }
    say(&total);
    Ok(bad == 0)
}

fn failed(error: LabError) -> Outcome {
    Outcome::Failed { wrong: vec![format!("the lab: {error}")], said: String::new() }
}

/// The one line that plays a case again.
pub fn replay(case: &Case, seed: u64) -> String {
    format!("./check.sh chaos --case {case} --seed {seed}")
}

fn line(case: &Case, seed: u64, outcome: &Outcome, seconds: f64) -> String {
    let name = case.to_string();
    match outcome {
        Outcome::Passed(Measured { lost, again, all_done }) => {
            let again = again >> 20;
            let struck = if *all_done { "all done" } else { "the others done" };
            format!("{name:<34} ok      {seconds:5.1} s, lost {lost:5.2} s, sent again {again:3} MiB, {struck}")
        }
        Outcome::Skipped(why) => format!("{name:<34} skipped: {why}"),
        Outcome::Failed { wrong, said } => {
            let wrong = wrong.join("\n    ");
            format!("{name:<34} FAILED\n    {wrong}\n{said}\nplay it again: {}", replay(case, seed))
        }
    }
}

/// Kinds by phases: how many passed, failed, were skipped; and what the survivors of each kind lost.
fn table(played: &[Played]) -> String {
    let mut text = format!("\n{:<18}", "passed/failed");
    for phase in Phase::ALL {
        let _ = write!(text, "{:>11}", phase.as_str());
    }
    let _ = write!(text, "{:>22}", "lost time median, max");
    for kind in Kind::ALL {
        let of_kind: Vec<&Played> = played.iter().filter(|played| played.case.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{:<18}", kind.as_str());
        for phase in Phase::ALL {
            let cell = of_kind.iter().filter(|played| played.case.phase == phase).map(|played| &played.outcome);
            let _ = write!(text, "{:>11}", tally(cell));
        }
        let mut lost: Vec<f64> = of_kind.iter().filter_map(|played| lost(&played.outcome)).collect();
        lost.sort_by(f64::total_cmp);
        if let (Some(median), Some(most)) = (lost.get(lost.len() / 2), lost.last()) {
            let _ = write!(text, "{median:>14.2} s {most:>5.2} s");
        }
    }
    text + "\n"
}

fn lost(outcome: &Outcome) -> Option<f64> {
    if let Outcome::Passed(measured) = outcome { Some(measured.lost) } else { None }
}

fn tally<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let (mut good, mut bad, mut left_out) = (0, 0, 0);
    for outcome in outcomes {
        match outcome {
            Outcome::Passed(_) => good += 1,
            Outcome::Failed { .. } => bad += 1,
            Outcome::Skipped(_) => left_out += 1,
        }
    }
    match (good + bad, left_out) {
        (0, 0) => "-".to_owned(),
        (_, 0) => format!("{good}/{bad}"),
        _ => format!("{good}/{bad} {left_out}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_by_kind_and_phase_and_has_median_and_maximum() {
        let played = |name: &str, outcome| Played { case: name.parse().unwrap(), outcome };
        let passed = |lost| Outcome::Passed(Measured { lost, again: 0, all_done: true });
        let bad = Outcome::Failed { wrong: vec![], said: String::new() };
        let all = [
            played("kill/head/early", passed(0.5)),
            played("kill/middle/early", passed(0.25)),
            played("kill/tail/early", passed(2.0)),
            played("kill/head/late", bad),
            played("kill/tail/finishing", Outcome::Skipped("no")),
        ];
        let table = table(&all);
        let row: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, ["kill", "-", "3/0", "-", "0/1", "0/0", "1s", "0.50", "s", "2.00", "s"]);
    }

    #[test]
    fn a_failure_ends_with_the_line_that_plays_it_again() {
        let case: Case = "flip/tail/mid".parse().unwrap();
        let outcome = Outcome::Failed { wrong: vec!["something".to_owned()], said: "--- deploy\n".to_owned() };
        let text = line(&case, 7, &outcome, 1.0);
        assert_eq!(text.lines().last(), Some("play it again: ./check.sh chaos --case flip/tail/mid --seed 7"));
    }
}
