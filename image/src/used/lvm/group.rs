//! What the text of a volume group says of the extents of one physical volume.

use super::label::Label;
use super::text::{Section, Value};
use crate::used::mapped::Piece;
use crate::used::volume::Kept;
use core::ops::Range;
use std::collections::BTreeSet;

const SECTOR: u64 = 512;
const CORRUPT: Kept = Kept::Corrupt("LVM2 metadata");
/// The longest name that LVM2 gives.
const MAX_NAME: usize = 127;

/// A volume group, as far as it is on one physical volume.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    /// Where the first extent lies, the size of one, and how many there are.
    first: u64,
    extent: u64,
    pub(super) count: u64,
    /// Whether the group has no other physical volume.
    pub(super) is_alone: bool,
    pub(super) volumes: Vec<Logical<'a>>,
}

/// A logical volume, as far as it is on this physical volume.
#[derive(Debug)]
pub(super) struct Logical<'a> {
    pub(super) name: &'a str,
    /// Its extents here, in no order.
    pub(super) extents: Vec<Range<u64>>,
    /// Where its bytes lie; or why it cannot be looked into.
    pub(super) pieces: Result<Vec<Piece>, &'static str>,
}

/// The names that a text gives to physical volumes.
struct Physical<'a> {
    this: &'a str,
    others: BTreeSet<&'a str>,
}

impl<'a> Group<'a> {
    /// Reads the text of a group to which the physical volume with this label belongs.
    pub(super) fn parse(text: &'a [u8], label: &Label) -> Result<Self, Kept> {
        let root = Section::parse(text).ok_or(CORRUPT)?;
        let versions = (root.text("contents"), root.number("version"));
        if versions != (Some("Text Format Volume Group"), Some(1)) {
            return Err(Kept::NotRead("this version of LVM2 metadata"));
        }
        let mut groups = root.sections();
        let (Some((name, group)), None) = (groups.next(), groups.next()) else { return Err(CORRUPT) };
        let known = ["physical_volumes", "logical_volumes", "historical_logical_volumes"];
        if group.get("format").is_some_and(|format| *format != Value::Text("lvm2"))
            || group.sections().any(|(name, _)| !known.contains(&name))
        {
            return Err(Kept::NotRead("this version of LVM2 metadata"));
        }
        if name.len() > MAX_NAME {
            return Err(CORRUPT);
        }
        let extent = group.number("extent_size").and_then(|sectors| sectors.checked_mul(SECTOR));
        let extent = extent.filter(|extent| *extent > 0).ok_or(CORRUPT)?;
        let (physical, this) = Physical::find(group.section("physical_volumes").ok_or(CORRUPT)?, label)?;
        let (first, count) = extents_of(this, label, extent)?;
        let is_alone = physical.others.is_empty();
        let mut found = Self { name, first, extent, count, is_alone, volumes: Vec::new() };
        if let Some(logical) = group.section("logical_volumes") {
            found.add(logical, &physical)?;
        }
        Ok(found)
    }

    /// Where extents lie on the physical volume.
    pub(super) fn bytes_of(&self, extents: Range<u64>) -> Range<u64> {
        self.first + extents.start * self.extent..self.first + extents.end * self.extent
    }

    /// Adds all logical volumes.
    fn add(&mut self, all: &Section<'a>, physical: &Physical<'a>) -> Result<(), Kept> {
        let names: BTreeSet<&str> = all.sections().map(|(name, _)| name).collect();
        let mut mentioned = BTreeSet::new();
        for (_, segment) in all.sections().flat_map(|(_, logical)| logical.sections()) {
            mentioned.extend(texts(segment));
        }
        for (name, logical) in all.sections() {
            let mut extents = Vec::new();
            let mut pieces = Ok(Vec::new());
            let segments = logical.number("segment_count").ok_or(CORRUPT)?;
            if logical.sections().count() as u64 != segments || name.len() > MAX_NAME {
                return Err(CORRUPT);
            }
            let mut next = 0;
            for (no, (title, segment)) in (1_u64..).zip(logical.sections()) {
                if title != format!("segment{no}") {
                    return Err(CORRUPT);
                }
                let len = segment.number("extent_count").filter(|len| *len > 0).ok_or(CORRUPT)?;
                if segment.number("start_extent") != Some(next) {
                    return Err(CORRUPT);
                }
                next = next.checked_add(len).ok_or(CORRUPT)?;
                let areas = areas(segment, physical, &names)?;
                self.take(&areas, &mut extents)?;
                let piece = self.piece(segment, len, &areas);
                pieces = pieces.and_then(|mut pieces: Vec<Piece>| {
                    pieces.push(piece.ok_or("it is no linear or striped volume on one disk")?);
                    Ok(pieces)
                });
            }
            let visible = logical.list("status").is_some_and(|status| status.contains(&Value::Text("VISIBLE")));
            if !visible || mentioned.contains(name) {
                pieces = Err("it is part of a thin, cached, mirrored or snapshot volume");
            }
            self.volumes.push(Logical { name, extents, pieces });
        }
        Ok(())
    }

    /// Adds the extents that a segment has on this physical volume.
    fn take(&self, areas: &Areas, extents: &mut Vec<Range<u64>>) -> Result<(), Kept> {
        for start in areas.here.iter().flatten() {
            let end = start.checked_add(areas.len).filter(|end| *end <= self.count).ok_or(CORRUPT)?;
            extents.push(*start..end);
        }
        Ok(())
    }

    /// Where the bytes of a segment of `len` extents lie, if all of them are on this physical volume as they are.
    fn piece(&self, segment: &Section<'_>, len: u64, areas: &Areas) -> Option<Piece> {
        if !areas.as_they_are {
            return None;
        }
        let bytes = len.checked_mul(self.extent)?;
        let place = |start: &Option<u64>| start.map(|start| self.bytes_of(start..start).start);
        let places: Vec<u64> = areas.here.iter().map(place).collect::<Option<_>>()?;
        match places.as_slice() {
            [place] => Some(Piece::linear(*place, bytes)),
            _ => Piece::striped(places, bytes, segment.number("stripe_size")?.checked_mul(SECTOR)?),
        }
    }
}

impl<'a> Physical<'a> {
    /// The physical volumes of a group, and the one with this label.
    fn find<'s>(all: &'s Section<'a>, label: &Label) -> Result<(Self, &'s Section<'a>), Kept> {
        let mut found = None;
        let mut others = BTreeSet::new();
        for (name, section) in all.sections() {
            let id = section.text("id").ok_or(CORRUPT)?;
            if !id.bytes().filter(|byte| *byte != b'-').eq(label.uuid) {
                others.insert(name);
            } else if found.replace((name, section)).is_some() {
                return Err(CORRUPT);
            }
            let flags = [section.list("flags"), section.list("status")];
            if flags.into_iter().flatten().any(|flags| flags.contains(&Value::Text("MISSING"))) {
                return Err(Kept::NotRead("a volume group that misses a physical volume"));
            }
        }
        let (this, section) = found.ok_or(Kept::Disagree("LVM2 label", "metadata"))?;
        Ok((Self { this, others }, section))
    }
}

/// Where the first extent of a physical volume is, and how many it has.
fn extents_of(this: &Section<'_>, label: &Label, extent: u64) -> Result<(u64, u64), Kept> {
    let first = this.number("pe_start").and_then(|sectors| sectors.checked_mul(SECTOR)).ok_or(CORRUPT)?;
    let count = this.number("pe_count").ok_or(CORRUPT)?;
    if first != label.data {
        return Err(Kept::Disagree("LVM2 label", "metadata"));
    }
    let end = count.checked_mul(extent).and_then(|data| first.checked_add(data)).ok_or(CORRUPT)?;
    if end > label.bytes {
        return Err(Kept::TooLong);
    }
    // Extents over the label or over a metadata area would be written by the logical volumes that have them.
    let apart = |area: &Range<u64>| area.end <= first || area.start >= end;
    let boot = [this.number("ba_start").unwrap_or(0), this.number("ba_size").unwrap_or(0)];
    let boot = boot[0].checked_mul(SECTOR).zip(boot[0].checked_add(boot[1]).and_then(|end| end.checked_mul(SECTOR)));
    let boot = boot.map(|(start, end)| start..end).ok_or(CORRUPT)?;
    if first < 2048 || !label.areas.iter().chain([&boot]).all(apart) {
        return Err(Kept::Disagree("extents", "places of its metadata"));
    }
    Ok((first, count))
}

/// The areas of a segment.
struct Areas {
    /// Where each begins if it is on this physical volume, in the order of the segment.
    here: Vec<Option<u64>>,
    /// Extents of each.
    len: u64,
    /// Whether the areas in their order are the bytes of the segment.
    as_they_are: bool,
}

/// Which extents a segment has. `names` are those of logical volumes.
fn areas(segment: &Section<'_>, physical: &Physical<'_>, names: &BTreeSet<&str>) -> Result<Areas, Kept> {
    let kind = segment.text("type").ok_or(CORRUPT)?;
    let len = segment.number("extent_count").ok_or(CORRUPT)?;
    let (key, striped) = match kind {
        "striped" | "linear" => ("stripes", true),
        "mirror" => ("mirrors", false),
        // All others lie on logical volumes.
        _ => {
            let is_physical = |name: &str| name == physical.this || physical.others.contains(name);
            if texts(segment).any(is_physical) {
                return Err(Kept::NotRead("a kind of logical volume that is not known"));
            }
            return Ok(Areas { here: Vec::new(), len: 0, as_they_are: false });
        }
    };
    let list = segment.list(key).ok_or(CORRUPT)?;
    let mut here = Vec::new();
    let pairs = list.chunks_exact(2);
    if !pairs.remainder().is_empty() || list.is_empty() {
        return Err(CORRUPT);
    }
    for pair in pairs {
        let [Value::Text(name), Value::Number(start)] = pair else { return Err(CORRUPT) };
        if *name == physical.this {
            here.push(Some(*start));
        } else if physical.others.contains(name) || names.contains(name) {
            here.push(None);
        } else {
            return Err(CORRUPT);
        }
    }
    let count = here.len() as u64;
    if segment.number(if striped { "stripe_count" } else { "mirror_count" }) != Some(count) {
        return Err(CORRUPT);
    }
    if striped && !len.is_multiple_of(count) {
        return Err(CORRUPT);
    }
    Ok(Areas { here, len: if striped { len / count } else { len }, as_they_are: striped })
}

/// All texts in a segment but its type: the names of volumes are among them.
fn texts<'a>(segment: &Section<'a>) -> impl Iterator<Item = &'a str> {
    let values = segment.0.iter().filter(|(key, _)| *key != "type").flat_map(|(_, value)| match value {
        Value::List(list) => list.clone(),
        value => Vec::from([value.clone()]),
    });
    values.filter_map(|value| if let Value::Text(text) = value { Some(text) } else { None })
}
