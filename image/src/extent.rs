//! The extent map of a layer: what it says about which grains of the disk.
//!
//! Four states are kept apart. **Data** lies in a block, of this layer or of an older one. **Fill** is eight bytes
//! repeated. **Unused** means that the content does not matter. What no extent mentions is **absent**: the parent
//! decides. On disk an extent is the gap since the last one, then length and kind in one number, then its argument.

use crate::varint::{self, Reader};
use slidecast_proto::wire::Malformed;

/// What is in an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Grains stored in the blocks of layer `layer` (0 is the base), from `grain` on, counted through all its blocks.
    Data { layer: u32, grain: u64 },
    /// Eight bytes repeated.
    Fill(u64),
    /// The content does not matter.
    Unused,
}

impl Kind {
    /// The same, `by` grains further on.
    pub(crate) fn skip(self, by: u64) -> Self {
        match self {
            Self::Data { layer, grain } => Self::Data { layer, grain: grain + by },
            other => other,
        }
    }
}

/// A run of grains of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) grains: u64,
    pub(crate) kind: Kind,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.grains
    }
}

const DATA: u64 = 0;
const ZERO: u64 = 1;
const UNUSED: u64 = 2;
const FILL: u64 = 3;

/// Encodes an extent map as it is found, joining what touches.
#[derive(Debug, Default)]
pub(crate) struct ExtentWriter {
    bytes: Vec<u8>,
    end: u64,
    /// The grain after the last data extent.
    next: u64,
    open: Option<Extent>,
}

impl ExtentWriter {
    /// Adds what lies behind everything added before.
    pub(crate) fn push(&mut self, extent: Extent) {
        if let Some(open) = &mut self.open {
            if open.end() == extent.start && open.kind.skip(open.grains) == extent.kind {
                open.grains += extent.grains;
                return;
            }
            let done = *open;
            self.write(done);
        }
        self.open = Some(extent);
    }

    fn write(&mut self, extent: Extent) {
        let out = &mut self.bytes;
        let kind = match extent.kind {
            Kind::Data { .. } => DATA,
            Kind::Fill(0) => ZERO,
            Kind::Fill(_) => FILL,
            Kind::Unused => UNUSED,
        };
        varint::put(out, extent.start - self.end);
        varint::put(out, extent.grains << 2 | kind);
        match extent.kind {
            Kind::Data { layer, grain } => {
                varint::put(out, u64::from(layer));
                varint::put_signed(out, grain.cast_signed() - self.next.cast_signed());
                self.next = grain + extent.grains;
            }
            Kind::Fill(pattern) if pattern != 0 => out.extend_from_slice(&pattern.to_le_bytes()),
            Kind::Fill(_) | Kind::Unused => {}
        }
        self.end = extent.end();
    }

    /// How long the encoding is so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The encoded map.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if let Some(open) = self.open.take() {
            self.write(open);
        }
        self.bytes
    }
}

/// Reads an extent map that was checked before: ends at the first thing it cannot be.
pub(crate) fn extents(bytes: &[u8]) -> impl Iterator<Item = Extent> {
    let mut reader = MapReader::new(bytes);
    core::iter::from_fn(move || reader.next().ok().flatten())
}

#[derive(Debug)]
struct MapReader<'a> {
    reader: Reader<'a>,
    end: u64,
    next: u64,
}

impl<'a> MapReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes, "extent map"), end: 0, next: 0 }
    }

    fn next(&mut self) -> Result<Option<Extent>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let malformed = self.reader.malformed();
        let start = self.end.checked_add(self.reader.varint()?).ok_or(malformed)?;
        let word = self.reader.varint()?;
        let grains = word >> 2;
        self.end = start.checked_add(grains).filter(|_| grains > 0).ok_or(malformed)?;
        let kind = match word & 3 {
            DATA => {
                let layer = self.reader.varint_u32()?;
                let grain = self.next.checked_add_signed(self.reader.signed()?).ok_or(malformed)?;
                self.next = grain.checked_add(grains).ok_or(malformed)?;
                Kind::Data { layer, grain }
            }
            ZERO => Kind::Fill(0),
            UNUSED => Kind::Unused,
            _ => Kind::Fill(self.reader.fixed_u64()?),
        };
        Ok(Some(Extent { start, grains, kind }))
    }
}

/// Checks the map of the layer at depth `stored.len() - 1`: inside a disk of `disk_grains`, data inside the grains that
/// each layer stores, and every grain mentioned that the disk of its parent, of `parent_grains`, does not have. A base
/// has a parent without grains. Gives the number of extents.
pub(crate) fn check(bytes: &[u8], disk_grains: u64, parent_grains: u64, stored: &[u64]) -> Result<u64, Malformed> {
    let mut reader = MapReader::new(bytes);
    let (mut count, mut end) = (0, 0);
    while let Some(extent) = reader.next()? {
        let inside = match extent.kind {
            Kind::Data { layer, grain } => {
                stored.get(layer as usize).is_some_and(|stored| grain + extent.grains <= *stored)
            }
            Kind::Fill(_) | Kind::Unused => true,
        };
        let missing = extent.start > end && extent.start > parent_grains;
        if !inside || extent.end() > disk_grains || missing {
            return Err(Malformed { what: "extent map" });
        }
        end = extent.end();
        count += 1;
    }
    if end < disk_grains && disk_grains > parent_grains {
        return Err(Malformed { what: "extent map" });
    }
    Ok(count)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Extents of a layer at depth `layer`, in order, with gaps.
    pub(crate) fn layer(layer: u32, disk: u64, stored: u64) -> impl Strategy<Value = Vec<Extent>> {
        let kind = prop_oneof![
            (0..=layer, 0..stored).prop_map(|(layer, grain)| Kind::Data { layer, grain }),
            (0u64..3).prop_map(Kind::Fill),
            Just(Kind::Unused),
        ];
        vec((0u64..6, 1u64..10, kind), 0..30).prop_map(move |runs| {
            let mut at = 0;
            let mut out = Vec::new();
            for (gap, grains, kind) in runs {
                let start = at + if layer == 0 { 0 } else { gap };
                let room = match kind {
                    Kind::Data { grain, .. } => stored - grain,
                    _ => grains,
                };
                let grains = grains.min(room).min(disk.saturating_sub(start));
                if grains > 0 {
                    out.push(Extent { start, grains, kind });
                    at = start + grains;
                }
            }
            if layer == 0 && at < disk {
                out.push(Extent { start: at, grains: disk - at, kind: Kind::Fill(0) });
            }
            out
        })
    }

    fn encode(extents: &[Extent]) -> Vec<u8> {
        let mut writer = ExtentWriter::default();
        extents.iter().for_each(|extent| writer.push(*extent));
        writer.finish()
    }

    fn grain_by_grain(extents: impl Iterator<Item = Extent>) -> Vec<(u64, Kind)> {
        extents.flat_map(|e| (0..e.grains).map(move |at| (e.start + at, e.kind.skip(at)))).collect()
    }

    proptest! {
        #[test]
        fn maps_come_back(map in layer(2, 100, 50)) {
            let bytes = encode(&map);
            prop_assert!(check(&bytes, 100, 100, &[50, 50, 50]).is_ok());
            prop_assert_eq!(grain_by_grain(extents(&bytes)), grain_by_grain(map.into_iter()));
        }

        #[test]
        fn noise_never_panics(bytes in vec(any::<u8>(), 0..100)) {
            let _ = check(&bytes, 100, 60, &[50, 50]);
            let _ = extents(&bytes).count();
        }
    }

    #[test]
    fn a_map_has_its_golden_bytes() {
        let map = [
            Extent { start: 0, grains: 300, kind: Kind::Data { layer: 1, grain: 0 } },
            Extent { start: 300, grains: 1, kind: Kind::Fill(0) },
            Extent { start: 310, grains: 2, kind: Kind::Fill(0x0102) },
            Extent { start: 312, grains: 3, kind: Kind::Unused },
            Extent { start: 315, grains: 1, kind: Kind::Data { layer: 0, grain: 299 } },
        ];
        let golden = [0, 0xb0, 9, 1, 0, 0, 5, 9, 11, 2, 1, 0, 0, 0, 0, 0, 0, 0, 14, 0, 4, 0, 1];
        assert_eq!(encode(&map), golden);
    }

    #[test]
    fn a_map_must_say_what_the_disk_of_its_parent_has_not() {
        let map = |runs: &[(u64, u64)]| {
            encode(
                &runs.iter().map(|&(start, grains)| Extent { start, grains, kind: Kind::Unused }).collect::<Vec<_>>(),
            )
        };
        let good = |runs: &[(u64, u64)], disk, parent| check(&map(runs), disk, parent, &[10, 10]).is_ok();
        assert!(good(&[(1, 2), (10, 5)], 15, 10) && good(&[(8, 4), (12, 3)], 15, 10) && good(&[(0, 15)], 15, 10));
        assert!(!good(&[], 15, 10) && !good(&[(10, 4)], 15, 10) && !good(&[(11, 4)], 15, 10));
        assert!(!good(&[(9, 2), (12, 3)], 15, 10) && !good(&[(1, 2)], 15, 10));
        assert!(good(&[], 8, 10) && good(&[(1, 2)], 8, 10) && !good(&[(7, 2)], 8, 10));
    }

    #[test]
    fn a_map_that_reaches_outside_is_refused() {
        let map = |start, grains, kind| encode(&[Extent { start, grains, kind }]);
        let data = |layer, grain| Kind::Data { layer, grain };
        assert!(check(&map(0, 10, data(0, 0)), 10, 0, &[10]).is_ok());
        assert!(check(&map(0, 11, Kind::Unused), 10, 0, &[10]).is_err());
        assert!(check(&map(0, 10, data(0, 1)), 10, 0, &[10]).is_err());
        assert!(check(&map(0, 10, data(1, 0)), 10, 0, &[10]).is_err());
        assert!(check(&map(1, 9, Kind::Unused), 10, 0, &[10]).is_err());
        assert!(check(&map(0, 9, Kind::Unused), 10, 0, &[10]).is_err());
        assert!(check(&map(1, 8, Kind::Unused), 10, 10, &[10, 0]).is_ok());
    }
}
