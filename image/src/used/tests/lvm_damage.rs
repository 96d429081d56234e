//! LVM2 metadata that is cut, damaged or wrong: refused, or nothing that is in use is called free.

use super::oracle::{Front, MIB, Numbers, sum, unused_of};
use super::pv;
use crate::used::scan;

const LINEAR: &str = "extent_count = 3\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 2]";
const BYTES: u64 = 64 * MIB;
/// Where the text of [`disk`] begins.
const TEXT: usize = 4096 + 512;

/// A disk with one logical volume, in extents 2 to 4 of 15, in which swap space is.
fn disk(volumes: &str) -> Vec<u8> {
    let mut disk = vec![0; 22 << 20];
    let swap = &mut disk[9 << 20..];
    swap[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    swap[1028..1032].copy_from_slice(&1023_u32.to_le_bytes());
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    pv::write(&mut disk, BYTES, MIB, &pv::group(15, volumes), 0);
    disk
}

fn found(disk: &[u8]) -> Result<u64, String> {
    let disk = Front { bytes: disk, len: BYTES };
    let report = scan(&disk, BYTES, 512);
    let note = report.partitions[0].note.clone();
    if note.is_empty() { Ok(sum(&report.unused)) } else { Err(note) }
}

#[test]
fn a_volume_in_pieces_anywhere_has_its_inside_read() {
    // 12 extents that nobody has, and what of 12 MiB lies behind the header page of swap of 4 MiB.
    assert_eq!(found(&disk(&pv::volume("swap", LINEAR))), Ok(12 * 4 * MIB + 4 * MIB - 4096));
}

#[test]
fn free_space_where_programs_look_for_signatures_in_a_logical_volume_becomes_zeros() {
    let disk = disk(&pv::volume("swap", LINEAR));
    let report = scan(&Front { bytes: &disk, len: BYTES }, BYTES, 512);
    let volume = 9 * MIB;
    // Behind the header page of swap to the last place at the front; 1 and 2 MiB behind it; and no other free space there.
    for zeros in [4096..528 << 10, MIB..MIB + 16384, 2 * MIB..2 * MIB + 16384] {
        let zeros = volume + zeros.start..volume + zeros.end;
        assert!(report.zeros.contains(&zeros), "{zeros:?} is not in {:?}", report.zeros);
    }
    assert!(!report.zeros.iter().any(|zeros| zeros.start <= volume + 3 * MIB && volume + 3 * MIB < zeros.end));
}

#[test]
fn a_disk_cut_at_any_sector_is_kept() {
    let disk = disk(&pv::volume("swap", LINEAR));
    let cuts = (0..MIB).step_by(512).chain((MIB..BYTES).step_by(128 << 10));
    for len in cuts {
        let short = Front { bytes: &disk, len };
        assert!(unused_of(&short, len).1.is_err(), "of {len} bytes");
        assert_eq!(scan(&short, BYTES, 512).unused, [], "of {len} bytes");
    }
}

#[test]
fn a_flipped_bit_in_label_header_or_text_keeps_everything() {
    let mut disk = disk(&pv::volume("swap", LINEAR));
    let text = pv::group(15, &pv::volume("swap", LINEAR)).len();
    let places: Vec<usize> = (512..1024).chain(4096..4608).chain(TEXT..TEXT + text).collect();
    for (no, at) in places.into_iter().enumerate() {
        disk[at] ^= 1 << (no % 8);
        let source = Front { bytes: &disk, len: BYTES };
        assert_eq!(scan(&source, BYTES, 512).unused, [], "byte {at}");
        disk[at] ^= 1 << (no % 8);
    }
}

#[test]
fn metadata_that_contradict_themselves_keep_everything() {
    let plain = pv::volume("swap", LINEAR);
    let other = |from: &str, to: &str| plain.replace(from, to);
    let corrupt = "all of it is kept: its LVM2 metadata cannot be right";
    let cases = [
        (other("\"pv0\", 2", "\"pv0\", 13"), corrupt),
        (other("\"pv0\", 2", "\"pv0\", 18446744073709551615"), corrupt),
        (other("extent_count = 3", "extent_count = 18446744073709551615"), corrupt),
        (other("extent_count = 3", "extent_count = 0"), corrupt),
        (other("start_extent = 0", "start_extent = 1"), corrupt),
        (other("segment_count = 1", "segment_count = 2"), corrupt),
        (other("segment1 {", "segment2 {"), corrupt),
        (other("\"pv0\"", "\"pv7\""), corrupt),
        (other("stripe_count = 1", "stripe_count = 2"), corrupt),
        (other("\"pv0\", 2", "\"pv0\""), corrupt),
        (
            format!("{plain}{}", pv::volume("twice", LINEAR)),
            "all of it is kept: its logical volumes and its extents disagree",
        ),
        (
            other("\"striped\"", "\"quilted\""),
            "all of it is kept: the free space of a kind of logical volume that is not known is not read",
        ),
        (plain.clone() + &plain, corrupt),
    ];
    for (volumes, expected) in cases {
        assert_eq!(found(&disk(&volumes)), Err(expected.to_owned()), "{volumes}");
    }
    let changes = [
        ("pe_start = 2048", "pe_start = 4096", "its LVM2 label and its metadata disagree"),
        ("pe_count = 15", "pe_count = 16", "it ends behind its partition"),
        ("pe_count = 15", "pe_count = 18446744073709551615", "its LVM2 metadata cannot be right"),
        ("extent_size = 8192", "extent_size = 0", "its LVM2 metadata cannot be right"),
        ("\"abcdef-", "\"bbcdef-", "its LVM2 label and its metadata disagree"),
        (
            "flags = []\npe_start",
            "flags = [\"MISSING\"]\npe_start",
            "the free space of a volume group that misses a physical volume is not read",
        ),
        ("\nversion = 1", "\nversion = 2", "the free space of this version of LVM2 metadata is not read"),
        ("\"lvm2\"", "\"lvm3\"", "the free space of this version of LVM2 metadata is not read"),
        (
            "pe_start = 2048\n",
            "pe_start = 2048\nba_start = 4096\nba_size = 8\n",
            "its extents and its places of its metadata disagree",
        ),
    ];
    for (from, to, expected) in changes {
        let text = pv::group(15, &plain);
        assert!(text.contains(from), "{from}");
        let mut disk = disk(&plain);
        pv::write(&mut disk, BYTES, MIB, &text.replace(from, to), 0);
        assert_eq!(found(&disk), Err(format!("all of it is kept: {expected}")), "{to}");
    }
}

#[test]
fn changed_texts_with_right_checksums_never_free_the_metadata_or_panic() {
    let text = pv::group(15, &(pv::volume("swap", LINEAR) + &pv::volume("two", &LINEAR.replace("0\", 2", "0\", 9"))));
    let mut numbers = Numbers(0x1234_5678_9ABC_DEF1);
    let mut disk = disk("");
    let mut read = 0;
    for _ in 0..1500 {
        let mut changed = text.clone().into_bytes();
        for _ in 0..1 + numbers.below(3) {
            let at = usize::try_from(numbers.below(changed.len() as u64)).unwrap();
            match numbers.below(3) {
                0 => changed[at] = b"0123456789{}[]\"=,# "[usize::try_from(numbers.below(19)).unwrap()],
                1 => drop(changed.remove(at)),
                _ => changed.insert(at, changed[at]),
            }
        }
        let Ok(changed) = String::from_utf8(changed) else { continue };
        pv::write(&mut disk, BYTES, MIB, &changed, 0);
        let source = Front { bytes: &disk, len: BYTES };
        if let Ok(free) = unused_of(&source, BYTES).1 {
            assert!(free.iter().all(|range| range.start >= MIB && range.end <= BYTES), "{changed}");
            read += 1;
        }
    }
    assert!(read > 50, "{read} were read");
}

#[test]
fn a_text_that_wraps_in_its_ring_is_read_as_if_it_did_not() {
    let volumes = pv::volume("swap", LINEAR);
    let text = pv::group(15, &volumes);
    let whole = found(&disk(&volumes));
    let ring = MIB - 4096 - 512;
    for at in [0, 512, ring - 1, ring - 100, ring - text.len() as u64, ring - text.len() as u64 + 1] {
        let mut disk = disk(&volumes);
        disk[TEXT..usize::try_from(MIB).unwrap()].fill(0xEE);
        pv::write(&mut disk, BYTES, MIB, &text, at);
        assert_eq!(found(&disk), whole, "{at} into the ring");
    }
}

#[test]
fn volumes_inside_of_volumes_are_read_four_deep_and_no_further() {
    // Each has the next in all of its extents, which are all that it has.
    let mut inner = vec![0; 4 << 20];
    inner[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    inner[1028..1032].copy_from_slice(&1023_u32.to_le_bytes());
    inner[4086..4096].copy_from_slice(b"SWAPSPACE2");
    for depth in 1..7 {
        let extents = inner.len().div_ceil(4 << 20);
        let mut outer = vec![0; (1 << 20) + extents * (4 << 20)];
        outer[1 << 20..][..inner.len()].copy_from_slice(&inner);
        let segment = format!("extent_count = {extents}\ntype = \"linear\"\nstripe_count = 1\nstripes = [\"pv0\", 0]");
        let bytes = outer.len() as u64;
        pv::write(&mut outer, bytes, MIB, &pv::group(extents as u64, &pv::volume("in", &segment)), 0);
        let report = scan(&outer, bytes, 512);
        if depth <= 4 {
            assert_eq!(report.partitions[0].unused_bytes, 4 * MIB - 4096, "{depth}: {:?}", report.notes);
        } else {
            assert_eq!(report.unused, []);
            assert!(report.notes[0].ends_with("it lies inside of too many other volumes"), "{:?}", report.notes);
        }
        inner = outer;
    }
}
