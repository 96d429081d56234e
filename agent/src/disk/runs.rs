//! From places to writes: runs of a block sorted by where they go, with those that touch written as one.

use super::layout::Layout;
use core::ops::Range;
use slidecast_image::manifest::Place;
use std::io::{self, IoSlice};

/// How many runs one write may gather.
const PIECES: usize = 64;

/// Bytes of a block that go to one place of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where on the disk.
    pub(super) target: u64,
    /// Where in the unpacked block.
    pub(super) source: usize,
    pub(super) len: usize,
}

impl Run {
    const fn end(&self) -> u64 {
        self.target + self.len as u64
    }
}

/// Sorts the places of a block: `runs` gets the body in order of the disk, `shadow` is called for what belongs there (with the bytes of
/// the disk and of the block).
pub(super) fn plan(
    layout: &Layout,
    places: &[Place],
    runs: &mut Vec<Run>,
    mut shadow: impl FnMut(Range<u64>, Range<usize>),
) {
    runs.clear();
    for place in places {
        let bytes = layout.bytes_of(place);
        let source = u64::from(place.source) * layout.grain;
        for (in_shadow, part) in layout.split(bytes.clone()) {
            let from = offset(source + (part.start - bytes.start));
            let len = offset(part.end - part.start);
            if in_shadow {
                shadow(part, from..from + len);
            } else {
                runs.push(Run { target: part.start, source: from, len });
            }
        }
    }
    runs.sort_unstable_by_key(|run| run.target);
}

/// Offsets inside a block: at most 16 MiB.
pub(super) fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).expect("places lie within their block")
}

/// Calls `write` once for each stretch of the disk that sorted runs cover without a gap, with the pieces of `data` in order.
///
/// `failed` makes the error from where it happened.
pub(super) fn gather<E>(
    runs: &[Run],
    data: &[u8],
    mut write: impl FnMut(u64, &mut [IoSlice<'_>]) -> io::Result<()>,
    failed: impl Fn(u64, io::Error) -> E,
) -> Result<(), E> {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let mut rest = runs;
    while let Some(first) = rest.first() {
        let pairs = rest.windows(2).take(PIECES - 1);
        let touching = pairs.take_while(|pair| pair[0].end() == pair[1].target).count() + 1;
        let (now, later) = rest.split_at(touching);
        for (piece, run) in pieces.iter_mut().zip(now) {
            *piece = IoSlice::new(&data[run.source..run.source + run.len]);
        }
        write(first.target, &mut pieces[..now.len()]).map_err(|error| failed(first.target, error))?;
        rest = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::header;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn place(source: u32, grains: u32, target: u64) -> Place {
        Place { source, grains, target }
    }

    fn writes(runs: &[Run], data: &[u8]) -> Vec<(u64, usize, Vec<u8>)> {
        let mut out = vec![];
        let write = |at: u64, pieces: &mut [IoSlice<'_>]| {
            out.push((at, pieces.len(), pieces.iter().flat_map(|piece| piece.to_vec()).collect()));
            Ok(())
        };
        gather(runs, data, write, |_, error| error).unwrap();
        out
    }

    #[test]
    fn places_that_touch_on_the_disk_are_one_write() {
        let layout = Layout::new(&header(64 * MIB, 4096, 512), 64 * MIB);
        let mut runs = vec![];
        // Grains 2, 0 and 1 of the block stand in a row on the disk; grain 3 stands elsewhere.
        let places = [place(0, 2, 1001), place(2, 1, 1000), place(3, 1, 500)];
        plan(&layout, &places, &mut runs, |_, _| panic!("nothing in the shadow"));
        let data: Vec<u8> = (0..4).flat_map(|grain| [grain; 4096]).collect();
        let found = writes(&runs, &data);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].0, found[0].1, &found[0].2[..]), (500 * 4096, 1, &[3; 4096][..]));
        assert_eq!((found[1].0, found[1].1), (1000 * 4096, 2));
        assert_eq!(found[1].2, [[2; 4096], [0; 4096], [1; 4096]].concat());
    }

    #[test]
    fn a_place_over_the_end_of_the_head_is_cut() {
        let layout = Layout::new(&header(64 * MIB, 4096, 512), 64 * MIB);
        let (mut runs, mut shadow) = (vec![], vec![]);
        plan(&layout, &[place(4, 4, MIB / 4096 - 1)], &mut runs, |disk, block| shadow.push((disk, block)));
        assert_eq!(shadow, [(MIB - 4096..MIB, 4 * 4096..5 * 4096)]);
        assert_eq!(runs, [Run { target: MIB, source: 5 * 4096, len: 3 * 4096 }]);
    }

    #[test]
    fn many_small_runs_are_written_in_batches() {
        let layout = Layout::new(&header(64 * MIB, 4096, 512), 64 * MIB);
        let places: Vec<Place> = (0..150).map(|i| place(0, 1, 1000 + i)).collect();
        let mut runs = vec![];
        plan(&layout, &places, &mut runs, |_, _| ());
        let found = writes(&runs, &[5; 4096]);
        assert_eq!(
            found.iter().map(|(at, pieces, _)| (*at, *pieces)).collect::<Vec<_>>(),
            [(1000 * 4096, 64), (1064 * 4096, 64), (1128 * 4096, 22)]
        );
    }
}
