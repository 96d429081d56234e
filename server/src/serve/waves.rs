//! Waves: a deployment in parts, one after the other, so that the first machine shows what the others would get.
//!
//! A wave is a deployment of its own, with its own chains and report: see `docs/adr/0015-waves-are-deployments.md`.

use super::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The most waves.
const MAX_WAVES: usize = 100;

/// `waves` of a request: `"1,5,rest"`, or `[1, 5, "rest"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Waves {
    /// As `--waves` would have it.
    Text(String),
    /// As a list.
    List(Vec<Part>),
}

/// One wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Part {
    /// So many machines.
    Count(usize),
    /// The word `rest`.
    Word(String),
}

impl Waves {
    /// Cuts the machines into waves. Machines that are connected come first: a wave of machines that are off shows nothing.
    pub(super) fn cut(&self, machines: &[i64], connected: &HashSet<i64>) -> Result<Vec<Vec<i64>>, Problem> {
        let mut left: Vec<i64> = machines.to_vec();
        left.sort_by_key(|machine| !connected.contains(machine));
        let parts = self.parts()?;
        let last = parts.len() - 1;
        let mut waves = Vec::new();
        for (at, part) in parts.into_iter().enumerate() {
            let count = match part {
                Some(count) => count.min(left.len()),
                None if at == last => left.len(),
                None => return Err(wrong("rest comes last")),
            };
            let rest = left.split_off(count);
            waves.push(std::mem::replace(&mut left, rest));
        }
        waves.retain(|wave| !wave.is_empty());
        match left.len() {
            0 => Ok(waves),
            left => Err(wrong(&format!("{left} machines are in no wave; end with rest"))),
        }
    }

    /// The size of each; nothing stands for the rest.
    fn parts(&self) -> Result<Vec<Option<usize>>, Problem> {
        let part = |text: &str| match text.trim() {
            "rest" => Ok(None),
            text => {
                text.parse().map(Some).map_err(|_| wrong("expected numbers of machines and rest, such as 1,5,rest"))
            }
        };
        let parts: Vec<Option<usize>> = match self {
            Self::Text(text) => text.split(',').map(part).collect::<Result<_, _>>()?,
            Self::List(list) => {
                let part = |each: &Part| match each {
                    Part::Count(count) => Ok(Some(*count)),
                    Part::Word(word) => part(word),
                };
                list.iter().map(part).collect::<Result<_, _>>()?
            }
        };
        if parts.is_empty() || parts.len() > MAX_WAVES || parts.contains(&Some(0)) {
            return Err(wrong(&format!("expected 1 to {MAX_WAVES} waves of at least one machine each")));
        }
        Ok(parts)
    }
}

fn wrong(what: &str) -> Problem {
    Problem::bad(format!("waves: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(waves: &str, machines: &[i64], connected: &[i64]) -> Result<Vec<Vec<i64>>, String> {
        let waves: Waves = serde_json::from_str(waves).unwrap();
        waves.cut(machines, &connected.iter().copied().collect()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn waves_take_connected_machines_first_and_the_rest_in_the_end() {
        let machines = [1, 2, 3, 4, 5, 6];
        assert_eq!(cut("\"1,2,rest\"", &machines, &[4, 6]).unwrap(), [vec![4], vec![6, 1], vec![2, 3, 5]]);
        assert_eq!(cut("[1, 2, \"rest\"]", &machines, &[]).unwrap(), [vec![1], vec![2, 3], vec![4, 5, 6]]);
        assert_eq!(cut("\"rest\"", &machines[..1], &[]).unwrap(), [[1]]);
        assert_eq!(cut("\"1,5,rest\"", &machines[..2], &[]).unwrap(), [[1], [2]], "there is no wave of nobody");
        assert_eq!(cut("\"2,4\"", &machines, &[]).unwrap().len(), 2);
    }

    #[test]
    fn waves_that_leave_machines_out_or_make_no_sense_are_refused() {
        for wrong in ["\"1,2\"", "\"rest,1\"", "\"0,rest\"", "\"\"", "[]", "\"one,rest\"", "[1, \"all\"]"] {
            let said = cut(wrong, &[1, 2, 3, 4], &[]).unwrap_err();
            assert!(said.starts_with("waves: "), "{wrong}: {said}");
        }
    }
}
