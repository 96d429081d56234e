//! Disks packed by the programs that people use.

use super::*;
use crate::testing::{run, tool};

/// Packs `path` by `program`, which leaves `path` with that end.
fn packed(program: &'static str, options: &[&str], path: &Path, end: &str) -> Option<PathBuf> {
    tool(program)?;
    run(program, ["-k", "-f", "-q"].into_iter().chain(options.iter().copied()).chain([path.to_str().unwrap()]));
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    Some(name.into())
}

const PROGRAMS: &[(&str, &[&str], &str)] = &[
    ("gzip", &[], ".gz"),
    ("xz", &["-1"], ".xz"),
    ("xz", &["-0", "--block-size=65536"], ".xz"),
    ("zstd", &[], ".zst"),
    ("bzip2", &[], ".bz2"),
    ("lz4", &["-m"], ".lz4"),
    ("lz4", &["-m", "-BD", "-B4", "--content-size"], ".lz4"),
    ("lz4", &["-m", "-BX", "--no-frame-crc"], ".lz4"),
    ("lzip", &["-0"], ".lz"),
    ("lzip", &["-0", "--member-size=100000"], ".lz"),
];

#[test]
fn a_packed_disk_is_unpacked_from_one_member_or_many() {
    let dir = tempfile::tempdir().unwrap();
    let content = disk(5 * 2048 + 3);
    let (first, second) = content.split_at(1 << 20);
    let [whole, one, two] =
        [("whole", &content[..]), ("one", first), ("two", second)].map(|(name, bytes)| write(dir.path(), name, bytes));
    for (program, options, end) in PROGRAMS {
        let Some(path) = packed(program, options, &whole, end) else { continue };
        let disk = opened(&path).unwrap();
        assert_eq!(disk.format(), *program);
        assert_eq!(difference(&bytes_of(&*disk).unwrap(), &content), "", "{program}");
        let parts = [&one, &two].map(|part| std::fs::read(packed(program, options, part, end).unwrap()).unwrap());
        let many = write(dir.path(), "many", &parts.concat());
        assert_eq!(difference(&bytes_of(&*opened(&many).unwrap()).unwrap(), &content), "", "{program}");
        let behind = write(dir.path(), "behind", &[&parts[0][..], b"something else"].concat());
        let error = opened(&behind).unwrap_err().to_string();
        assert!(error.contains(program) && error.contains("damaged") || error.contains("cut short"), "{error}");
        let between = write(dir.path(), "between", &[&parts[0][..], &[0x55; 700], &parts[1]].concat());
        assert!(opened(&between).is_err(), "{program}: a member behind garbage would be lost");
        let info = describe(&path).unwrap().unwrap();
        assert_eq!((info.format.as_str(), info.disk_bytes, info.imported), (*program, None, true));
    }
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("unpacked")), "{names:?}");
}

#[test]
fn a_packed_disk_that_is_cut_or_flipped_is_an_error_or_the_same_disk() {
    let dir = tempfile::tempdir().unwrap();
    let content = disk(192);
    let whole = write(dir.path(), "whole", &content);
    for (program, options, end) in PROGRAMS {
        let Some(path) = packed(program, options, &whole, end) else { continue };
        let bytes = std::fs::read(path).unwrap();
        for len in (10..bytes.len()).step_by(512).chain(bytes.len() - 8..bytes.len()) {
            let cut = write(dir.path(), "cut", &bytes[..len]);
            let error = open_as(&cut, program).map(drop).unwrap_err().to_string();
            assert!(error.contains(program), "{program}, {len}: {error}");
        }
        for at in (0..bytes.len().min(64)).chain((64..bytes.len()).step_by(211)) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let flipped = write(dir.path(), "flipped", &flipped);
            // Without a checksum over everything nothing could be told, and without the program's default there is none.
            if options.contains(&"--no-frame-crc") {
                continue;
            }
            if let Ok(disk) = open_as(&flipped, program) {
                assert_eq!(difference(&bytes_of(&*disk).unwrap(), &content), "", "{program}, byte {at}");
            }
        }
    }
}

#[test]
fn a_container_inside_a_packed_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut inside = vec![0; 4096];
    inside[..4].copy_from_slice(b"QFI\xFB");
    let path = write(dir.path(), "disk.qcow2", &inside);
    let Some(path) = packed("gzip", &[], &path, ".gz") else { return };
    let error = opened(&path).unwrap_err().to_string();
    assert!(error.contains("qcow2") && error.contains("unpack"), "{error}");
}

#[test]
fn android_sparse_files_give_their_disk_and_what_does_not_matter_is_unused() {
    let Some(_) = tool("img2simg") else { return };
    let dir = tempfile::tempdir().unwrap();
    let content = disk(5 * 2048);
    let raw = write(dir.path(), "disk.raw", &content);
    let path = dir.path().join("disk.simg");
    run("img2simg", [raw.to_str().unwrap(), path.to_str().unwrap(), "4096"]);
    let disk = opened(&path).unwrap();
    assert_eq!(disk.format(), "Android sparse");
    assert_eq!(difference(&bytes_of(&*disk).unwrap(), &content), "");
    // A chunk of two blocks, and one of three that do not matter.
    let mut small = Vec::from(*b"\x3A\xFF\x26\xED\x01\0\0\0\x1C\0\x0C\0");
    small.extend([4096_u32, 5, 2, 0].map(u32::to_le_bytes).as_flattened());
    small.extend([0xCAC1_u32, 2, 12 + 8192].map(u32::to_le_bytes).as_flattened());
    small.extend([9; 8192]);
    small.extend([0xCAC3_u32, 3, 12].map(u32::to_le_bytes).as_flattened());
    let disk = opened(&write(dir.path(), "small", &small)).unwrap();
    assert_eq!((disk.bytes(), disk.unused()), (20480, std::slice::from_ref(&(8192..20480))));
    for len in 1..small.len() {
        let cut = write(dir.path(), "cut", &small[..len]);
        assert!(open_as(&cut, "android-sparse").is_err(), "{len}");
    }
}
