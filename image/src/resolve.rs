//! Newest first: of all layers that say something about a grain, the newest is right.

use crate::extent::Extent;

/// Merges extent maps into one. `layers` are ordered newest first, each map is sorted, and the base (the last) speaks
/// for every grain up to `disk_grains`; so does the result, without overlaps, in the order of the disk.
pub(crate) fn newest_first<I: Iterator<Item = Extent>>(
    layers: impl IntoIterator<Item = I>,
    disk_grains: u64,
) -> impl Iterator<Item = Extent> {
    let mut layers: Vec<_> = layers.into_iter().map(Iterator::peekable).collect();
    let mut at = 0;
    core::iter::from_fn(move || {
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

    #[test]
    fn a_child_may_say_unused_of_what_its_parent_holds() {
        let base = [Extent { start: 0, grains: DISK, kind: Kind::Data { layer: 0, grain: 0 } }];
        let child = [Extent { start: 10, grains: 5, kind: Kind::Unused }];
        let merged: Vec<_> = newest_first([child.iter().copied(), base.iter().copied()], DISK).collect();
        assert_eq!(merged[1], child[0]);
        assert_eq!(merged[2].kind, Kind::Data { layer: 0, grain: 15 });
    }
}
