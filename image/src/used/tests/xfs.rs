//! XFS against xfsprogs and, where it can be mounted, against the kernel.

use super::oracle::{
    MIB, Mounted, age, assert_cuts_are_kept, assert_flips_free_nothing, assert_same_files, empty, files, scribble, sum,
    unused,
};
use crate::testing::{run, run_with, succeeds, tool};
use crate::used::volume::Kept;
use core::ops::Range;
use std::path::{Path, PathBuf};

/// Lets mkfs.xfs make volumes below 300 MiB, as the tests of xfsprogs do.
const SMALL: [&str; 4] = ["TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1", "mkfs.xfs"];

/// The options that a test may need newer programs for.
pub(super) fn made(bytes: u64, options: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    tool("mkfs.xfs")?;
    let (dir, path) = empty(bytes);
    let arguments = SMALL.into_iter().chain(["-q", "-f"]).chain(options.split_whitespace());
    if !succeeds("env", arguments.chain([path.to_str()?])) {
        println!("SKIPPED: this mkfs.xfs does not take {options}");
        return None;
    }
    Some((dir, path))
}

/// A file that tells mkfs.xfs to copy `source` into what it makes.
fn prototype(source: &Path) -> PathBuf {
    let mut lines = vec!["/".to_owned(), "0 0".to_owned(), "d--755 0 0".to_owned()];
    for one in 0..5 {
        lines.push(format!("d{one} d--755 0 0"));
        for two in 0..3 {
            lines.push(format!("e{two} d--755 0 0"));
            let folder = source.join(format!("d{one}/e{two}"));
            for file in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = file.unwrap().path();
                lines.push(format!(
                    "{} ---644 0 0 {}",
                    path.file_name().unwrap().to_str().unwrap(),
                    path.to_str().unwrap()
                ));
            }
            lines.push("$".to_owned());
        }
        lines.push("$".to_owned());
    }
    lines.push("$\n".to_owned());
    let path = source.join("prototype");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

/// What xfs_db prints as `name = number`, for each name, in order.
fn numbers(path: &Path, commands: &[String]) -> Vec<u64> {
    let arguments = commands.iter().flat_map(|command| ["-c", command]);
    let said = run("xfs_db", core::iter::once("-r").chain(arguments).chain([path.to_str().unwrap()]));
    let values = said.lines().filter_map(|line| line.split_once('='));
    values
        .map(|(_, value)| match value.trim().strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
            None => value.trim().parse().unwrap(),
        })
        .collect()
}

fn superblock(path: &Path, name: &str) -> u64 {
    numbers(path, &["sb 0".to_owned(), format!("p {name}")])[0]
}

/// The free extents that xfs_db finds in the trees, and blocks in the lists for the trees among them, as bytes; and how many
/// bytes the latter are.
fn listed(path: &Path) -> (Vec<Range<u64>>, u64) {
    let [block, group, groups] = ["blocksize", "agblocks", "agcount"].map(|name| superblock(path, name));
    let counts = (0..groups).flat_map(|no| [format!("agf {no}"), "p flcount".to_owned()]);
    let in_lists: u64 = numbers(path, &counts.collect::<Vec<_>>()).iter().sum();
    let said = run("xfs_db", ["-r", "-c", "freesp -d", path.to_str().unwrap()]);
    let rows = said.lines().skip(1).take_while(|line| !line.contains("from"));
    let mut extents: Vec<Range<u64>> = rows
        .map(|line| {
            let words: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
            let start = (words[0] * group + words[1]) * block;
            start..start + words[2] * block
        })
        .collect();
    extents.sort_by_key(|extent| extent.start);
    (extents, in_lists * block)
}

/// Compares with xfs_db; then overwrites what is unused, and xfs_repair finds nothing wrong.
fn compare(path: &Path) {
    let (name, found) = unused(path);
    let found = found.unwrap_or_else(|kept| panic!("{}: {kept}", path.display()));
    assert_eq!(name, "XFS");
    let (listed, in_lists) = listed(path);
    assert_eq!(sum(&listed), sum(&found) + in_lists);
    assert!(sum(&found) > 0);
    for range in &found {
        let covered = listed.iter().map(|other| (range.start.max(other.start), range.end.min(other.end)));
        let covered: u64 = covered.map(|(start, end)| end.saturating_sub(start)).sum();
        assert_eq!(covered, range.end - range.start, "{range:?}");
    }
    scribble(path, &found);
    run("xfs_repair", ["-n", "-f", path.to_str().unwrap()]);
}

/// Makes one with files in it, without mounting it.
fn check(bytes: u64, options: &str) {
    let source = files(60, 100_000);
    let prototype = prototype(source.path());
    let Some((_dir, path)) = made(bytes, &format!("{options} -p {}", prototype.display())) else { return };
    compare(&path);
}

macro_rules! agrees_with_xfs_db {
    ($($test:ident: $mib:literal, $options:literal;)*) => { $(
        #[test]
        fn $test() {
            check($mib * MIB, $options);
        }
    )* };
}

agrees_with_xfs_db! {
    xfs_is_read_as_xfs_db_lists_it: 72, "";
    xfs_of_version_4: 72, "-m crc=0";
    xfs_of_version_4_with_blocks_of_512_bytes: 72, "-m crc=0 -b size=512";
    xfs_of_version_4_with_its_first_log_and_counters: 72, "-m crc=0,finobt=0 -l version=1,lazy-count=0";
    xfs_with_all_features: 72, "-m rmapbt=1,reflink=1,bigtime=1,finobt=1,inobtcount=1 -i nrext64=1,sparse=1";
    xfs_with_no_features: 72, "-m rmapbt=0,reflink=0,bigtime=0,finobt=0,inobtcount=0 -i sparse=0";
    xfs_with_blocks_of_1_kib: 72, "-b size=1024";
    xfs_with_sectors_of_4_kib: 72, "-s size=4096";
    xfs_with_blocks_of_64_kib: 300, "-b size=65536";
    xfs_with_a_wide_stripe_and_log_stripe: 200, "-d su=256k,sw=4 -l su=256k";
    xfs_with_many_groups_and_a_short_last_one: 333, "-d agcount=17";
}

#[test]
fn xfs_that_the_kernel_filled_and_emptied_is_read_as_xfs_db_lists_it() {
    for (options, mount) in [
        ("", ""),
        ("-m rmapbt=1,reflink=1 -b size=1024", "logbsize=256k"),
        ("-m reflink=0 -d agcount=3,su=32k,sw=2 -l su=32k", ""),
    ] {
        let Some((_dir, path)) = made(120 * MIB, options) else { return };
        let Some(mounted) = Mounted::new(&path, mount) else { return };
        age(mounted.path(), 200);
        let copy = tempfile::tempdir().unwrap();
        run("cp", ["-a", &format!("{}/.", mounted.path().display()), copy.path().to_str().unwrap()]);
        let df = mounted.used();
        drop(mounted);
        let log = superblock(&path, "logblocks") * superblock(&path, "blocksize");
        let used = 120 * MIB - sum(&unused(&path).1.unwrap());
        // What df shows lacks the log.
        assert!(used <= (df + log) / 100 * 102, "{options}: {used} bytes for {df} and a log of {log}");
        compare(&path);
        let mounted = Mounted::new(&path, "").unwrap();
        assert_same_files(mounted.path(), copy.path());
    }
}

#[test]
fn xfs_is_kept_while_it_is_mounted_or_frozen_and_read_after_that() {
    let Some((_dir, path)) = made(72 * MIB, "") else { return };
    let Some(mounted) = Mounted::new(&path, "") else { return };
    age(mounted.path(), 30);
    run("sync", []);
    assert_eq!(unused(&path).1, Err(Kept::Journal));
    run("xfs_freeze", ["-f", mounted.path().to_str().unwrap()]);
    let frozen = unused(&path).1;
    run("xfs_freeze", ["-u", mounted.path().to_str().unwrap()]);
    assert_eq!(frozen, Err(Kept::Journal));
    // What is mounted for reading only has been unmounted as far as its log is concerned.
    run("mount", ["-o", "remount,ro", mounted.path().to_str().unwrap()]);
    assert!(unused(&path).1.is_ok());
    drop(mounted);
    compare(&path);
}

#[test]
fn xfs_whose_log_has_wrapped_or_was_made_anew_is_read() {
    let Some((_dir, path)) = made(72 * MIB, "") else { return };
    // In the upper half is the cycle of the log.
    while superblock(&path, "lsn") >> 32 < 3 {
        let Some(mounted) = Mounted::new(&path, "") else { return };
        for number in 0..1500 {
            let (file, other) =
                (mounted.path().join(format!("{number}")), mounted.path().join(format!("new {number}")));
            std::fs::write(&file, [1; 100]).unwrap();
            std::fs::rename(file, other).unwrap();
        }
        (0..1500).for_each(|number| std::fs::remove_file(mounted.path().join(format!("new {number}"))).unwrap());
        drop(mounted);
        assert!(unused(&path).1.is_ok(), "{:?}", unused(&path).1);
    }
    run("xfs_repair", ["-L", "-f", path.to_str().unwrap()]);
    compare(&path);
    run("xfs_admin", ["-U", "generate", path.to_str().unwrap()]);
    compare(&path);
}

#[test]
fn xfs_that_was_grown_is_read() {
    let Some((_dir, path)) = made(72 * MIB, "") else { return };
    std::fs::File::options().write(true).open(&path).unwrap().set_len(205 * MIB).unwrap();
    let Some(mounted) = Mounted::new(&path, "") else { return };
    age(mounted.path(), 30);
    run("xfs_growfs", [mounted.path().to_str().unwrap()]);
    drop(mounted);
    compare(&path);
}

#[test]
fn xfs_with_an_external_log_or_a_realtime_device_is_kept_and_named() {
    let (_other, device) = empty(100 * MIB);
    for (option, why) in [
        (format!("-l logdev={}", device.display()), "XFS with an external log"),
        (format!("-r rtdev={}", device.display()), "XFS with a realtime device"),
    ] {
        let Some((_dir, path)) = made(72 * MIB, &option) else { return };
        assert_eq!(unused(&path), ("XFS", Err(Kept::NotRead(why))));
    }
}

/// Sets a field of a structure, and its checksum.
fn set(path: &Path, structure: &str, field: &str) {
    let script = format!("{structure}\nwrite -d {field}\n");
    run_with("xfs_db", ["-x", path.to_str().unwrap()], &script);
}

#[test]
fn xfs_with_unknown_features_or_marks_of_trouble_is_kept() {
    let cases = [
        ("features_incompat 0x8000000b", Kept::Feature("incompatible", 0x8000_0000)),
        ("features_incompat 0x1b", Kept::Errors),
        ("features_ro_compat 0x10005", Kept::Feature("read-only compatible", 0x1_0000)),
        ("features_log_incompat 2", Kept::Feature("log", 2)),
        ("inprogress 1", Kept::NotClean),
        ("versionnum 0xb6a5", Kept::Feature("version", 0x200)),
        ("versionnum 0xb4a3", Kept::NotRead("this version of XFS")),
        ("agcount 5", Kept::Corrupt("superblock")),
        ("logblocks 0x7fffffff", Kept::Corrupt("superblock")),
        ("rootino 0xffffffffffffff", Kept::Corrupt("superblock")),
        ("blocksize 1", Kept::Corrupt("superblock")),
    ];
    for (field, expected) in cases {
        let Some((_dir, path)) = made(72 * MIB, "") else { return };
        set(&path, "sb 0", field);
        assert_eq!(unused(&path).1, Err(expected), "{field}");
    }
}

#[test]
fn xfs_that_ends_behind_its_partition_is_kept() {
    let Some((_dir, path)) = made(72 * MIB, "") else { return };
    std::fs::File::options().write(true).open(&path).unwrap().set_len(72 * MIB - 4096).unwrap();
    assert_eq!(unused(&path).1, Err(Kept::TooLong));
}

#[test]
fn headers_lists_and_trees_of_xfs_that_disagree_under_right_checksums_are_kept() {
    let metadata = Kept::Disagree("trees of free extents", "places of its metadata");
    let trees = Kept::Disagree("tree of free extents by place", "tree by length");
    for (structure, field, expected) in [
        ("agf 1", "seqno 2", Kept::Corrupt("header of free space")),
        ("agf 1", "length 1000", Kept::Corrupt("header of free space")),
        ("agf 1", "versionnum 2", Kept::Corrupt("header of free space")),
        ("agf 1", "freeblks 1", Kept::Corrupt("header of free space")),
        ("agf 1", "bnolevel 2", Kept::Corrupt("tree of free extents")),
        ("agf 1", "cntlevel 0", Kept::Corrupt("tree of free extents")),
        ("agf 1", "bnoroot 2", Kept::Corrupt("tree of free extents")),
        ("agf 1", "fllast 3", Kept::Corrupt("list of free blocks")),
        ("agf 1", "flcount 100000", Kept::Corrupt("list of free blocks")),
        ("agi 1", "seqno 0", Kept::Corrupt("header of inodes")),
        ("agi 1", "root 100", metadata),
        ("agi 1", "root 0x7fffffff", Kept::Corrupt("places of its metadata")),
        ("agfl 1", "bno[1] 100", metadata),
        ("agf 1\naddr bnoroot", "recs[1].startblock 9", trees),
        ("agf 1\naddr bnoroot", "recs[1].blockcount 9", trees),
        ("agf 1\naddr cntroot", "recs[1].blockcount 9", trees),
        ("agf 1\naddr bnoroot", "recs[1].blockcount 0x7fffffff", Kept::Corrupt("tree of free extents")),
        ("agf 1\naddr bnoroot", "recs[1].blockcount 0", Kept::Corrupt("tree of free extents")),
        ("agf 1\naddr bnoroot", "recs[1].startblock 0", Kept::Corrupt("tree of free extents")),
        ("agf 1\naddr bnoroot", "numrecs 0x7fff", Kept::Corrupt("tree of free extents")),
        ("agf 1\naddr bnoroot", "level 1", Kept::Corrupt("tree of free extents")),
        ("agf 1\naddr bnoroot", "owner 2", Kept::Disagree("tree of free extents", "checksum")),
        ("agf 1\naddr bnoroot", "bno 2", Kept::Disagree("tree of free extents", "checksum")),
    ] {
        let Some((_dir, path)) = made(72 * MIB, "") else { return };
        set(&path, structure, field);
        assert_eq!(unused(&path).1, Err(expected), "{structure}: {field}");
    }
    let Some((_dir, path)) = made(72 * MIB, "") else { return };
    let free = superblock(&path, "fdblocks");
    set(&path, "sb 0", &format!("fdblocks {}", free + 1));
    assert_eq!(unused(&path).1, Err(Kept::Counts { stated: free + 1, counted: free }));
}

#[test]
fn no_flipped_bit_in_the_metadata_of_xfs_frees_a_used_block() {
    for (options, heads) in [("-m crc=0 -l size=860b", [0, 16]), ("-m reflink=0 -l size=860b", [36, 56])] {
        let Some((_dir, path)) = made(72 * MIB, options) else { return };
        let [group, log] = [superblock(&path, "agblocks") * 4096, superblock(&path, "logstart")]
            .map(|number| usize::try_from(number).unwrap());
        let log = (log >> 13) * group + (log & 0x1FFF) * 4096;
        let mut image = std::fs::read(&path).unwrap();
        let parts = [0..512, 512..740, 1024..1384, 1536..1536 + heads[0] + 40];
        let trees = [4096, 8192].map(|at| at..at + heads[1] + 24);
        let places = parts.into_iter().chain(trees).map(|range| group + range.start..group + range.end);
        let records = [log..log + 48, log + 300..log + 532];
        assert_flips_free_nothing(&mut image, core::iter::once(0..272).chain(places).chain(records));
    }
}

#[test]
fn xfs_that_is_cut_anywhere_is_kept() {
    let Some((_dir, path)) = made(72 * MIB, "-m reflink=0 -l size=860b") else { return };
    let mut image = std::fs::read(&path).unwrap();
    // Behind the header of the last tree of the last group nothing is read.
    let end = 3 * superblock(&path, "agblocks") * 8 + 24;
    assert_cuts_are_kept(&mut image, (0..64).chain((64..end).step_by(997)).chain(end - 20..end));
}
