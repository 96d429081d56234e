//! The records of NTFS: their protected sectors, their attributes, and where the clusters of an attribute lie.

use super::volume::{Kept, Volume};
use crate::le::{array_at, u16_at, u32_at, u64_at};
use core::ops::Range;

/// The unit that an update sequence protects.
const STRIDE: usize = 512;

/// The kinds of attributes that are read.
pub(crate) mod kind {
    pub(crate) const LIST: u32 = 0x20;
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX_ALLOCATION: u32 = 0xA0;
}

/// Checks the magic number and puts the true last two bytes back into every 512: there stood the number of the write, the
/// same everywhere if the write was complete.
pub(crate) fn restore(record: &mut [u8], magic: [u8; 4]) -> Option<()> {
    if !record.starts_with(&magic) || !record.len().is_multiple_of(STRIDE) {
        return None;
    }
    let at = usize::from(u16_at(record, 4)?);
    let count = usize::from(u16_at(record, 6)?);
    if count != record.len() / STRIDE + 1 || at % 2 != 0 || at + 2 * count > STRIDE - 2 {
        return None;
    }
    let saved = record.get(at..at + 2 * count)?.to_vec();
    let (number, saved) = saved.split_at(2);
    for (stride, true_bytes) in record.chunks_exact_mut(STRIDE).zip(saved.chunks_exact(2)) {
        let tail = &mut stride[STRIDE - 2..];
        if tail != number {
            return None;
        }
        tail.copy_from_slice(true_bytes);
    }
    Some(())
}

/// One attribute of a file record.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'a> {
    raw: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The content of a resident attribute.
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        let len = usize::try_from(u32_at(self.raw, 16)?).ok()?;
        let at = usize::from(u16_at(self.raw, 20)?);
        if self.raw.get(8) == Some(&0) { self.raw.get(at..at.checked_add(len)?) } else { None }
    }

    /// Where the content of any other attribute lies, if it is stored plainly and begins in this record.
    pub(crate) fn stream(&self) -> Option<Stream> {
        let plain = u16_at(self.raw, 12)? & 0xC0FF == 0;
        if self.raw.get(8) != Some(&1) || !plain || u64_at(self.raw, 16)? != 0 {
            return None;
        }
        let runs = runs(self.raw.get(usize::from(u16_at(self.raw, 32)?)..)?)?;
        let clusters = runs.iter().try_fold(0_u64, |sum, run| sum.checked_add(run.end - run.start))?;
        let (bytes, written) = (u64_at(self.raw, 48)?, u64_at(self.raw, 56)?);
        let complete = u64_at(self.raw, 24)?.checked_add(1)? == clusters && written <= bytes;
        complete.then_some(Stream { runs, bytes, written })
    }
}

/// Whether a file record is one of a file.
pub(crate) fn is_in_use(record: &[u8]) -> bool {
    u16_at(record, 22).is_some_and(|flags| flags & 1 == 1)
}

/// The bytes of the attribute at `at` of a restored file record; nothing at the end of all of them, `None` where there can be none.
fn raw_attribute(record: &[u8], at: usize) -> Option<&[u8]> {
    let used = usize::try_from(u32_at(record, 24)?).ok()?.min(record.len());
    if u32_at(record, at)? == u32::MAX {
        return Some(&[]);
    }
    let len = usize::try_from(u32_at(record, at.checked_add(4)?)?).ok()?;
    let end = at.checked_add(len).filter(|end| len >= 24 && *end <= used)?;
    record.get(at..end)
}

/// The first attribute of this kind and name in a restored file record that is in use.
pub(crate) fn attribute<'a>(record: &'a [u8], wanted: u32, name: &str) -> Option<Attribute<'a>> {
    let mut at = usize::from(u16_at(record, 20)?);
    if !is_in_use(record) {
        return None;
    }
    loop {
        let raw = raw_attribute(record, at).filter(|raw| !raw.is_empty())?;
        let name_at = usize::from(u16_at(raw, 10)?);
        let name_len = 2 * usize::from(*raw.get(9)?);
        let its_name = raw.get(name_at..name_at + name_len)?.chunks_exact(2).map(|unit| [unit[0], unit[1]]);
        if u32_at(raw, 0)? == wanted && its_name.eq(name.encode_utf16().map(u16::to_le_bytes)) {
            return Some(Attribute { raw });
        }
        at += raw.len();
    }
}

/// All clusters that the attributes of a restored file record lie in; `None` where they are not as they have to be.
pub(crate) fn places(record: &[u8]) -> Option<Vec<Range<u64>>> {
    let mut at = usize::from(u16_at(record, 20)?);
    let mut places = Vec::new();
    loop {
        let raw = raw_attribute(record, at)?;
        match raw.get(8) {
            None => return Some(places),
            Some(0) => {}
            Some(_) => places.extend(mapped(raw.get(usize::from(u16_at(raw, 32)?)..)?)?.into_iter().flatten()),
        }
        at += raw.len();
    }
}

/// The runs of clusters in a mapping that has no holes.
fn runs(mapping: &[u8]) -> Option<Vec<Range<u64>>> {
    mapped(mapping)?.into_iter().collect()
}

/// The runs of clusters in a mapping, and its holes: a byte with the sizes of two numbers, the length, the distance to the run before. A hole has no
/// distance.
fn mapped(mut mapping: &[u8]) -> Option<Vec<Option<Range<u64>>>> {
    let mut runs = Vec::new();
    let mut cluster = 0_i64;
    loop {
        let (sizes, rest) = mapping.split_first()?;
        if *sizes == 0 {
            return Some(runs);
        }
        let (len_size, distance_size) = (usize::from(sizes & 0xF), usize::from(sizes >> 4));
        let len = signed(rest.get(..len_size)?).filter(|len| *len > 0)?;
        let distance = rest.get(len_size..len_size + distance_size)?;
        if distance.is_empty() {
            runs.push(None);
        } else {
            cluster = cluster.checked_add(signed(distance)?)?;
            let start = u64::try_from(cluster).ok()?;
            runs.push(Some(start..start.checked_add(len.unsigned_abs())?));
        }
        mapping = &rest[len_size + distance_size..];
    }
}

/// A little-endian number of one to eight bytes, the last of which has the sign.
fn signed(bytes: &[u8]) -> Option<i64> {
    let sign = if bytes.last()? & 0x80 != 0 { 0xFF } else { 0 };
    let mut wide = [sign; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

/// The content of an attribute: its clusters in order.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Runs of clusters of the volume.
    pub(crate) runs: Vec<Range<u64>>,
    /// Its length.
    pub(crate) bytes: u64,
    /// How much of it was ever written; what follows reads as zeros.
    pub(crate) written: u64,
}

impl Stream {
    /// Fills `buffer` from `at` of the content; the clusters have `cluster` bytes.
    pub(crate) fn read(&self, volume: &Volume<'_>, cluster: u64, at: u64, buffer: &mut [u8]) -> Result<(), Kept> {
        let end = at.saturating_add(buffer.len() as u64);
        let mut filled = 0;
        let mut run_at = 0_u64;
        for run in &self.runs {
            let bytes = (run.end - run.start).saturating_mul(cluster);
            let run_end = run_at.saturating_add(bytes);
            let (from, to) = (at.max(run_at), end.min(run_end));
            if from < to {
                let len = usize::try_from(to - from).unwrap_or(usize::MAX);
                let part = buffer.get_mut(filled..filled + len).ok_or(Kept::Corrupt("map of clusters"))?;
                volume.read(run.start.saturating_mul(cluster).saturating_add(from - run_at), part)?;
                filled += len;
            }
            run_at = run_end;
        }
        if filled < buffer.len() {
            return Err(Kept::Corrupt("map of clusters"));
        }
        let written = usize::try_from(self.written.saturating_sub(at)).unwrap_or(usize::MAX).min(filled);
        buffer[written..].fill(0);
        Ok(())
    }
}

/// An entry of an index of names: the number of its file record, its name.
pub(crate) fn names(index: &[u8]) -> Option<Vec<(u64, String)>> {
    let mut at = usize::try_from(u32_at(index, 0)?).ok()?;
    let end = usize::try_from(u32_at(index, 4)?).ok()?;
    let entries = index.get(..end)?;
    let mut found = Vec::new();
    loop {
        let entry = entries.get(at..)?;
        let (len, flags) = (usize::from(u16_at(entry, 8)?), u16_at(entry, 12)?);
        if flags & 2 != 0 {
            return Some(found);
        }
        if len < 16 + 66 {
            return None;
        }
        let entry = entry.get(..len)?;
        let units = entry.get(16 + 66..)?.get(..2 * usize::from(entry[16 + 64]))?.chunks_exact(2);
        let name =
            String::from_utf16_lossy(&units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect::<Vec<_>>());
        let [a, b, c, d, e, f, ..] = array_at::<8>(entry, 0)?;
        found.push((u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), name));
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_count_from_the_run_before_forwards_and_backwards() {
        // 0x18 clusters at 0x5634, then 0x10 clusters 0x20 before that.
        assert_eq!(runs(&[0x21, 0x18, 0x34, 0x56, 0x11, 0x10, 0xE0, 0]), Some(vec![0x5634..0x564C, 0x5614..0x5624]));
        assert_eq!(runs(&[0]), Some(vec![]));
        for bad in [&[][..], &[0x21, 0x18, 0x34], &[0x01, 0x18, 0], &[0x11, 0, 1, 0], &[0x11, 1, 0xFF, 0], &[0x99; 30]]
        {
            assert_eq!(runs(bad), None, "{bad:x?}");
        }
        let sparse = [0x01, 0x18, 0x11, 2, 5, 0x01, 3, 0x11, 1, 2, 0];
        assert_eq!((runs(&sparse), mapped(&sparse)), (None, Some(vec![None, Some(5..7), None, Some(7..8)])));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(mut bytes in prop::collection::vec(any::<u8>(), 1024), small in any::<bool>()) {
            let _ = runs(&bytes);
            if small {
                for at in (1..bytes.len()).step_by(2) {
                    bytes[at] = 0;
                }
            }
            let _ = names(&bytes);
            let _ = places(&bytes);
            let data = attribute(&bytes, kind::DATA, "");
            let _ = data.map(|data| (data.value().is_some(), data.stream().is_some()));
            let _ = restore(&mut bytes, [0; 4]);
        }
    }
}
