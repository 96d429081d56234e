//! LVM2 physical volumes: extents that no logical volume has are unused, and what is inside of a logical volume is looked
//! into where its bytes lie on this physical volume as they are (linear and striped volumes).
//!
//! `label.rs` reads the label and the metadata areas, `text.rs` the text in them, `group.rs` what the text says of extents;
//! `rebuild.rs` writes a label and a metadata area for a group that was saved as text.
//! Formats: `lib/format_text/layout.h`, `lib/label/label.h` and `import_vsn1.c` of LVM2, checked with volume groups that
//! LVM 2.03.16 made.

mod group;
mod label;
mod rebuild;
mod text;

use super::inside::Inside;
use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use group::Group;
use label::Label;
#[cfg(any(fuzzing, test))]
pub(crate) use label::sum;
pub(crate) use rebuild::{RebuiltVolume, rebuild};

pub(super) const NAME: &str = "LVM2";

/// The row of the table of readers.
pub(super) const READER: Reader =
    Reader { probe: |head| Label::places(head).next().map(|_| NAME), unused: |volume, head| unused(volume, head) };

/// The free extents of the group on `volume`, and what is free in its logical volumes.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    let label = Label::read(volume, head)?;
    let text = label.text(volume)?;
    let group = Group::parse(&text, &label)?;
    let mut inside = Inside::default();
    if !group.is_alone {
        inside.note(format!(
            "volume group {} has other physical volumes: its logical volumes are kept as a whole",
            group.name
        ));
    }
    let mut used = Vec::new();
    for logical in &group.volumes {
        used.extend_from_slice(&logical.extents);
        let name = format!("logical volume {}/{}", group.name, logical.name);
        match &logical.pieces {
            Ok(pieces) if group.is_alone => inside.volume(volume, &name, pieces.clone()),
            Err(why) if group.is_alone && !logical.extents.is_empty() => {
                inside.note(format!("{name}: all of it is kept: {why}"));
            }
            _ => {}
        }
    }
    used.sort_unstable_by_key(|range| range.start);
    let mut end = 0;
    for range in used {
        if range.start < end {
            return Err(Kept::Disagree("logical volumes", "extents"));
        }
        inside.free(group.bytes_of(end..range.start));
        end = range.end;
    }
    inside.free(group.bytes_of(end..group.count));
    inside.finish()
}
