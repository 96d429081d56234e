//! Newest first: of all layers that say something about a grain, the newest is right.

use crate::extent::Extent;

/// Merges extent maps into one, without overlaps, in the order of the disk. `layers` are ordered newest first and each map
/// is sorted. `disk_grains` is the disk of the newest layer: what an older layer says behind it counts for nothing, and
/// where the disk has grown the newer layer says everything itself (`extent::check`), so the result has every grain.
pub(crate) fn newest_first<I: Iterator<Item = Extent>>(
    layers: impl IntoIterator<Item = I>,
    disk_grains: u64,
) -> impl Iterator<Item = Extent> {
    let mut layers: Vec<_> = layers.into_iter().map(Iterator::peekable).collect();
    let mut at = 0;
    core::iter::from_fn(move || {
        if at >= disk_grains {
            return None;
        }
        let mut end = disk_grains;
        for layer in &mut layers {
            while layer.next_if(|extent| extent.end() <= at).is_some() {}
            let Some(extent) = layer.peek() else { continue };
            if extent.start > at {
                end = end.min(extent.start);
                continue;
            }
            let end = end.min(extent.end());
            let found = Extent { start: at, grains: end - at, kind: extent.kind.skip(at - extent.start) };
            at = end;
            return Some(found);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Kind;
    use crate::extent::tests::layer;
    use proptest::prelude::*;

    const DISK: u64 = 100;

    /// The naive way: play the layers onto a disk, the oldest first.
    fn replay(layers_oldest_first: &[Vec<Extent>]) -> Vec<Option<Kind>> {
        let mut disk = vec![None; usize::try_from(DISK).unwrap()];
        for extent in layers_oldest_first.iter().flatten() {
            for by in 0..extent.grains {
                disk[usize::try_from(extent.start + by).unwrap()] = Some(extent.kind.skip(by));
            }
        }
        disk
    }

    proptest! {
        #[test]
        fn newest_first_gives_what_replaying_oldest_first_gives(
            base in layer(0, DISK, 50),
            children in proptest::collection::vec(layer(3, DISK, 50), 0..5),
        ) {
            let mut layers = vec![base];
            layers.extend(children);
            let merged: Vec<_> = newest_first(layers.iter().rev().map(|layer| layer.iter().copied()), DISK).collect();
            let mut at = 0;
            for extent in &merged {
                prop_assert_eq!(extent.start, at);
                prop_assert!(extent.grains > 0);
                at = extent.end();
            }
            prop_assert_eq!(at, DISK);
            prop_assert_eq!(replay(&[merged]), replay(&layers));
        }
    }

    proptest! {
        #[test]
        fn nothing_of_an_older_layer_comes_back_behind_the_end_of_a_newer_one(
            base in layer(0, DISK, 50),
            shrunk in layer(3, 60, 50),
            grown in layer(0, 20, 50),
        ) {
            // The disk had 100 grains, then 60, then 80: the newest layer says everything from 60 on.
            let grown: Vec<_> = grown.into_iter().map(|extent| Extent { start: extent.start + 60, ..extent }).collect();
            let layers = [base, shrunk, grown];
            let merged = |layers: &[Vec<Extent>], grains| {
                newest_first(layers.iter().rev().map(|layer| layer.iter().copied()), grains).collect::<Vec<_>>()
            };
            let mut expected = replay(&layers[..2]);
            prop_assert_eq!(&replay(&[merged(&layers[..2], 60)])[..60], &expected[..60]);
            expected[60..].fill(None);
            for (at, kind) in replay(&layers[2..]).into_iter().enumerate().skip(60) {
                expected[at] = kind;
            }
            prop_assert_eq!(replay(&[merged(&layers, 80)]), expected);
        }
    }

    #[test]
    fn a_child_may_say_unused_of_what_its_parent_holds() {
        let base = [Extent { start: 0, grains: DISK, kind: Kind::Data { layer: 0, grain: 0 } }];
        let child = [Extent { start: 10, grains: 5, kind: Kind::Unused }];
        let merged: Vec<_> = newest_first([child.iter().copied(), base.iter().copied()], DISK).collect();
        assert_eq!(merged[1], child[0]);
        assert_eq!(merged[2].kind, Kind::Data { layer: 0, grain: 15 });
    }
}
