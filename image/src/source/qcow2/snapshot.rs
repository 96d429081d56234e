//! Internal snapshots: first tables of their own, with names.

use super::super::bytes::{be16, be32, be64, fill, read};
use super::super::{DiskSource, ImportFault, RawDisk};
use super::header::{Header, View};

/// No more snapshots are looked through, and no entry of the table is longer (QEMU's limits).
const MAX_SNAPSHOTS: u32 = 65536;
const FIXED: usize = 40;
const MAX_EXTRA: usize = 1024;

struct Snapshot {
    id: String,
    name: String,
    view: View,
}

/// The view of the snapshot whose name, or else whose id, is `asked`.
pub(super) fn find(file: &RawDisk, header: &Header, asked: &str) -> Result<View, ImportFault> {
    let (mut by_id, mut names) = (None, Vec::new());
    let mut by_name = None;
    let mut tables = vec![header.active().table()];
    each(file, header, |snapshot| {
        tables.push(snapshot.view.table());
        if snapshot.name == asked {
            by_name.get_or_insert(snapshot.view);
        } else if snapshot.id == asked {
            by_id.get_or_insert(snapshot.view);
        }
        // Enough for a message.
        if names.len() < 20 {
            names.push(snapshot.name);
        }
    })?;
    let view = by_name.or(by_id).ok_or_else(|| ImportFault::NoSnapshot { asked: asked.to_owned(), has: names })?;
    header.check(&view)?;
    // Each has a table of its own. A place that is another one's was damaged, and would give the disk of another time.
    let own = view.table();
    if tables.iter().filter(|table| table.start < own.end && own.start < table.end).count() > 1 {
        return Err(ImportFault::Damaged { what: "first table of the snapshot", offset: view.l1_offset });
    }
    Ok(view)
}

/// The names of all snapshots.
pub(super) fn names(file: &RawDisk, header: &Header) -> Result<Vec<String>, ImportFault> {
    let mut names = Vec::new();
    each(file, header, |snapshot| names.push(snapshot.name))?;
    Ok(names)
}

fn each(file: &RawDisk, header: &Header, mut take: impl FnMut(Snapshot)) -> Result<(), ImportFault> {
    if header.snapshots > MAX_SNAPSHOTS {
        return Err(ImportFault::TooLarge { what: "snapshot table" });
    }
    let mut at = header.snapshots_offset;
    for _ in 0..header.snapshots {
        let damaged = ImportFault::Damaged { what: "snapshot table", offset: at };
        let mut fixed = [0; FIXED];
        fill(file, "snapshot table", at, &mut fixed)?;
        let (id_len, name_len) = (usize::from(be16(&fixed, 12)), usize::from(be16(&fixed, 14)));
        let extra_len = be32(&fixed, 36) as usize;
        if extra_len > MAX_EXTRA || at > file.bytes() {
            return Err(damaged);
        }
        let rest = read(file, "snapshot table", at + FIXED as u64, extra_len + id_len + name_len)?;
        let (extra, names) = rest.split_at(extra_len);
        let (id, name) = names.split_at(id_len);
        // Old entries do not have the size of the disk: it had that of today.
        let bytes = if extra.len() >= 16 { be64(extra, 8) } else { header.active().bytes };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let view = View { bytes, l1_offset: be64(&fixed, 0), l1_entries: be32(&fixed, 8) };
        take(Snapshot { id: text(id), name: text(name), view });
        at += (FIXED + rest.len()).next_multiple_of(8) as u64;
    }
    Ok(())
}
