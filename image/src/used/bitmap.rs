//! Maps of one bit per unit, as ext and NTFS have them: bit 0 of byte 0 is the first unit, one means used.

use core::ops::Range;

/// Whether the bits of `range` are all set; bits behind the end of the map are not.
pub(crate) fn all_set(map: &[u8], mut range: Range<u64>) -> bool {
    range.all(|bit| {
        let byte = usize::try_from(bit / 8).ok().and_then(|at| map.get(at));
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    })
}

/// Sets the bits of `range` that are in the map.
pub(crate) fn set(map: &mut [u8], range: Range<u64>) {
    for bit in range {
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| map.get_mut(at)) {
            *byte |= 1 << (bit % 8);
        }
    }
}

/// Calls `each` with the runs of zeros among the first `count` bits, in order.
pub(crate) fn clear_runs(map: &[u8], count: u64, mut each: impl FnMut(Range<u64>)) {
    let mut start = None;
    for (at, byte) in (0_u64..).step_by(8).zip(map) {
        if at >= count {
            break;
        }
        match (byte, start) {
            (0xFF, None) | (0, Some(_)) => continue,
            (0, None) => {
                start = Some(at);
                continue;
            }
            _ => {}
        }
        for bit in at..(at + 8).min(count) {
            match (byte >> (bit % 8) & 1, start) {
                (0, None) => start = Some(bit),
                (1, Some(first)) => {
                    each(first..bit);
                    start = None;
                }
                _ => {}
            }
        }
    }
    if let Some(first) = start {
        each(first..count.min(map.len() as u64 * 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_of_zeros_are_those_that_a_look_at_every_bit_finds(
            map in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xFF), any::<u8>()], 0..40),
            count in 0_u64..400,
        ) {
            let naive = (0..usize::try_from(count).unwrap())
                .map(|bit| map.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 0))
                .collect::<Vec<_>>();
            let mut found = vec![false; naive.len()];
            let mut last = None;
            clear_runs(&map, count, |run| {
                assert!(!run.is_empty() && last.is_none_or(|end| end < run.start));
                last = Some(run.end);
                found[usize::try_from(run.start).unwrap()..usize::try_from(run.end).unwrap()].fill(true);
            });
            prop_assert_eq!(found, naive);
        }

        #[test]
        fn what_was_set_is_set(mut map in prop::collection::vec(any::<u8>(), 1..40), from in 0_u64..320, len in 0_u64..40) {
            let end = (from + len).min(map.len() as u64 * 8);
            set(&mut map, from..end);
            prop_assert!(all_set(&map, from..end));
        }
    }
}
