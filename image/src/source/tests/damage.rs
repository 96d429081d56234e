//! Files that are cut or damaged: an error, or what QEMU reads out of the same file, and never something else.

use super::qemu::{made, read_by_qemu};
use super::*;
use crate::testing::tool;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A format of ours, and format, name and options of QEMU.
type Kind = (&'static str, (&'static str, &'static str, &'static [&'static str]));

/// Small files of every kind, with tables as large as data: format of ours, format and options of QEMU.
const KINDS: &[Kind] = &[
    ("qcow2", ("qcow2", "a.qcow2", &["-o", "cluster_size=512"])),
    ("qcow2", ("qcow2", "b.qcow2", &["-c", "-o", "cluster_size=4k"])),
    ("qcow2", ("qcow2", "c.qcow2", &["-c", "-o", "cluster_size=4k,compression_type=zstd"])),
    ("qcow2", ("qcow2", "d.qcow2", &["-o", "cluster_size=16k,extended_l2=on"])),
    ("vhd", ("vpc", "a.vhd", &["-o", "subformat=dynamic,force_size=on"])),
    ("vhd", ("vpc", "b.vhd", &["-o", "subformat=fixed,force_size=on"])),
    ("vdi", ("vdi", "a.vdi", &[])),
    ("vmdk", ("vmdk", "a.vmdk", &["-o", "subformat=monolithicSparse"])),
    ("vmdk", ("vmdk", "b.vmdk", &["-o", "subformat=streamOptimized"])),
    ("vhdx", ("vhdx", "a.vhdx", &["-o", "subformat=dynamic,block_size=1M"])),
];

fn read(path: &Path, format: &str) -> Option<Vec<u8>> {
    let disk = open_as(path, format).ok()?;
    // A flipped size may be anything; nothing larger than this is read here, nor does it have to be.
    if disk.bytes() > 64 << 20 {
        return None;
    }
    bytes_of(&*disk).ok()
}

#[test]
fn a_file_that_is_cut_at_any_sector_is_an_error_or_the_same_disk() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let content = disk(256);
    let raw = write(dir.path(), "disk.raw", &content);
    for (format, kind) in KINDS {
        let path = made(&raw, *kind);
        let file = File::options().write(true).open(&path).unwrap();
        let bytes = file.metadata().unwrap().len();
        // In the megabytes of zeros of a VHDX a few places are enough.
        let step = if bytes > 1 << 20 { 64 << 10 } else { 512 };
        let mut errors = 0;
        for len in (0..bytes.div_ceil(step)).rev().map(|number| number * step) {
            file.set_len(len).unwrap();
            match read(&path, format) {
                Some(read) => assert_eq!(difference(&read, &content), "", "{}, cut at {len}", kind.1),
                None => errors += 1,
            }
        }
        assert!(errors > 0, "{}", kind.1);
    }
}

/// Where to flip bytes: the first kilobyte, what is not zero of the tables of a VHDX, and sixty places behind.
fn places(format: &str, bytes: &[u8]) -> Vec<usize> {
    let tables = if format == "vhdx" { 4 << 20 } else { 0 };
    let filled = |range: Range<usize>| range.filter(|at| bytes[*at] != 0);
    let behind: Vec<usize> = filled(tables.max(1024)..bytes.len()).collect();
    let some = behind.iter().step_by(behind.len().div_ceil(60).max(1)).copied();
    (0..1024).chain(filled(1024..tables.max(1024))).chain(some).collect()
}

/// Whether all that differs is one byte, by `flip`: a flipped byte of data, which no reader could tell.
fn is_one_flipped_byte(read: &[u8], content: &[u8], flip: u8) -> bool {
    let differs = |(one, other): (&u8, &u8)| one != other;
    let at = read.iter().zip(content).position(differs);
    read.len() == content.len()
        && at.is_some_and(|at| read[at] ^ flip == content[at] && read[at + 1..] == content[at + 1..])
}

fn flip_bytes((format, kind): Kind, content: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = made(&write(dir.path(), "disk.raw", content), kind);
    let bytes = std::fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for at in places(format, &bytes) {
        for flip in [0x01, 0x80] {
            file.write_all_at(&[bytes[at] ^ flip], at as u64).unwrap();
            let Some(read) = read(&path, format).filter(|read| read != content) else { continue };
            if !is_one_flipped_byte(&read, content, flip) {
                let theirs = read_by_qemu(&path, kind.0).map(|theirs| difference(&read, &theirs));
                assert_eq!(theirs.as_deref(), Some(""), "{}, byte {at} ^ {flip:#x}", kind.1);
            }
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
}

#[test]
fn a_file_with_a_flipped_byte_is_an_error_or_what_qemu_reads_too() {
    let Some(_) = tool("qemu-img") else { return };
    let content = disk(256);
    std::thread::scope(|scope| {
        for kind in KINDS {
            let content = &content;
            scope.spawn(move || flip_bytes(*kind, content));
        }
    });
}

#[test]
fn sizes_near_two_to_the_63_are_refused_in_one_line() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), "disk.raw", &disk(256));
    let large = (u64::MAX >> 1) & !0xFFF;
    let refused = |what: &str, bytes: &[u8]| {
        let error = opened(&write(dir.path(), what, bytes)).unwrap_err().to_string();
        assert!(error.contains(what) && !error.contains('\n'), "{error}");
    };
    for (_, kind) in KINDS {
        let mut bytes = std::fs::read(made(&raw, *kind)).unwrap();
        let end = bytes.len();
        let item = b"\x24\x42\xA5\x2F\x1B\xCD\x76\x48\xB2\x11\x5D\xBE\xD8\x3B\xF4\xB8";
        let at = match kind.0 {
            "qcow2" => 24,
            "vpc" => end - 512 + 48,
            "vdi" => 0x170,
            "vmdk" => 12,
            _ => {
                let find = |what: &[u8]| bytes.windows(what.len()).position(|found| found == what).unwrap();
                let row = find(item) + 16;
                find(b"metadata") + u32::from_le_bytes(bytes[row..row + 4].try_into().unwrap()) as usize
            }
        };
        let is_big_endian = matches!(kind.0, "qcow2" | "vpc");
        bytes[at..at + 8].copy_from_slice(&if is_big_endian { large.to_be_bytes() } else { large.to_le_bytes() });
        if kind.0 == "vpc" {
            let footer = &mut bytes[end - 512..];
            footer[64..68].fill(0);
            let sum = !footer.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            footer[64..68].copy_from_slice(&sum.to_be_bytes());
        }
        refused(kind.1, &bytes);
    }
    // Blocks of 2 GiB, and as many as a number of 32 bits counts.
    let mut sparse = Vec::from(*b"\x3A\xFF\x26\xED\x01\0\0\0\x1C\0\x0C\0");
    sparse.extend([1 << 31, u32::MAX, 1, 0].map(u32::to_le_bytes).as_flattened());
    sparse.extend([0xCAC3, u32::MAX, 12].map(u32::to_le_bytes).as_flattened());
    refused("sparse.simg", &sparse);
}
