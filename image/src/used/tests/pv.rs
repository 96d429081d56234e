//! Physical volumes written by hand: texts that LVM2 would not write, or not on one disk.

use crate::used::lvm_sum;

/// The text of a group with one physical volume of `count` extents of 4 MiB from 1 MiB on.
pub(super) fn group(count: u64, volumes: &str) -> String {
    format!(
        "vg0 {{\nid = \"{}\"\nseqno = 3\nformat = \"lvm2\"\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\n\
         extent_size = 8192\nphysical_volumes {{\npv0 {{\nid = \"abcdef-0123-4567-89ab-cdef-0123-456789\"\n\
         status = [\"ALLOCATABLE\"]\nflags = []\npe_start = 2048\npe_count = {count}\n}}\n}}\nlogical_volumes {{\n{volumes}\n}}\n}}\n\
         # Written by a test\ncontents = \"Text Format Volume Group\"\nversion = 1\n\0",
        "x".repeat(32)
    )
}

/// A logical volume of one segment that begins at its front.
pub(super) fn volume(name: &str, segment: &str) -> String {
    format!(
        "{name} {{\nid = \"{name}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\nsegment_count = 1\n\
         segment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
    )
}

/// Writes the label of a device of `bytes` bytes, its header, and one metadata area up to `end`, with the text `at` bytes
/// into the ring.
pub(super) fn write(disk: &mut [u8], bytes: u64, end: u64, text: &str, at: u64) {
    let label = &mut disk[512..1024];
    label.fill(0);
    label[..8].copy_from_slice(b"LABELONE");
    label[8] = 1;
    label[20] = 32;
    label[24..32].copy_from_slice(b"LVM2 001");
    label[32..64].copy_from_slice(b"abcdef0123456789abcdef0123456789");
    let numbers = [bytes, 1 << 20, 0, 0, 0, 4096, end - 4096, 0, 0];
    for (place, number) in label[64..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let sum = lvm_sum(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    let area = &mut disk[4096..usize::try_from(end).unwrap()];
    area[..512].fill(0);
    area[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
    area[20] = 1;
    let numbers = [4096, end - 4096, 512 + at, text.len() as u64, u64::from(lvm_sum(text.as_bytes()))];
    for (place, number) in area[24..64].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let sum = lvm_sum(&area[4..512]);
    area[..4].copy_from_slice(&sum.to_le_bytes());
    let ring = &mut area[512..];
    let len = ring.len();
    for (no, byte) in text.bytes().enumerate() {
        ring[(usize::try_from(at).unwrap() + no) % len] = byte;
    }
}
