//! A volume that lies in pieces on another one: a logical volume on a physical volume, an array on its member.

use super::volume::{Kept, Volume};
use crate::source::ReadAt;
use core::ops::Range;
use std::io;

/// Consecutive bytes of an inner volume, in one area of the outer volume or striped over several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// How many bytes of the inner volume it has.
    bytes: u64,
    /// How many bytes go to one area before it is the next one's turn. What has one area is one stripe.
    stripe: u64,
    /// Where the areas begin on the outer volume.
    areas: Vec<u64>,
}

impl Piece {
    /// All of it in one place.
    pub(super) fn linear(at: u64, bytes: u64) -> Self {
        Self { bytes, stripe: bytes.max(1), areas: Vec::from([at]) }
    }

    /// `bytes` in stripes of `stripe` bytes over `areas`; `None` unless each area has the same number of whole stripes, and
    /// everything ends below 2^63.
    pub(super) fn striped(areas: Vec<u64>, bytes: u64, stripe: u64) -> Option<Self> {
        let row = stripe.checked_mul(areas.len() as u64).filter(|row| *row > 0 && bytes.is_multiple_of(*row))?;
        let area = bytes / row * stripe;
        let ends_well = |at: &u64| at.checked_add(area).is_some_and(|end| end < 1 << 63);
        areas.iter().all(ends_well).then_some(Self { bytes, stripe, areas })
    }

    /// The one place where all of it lies; `None` if it is striped.
    pub(super) fn linear_place(&self) -> Option<Range<u64>> {
        if let [at] = self.areas.as_slice() { Some(*at..at + self.bytes) } else { None }
    }

    /// How many of the first `bytes` bytes lie in area number `area`.
    fn in_area(&self, area: u64, bytes: u64) -> u64 {
        let row_bytes = self.stripe * self.areas.len() as u64;
        let row = bytes / row_bytes;
        row * self.stripe + (bytes - row * row_bytes).saturating_sub(area * self.stripe).min(self.stripe)
    }

    /// Where `range` of the piece lies: at most one range in each area.
    fn outside(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let place =
            move |(area, at): (u64, &u64)| at + self.in_area(area, range.start)..at + self.in_area(area, range.end);
        (0..).zip(&self.areas).map(place).filter(|range| !range.is_empty())
    }

    /// Where the bytes from `at` on lie, and how many of them lie there together.
    fn place(&self, at: u64) -> (u64, u64) {
        let (stripe, inside) = (at / self.stripe, at % self.stripe);
        let count = self.areas.len() as u64;
        let area = usize::try_from(stripe % count).unwrap_or(0);
        (self.areas[area] + stripe / count * self.stripe + inside, (self.stripe - inside).min(self.bytes - at))
    }
}

/// An inner volume: the outer one, and the pieces in the order of the inner one.
pub(super) struct Mapped<'a> {
    outer: Volume<'a>,
    /// Each with its beginning on the inner volume.
    pieces: Vec<(u64, Piece)>,
    bytes: u64,
}

impl<'a> Mapped<'a> {
    pub(super) fn new(outer: Volume<'a>, pieces: Vec<Piece>) -> Self {
        let mut bytes = 0_u64;
        let place = |piece: Piece| {
            let at = bytes;
            bytes = bytes.saturating_add(piece.bytes);
            (at, piece)
        };
        let pieces = pieces.into_iter().filter(|piece| piece.bytes > 0).map(place).collect();
        Self { outer, pieces, bytes }
    }

    /// The inner volume, to be looked into.
    pub(super) fn volume(&self) -> Volume<'_> {
        Volume::inside(&self.outer, self, self.bytes)
    }

    /// Adds the places of `range` on the outer volume to `out`, in no order.
    pub(super) fn outside(&self, range: Range<u64>, out: &mut Vec<Range<u64>>) {
        let first = self.pieces.partition_point(|(at, piece)| at + piece.bytes <= range.start);
        for (at, piece) in self.pieces[first..].iter().take_while(|(at, _)| *at < range.end) {
            let start = range.start.max(*at) - at;
            let end = range.end.min(at + piece.bytes) - at;
            out.extend(piece.outside(start..end));
        }
    }
}

impl ReadAt for Mapped<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let no = self.pieces.partition_point(|(start, piece)| start + piece.bytes <= at);
            let (start, piece) = self.pieces.get(no).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (place, together) = piece.place(at - start);
            let len = usize::try_from(together).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            self.outer.read(place, now).map_err(|kept| match kept {
                Kept::Unreadable(kind) => io::Error::from(kind),
                _ => io::ErrorKind::UnexpectedEof.into(),
            })?;
            at += len as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where each byte of a volume of these pieces lies, one by one.
    fn naive(pieces: &[Piece]) -> Vec<u64> {
        pieces.iter().flat_map(|piece| (0..piece.bytes).map(|at| piece.place(at).0)).collect()
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let piece = (1_u64..5, 1_u64..9, 0_u64..6, any::<u16>()).prop_map(|(areas, stripe, rows, salt)| {
            let areas: Vec<_> = (0..areas).map(|area| u64::from(salt) % 1000 + area * 100).collect();
            let bytes = areas.len() as u64 * stripe * rows;
            Piece::striped(areas, bytes, stripe).unwrap()
        });
        prop::collection::vec(piece, 0..6)
    }

    proptest! {
        #[test]
        fn what_is_read_and_where_it_lies_is_what_a_look_at_every_byte_finds(pieces in pieces(), from in 0_usize..200, len in 0_usize..200) {
            let disk: Vec<u8> = (0..2000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
            let naive = naive(&pieces);
            let mapped = Mapped::new(Volume::new(&disk, 0, 2000), pieces);
            prop_assert_eq!(mapped.bytes, naive.len() as u64);
            let (from, to) = (from.min(naive.len()), (from + len).min(naive.len()));
            let read = mapped.volume().bytes_at(from as u64, to - from).unwrap();
            let expected: Vec<_> = naive[from..to].iter().map(|at| disk[usize::try_from(*at).unwrap()]).collect();
            prop_assert_eq!(read, expected);
            let mut found = Vec::new();
            mapped.outside(from as u64..to as u64, &mut found);
            let mut bytes: Vec<u64> = found.into_iter().flatten().collect();
            let mut expected = naive[from..to].to_vec();
            bytes.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn stripes_that_do_not_come_out_even_or_end_too_far_are_no_piece() {
        assert_eq!(Piece::striped(Vec::from([0, 100]), 30, 10), None);
        assert_eq!(Piece::striped(Vec::from([0, 100]), 40, 0), None);
        assert_eq!(Piece::striped(Vec::new(), 0, 10), None);
        assert_eq!(Piece::striped(Vec::from([u64::MAX - 5]), 10, 10), None);
        assert!(Piece::striped(Vec::from([0, 100]), 40, 10).is_some());
    }

    #[test]
    fn beyond_the_end_is_an_error() {
        let disk = vec![0; 100];
        let mapped = Mapped::new(Volume::new(&disk, 0, 100), Vec::from([Piece::linear(50, 60)]));
        assert_eq!(mapped.volume().bytes_at(0, 61), Err(Kept::TooLong));
        assert_eq!(mapped.volume().bytes_at(0, 51), Err(Kept::Unreadable(io::ErrorKind::UnexpectedEof)));
        assert!(mapped.volume().bytes_at(0, 50).is_ok());
    }
}
