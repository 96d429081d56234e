//! Which machines are woken when, and which did not come: decisions alone. `super::power` sends what this gives.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often a machine is called.
const CALLS: u32 = 3;
/// How long after one call the next one follows.
const BETWEEN: Duration = Duration::from_secs(10);
/// So long after the first call a machine that has not come is told of.
const COMES: Duration = Duration::from_secs(120);
/// Between two machines: all of a room that start at once would trip its fuse.
const PACE: Duration = Duration::from_millis(100);

/// Machines that are being woken. Times are since it began.
#[derive(Debug)]
pub(super) struct Waking {
    /// How often each was called, and when it is called next or given up.
    machines: BTreeMap<i64, (u32, Duration)>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Call this machine; the first time its power is switched on, too.
    Call {
        /// The machine.
        machine: i64,
        /// It was not called before.
        first: bool,
    },
    /// It has not come.
    Late(i64),
}

impl Waking {
    pub(super) fn new(machines: &[i64]) -> Self {
        let at = (0_u32..).map(|place| PACE * place);
        Self { machines: machines.iter().copied().zip(at.map(|at| (0, at))).collect() }
    }

    /// A machine is there, or is no longer wanted.
    pub(super) fn on_here(&mut self, is_here: impl Fn(i64) -> bool) {
        self.machines.retain(|machine, _| !is_here(*machine));
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Deed> {
        let (&machine, &(calls, at)) =
            self.machines.iter().filter(|(_, (_, at))| *at <= now).min_by_key(|(_, (_, at))| *at)?;
        if calls == CALLS {
            self.machines.remove(&machine);
            return Some(Deed::Late(machine));
        }
        let next = if calls + 1 == CALLS { COMES - BETWEEN * (CALLS - 1) } else { BETWEEN };
        self.machines.insert(machine, (calls + 1, at + next));
        Some(Deed::Call { machine, first: calls == 0 })
    }

    /// When something is due; nothing when all are there or given up.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.machines.values().map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that happens until the end, with the second at which it does.
    fn run(waking: &mut Waking, here: impl Fn(i64, Duration) -> bool) -> Vec<(u64, Deed)> {
        let mut all = Vec::new();
        while let Some(now) = waking.deadline() {
            waking.on_here(|machine| here(machine, now));
            while let Some(deed) = waking.poll(now) {
                all.push((now.as_secs(), deed));
            }
        }
        all
    }

    #[test]
    fn a_machine_is_called_three_times_and_told_of_when_it_has_not_come() {
        let call = |first| Deed::Call { machine: 7, first };
        let all = run(&mut Waking::new(&[7]), |_, _| false);
        assert_eq!(all, [(0, call(true)), (10, call(false)), (20, call(false)), (120, Deed::Late(7))]);
    }

    #[test]
    fn a_machine_that_comes_is_left_alone_and_the_others_are_not() {
        let comes = |machine, now: Duration| machine == 1 && now.as_secs() >= 5;
        let all = run(&mut Waking::new(&[1, 2]), comes);
        let of = |wanted: i64| {
            let is = move |deed: &Deed| match deed {
                Deed::Call { machine, .. } | Deed::Late(machine) => *machine == wanted,
            };
            all.iter().filter(|(_, deed)| is(deed)).count()
        };
        assert_eq!((of(1), of(2)), (1, 4));
    }

    #[test]
    fn a_large_room_is_woken_ten_machines_a_second() {
        let machines: Vec<i64> = (0..100).collect();
        let mut waking = Waking::new(&machines);
        let mut called = 0;
        while let Some(Deed::Call { .. }) = waking.poll(Duration::from_secs(1)) {
            called += 1;
        }
        assert_eq!(called, 11);
    }
}
