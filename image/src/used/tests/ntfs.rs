//! NTFS against ntfs-3g's programs.

use super::oracle::{MIB, assert_flips_free_nothing, empty, files, scribble, sum, unused, unused_of};
use crate::testing::{run, tool};
use crate::used::volume::Kept;
use std::path::{Path, PathBuf};

/// An NTFS with some files in its root folder.
fn made(bytes: u64, options: &str, source: &Path) -> Option<(tempfile::TempDir, PathBuf)> {
    if tool("mkntfs").is_none() || tool("ntfscp").is_none() {
        return None;
    }
    let (dir, path) = empty(bytes);
    let disk = path.to_str()?;
    run("mkntfs", ["-q", "-F", "-Q"].into_iter().chain(options.split_whitespace()).chain([disk]));
    for number in 0..40 {
        let file = source.join(format!("d{}/e{}/f{number}", number % 5, number % 3));
        run("ntfscp", ["-q", "-f", disk, file.to_str()?, &format!("a file with the number {number}")]);
    }
    Some((dir, path))
}

fn check(bytes: u64, options: &str) {
    let source = files(40, 200_000);
    let Some((_dir, path)) = made(bytes, options, source.path()) else { return };
    let disk = path.to_str().unwrap();
    let (name, found) = unused(&path);
    let found = found.unwrap();
    assert_eq!(name, "NTFS");
    let said = run("ntfsinfo", ["-m", "-f", disk]);
    let number = |what: &str| {
        let line = said.lines().find(|line| line.trim().starts_with(what)).unwrap_or_else(|| panic!("{what}: {said}"));
        line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(sum(&found), number("Free Clusters") * number("Cluster Size"), "{said}");
    scribble(&path, &found);
    run("ntfsinfo", ["-m", "-f", disk]);
    for number in 0..40 {
        let out = source.path().join("out");
        let copy =
            run("sh", ["-c", &format!("ntfscat -f {disk} 'a file with the number {number}' > {}", out.display())]);
        assert_eq!(copy, "");
        run(
            "cmp",
            [
                out.to_str().unwrap(),
                source.path().join(format!("d{}/e{}/f{number}", number % 5, number % 3)).to_str().unwrap(),
            ],
        );
    }
    // The last sector holds the copy of the boot sector, outside the clusters.
    let last = found.last().unwrap();
    assert!(last.end <= bytes - 512);
}

#[test]
fn ntfs_is_read_as_ntfsinfo_counts_it() {
    check(64 * MIB, "");
    check(64 * MIB + 512 * 5, "-c 512");
    check(200 * MIB, "-c 65536");
    check(200 * MIB, "-s 4096 -c 4096");
}

/// A small volume, and the places of records 2, 3 and 6 of its table (records of 1 KiB, clusters of 4 KiB).
fn image() -> Option<(Vec<u8>, impl Fn(usize) -> usize)> {
    let source = files(40, 3000);
    let (_dir, path) = made(24 * MIB, "", source.path())?;
    let image = std::fs::read(path).unwrap();
    let table = usize::from(u16::from_le_bytes([image[48], image[49]])) * 4096;
    assert!(unused_of(&image, 24 * MIB).1.is_ok());
    Some((image, move |record| table + record * 1024))
}

/// The place of the content of the first attribute of a kind in a record.
fn attribute(image: &[u8], record: usize, kind: u8) -> usize {
    let word = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
    let mut at = record + word(record + 20);
    while image[at] != kind {
        at += word(at + 4);
    }
    at
}

#[test]
fn a_dirty_volume_is_kept() {
    let Some((mut image, record)) = image() else { return };
    let information = attribute(&image, record(3), 0x70);
    image[information + 24 + 10] |= 1;
    assert_eq!(unused_of(&image, 24 * MIB).1, Err(Kept::NotClean));
}

#[test]
fn a_log_with_something_to_replay_is_kept() {
    let Some((mut image, record)) = image() else { return };
    let data = attribute(&image, record(2), 0x80);
    // The first run: sizes, length, place.
    let run = data + usize::from(image[data + 32]);
    let (len, place) = (usize::from(image[run] & 15), usize::from(image[run] >> 4));
    let mut cluster = [0; 8];
    cluster[..place].copy_from_slice(&image[run + 1 + len..][..place]);
    let log = usize::try_from(u64::from_le_bytes(cluster)).unwrap() * 4096;
    // Restart pages as Windows writes them: sequence of nine numbers at 30, area at 64.
    let restart = |image: &mut [u8], index: usize, in_use: u16, flags: u16| {
        let page = &mut image[log + index * 4096..][..4096];
        page.fill(0);
        page[..4].copy_from_slice(b"RSTR");
        page[4..8].copy_from_slice(&[30, 0, 9, 0]);
        page[16..24].copy_from_slice(&[0, 16, 0, 0, 0, 16, 0, 0]);
        page[24] = 64;
        page[64 + 12..64 + 14].copy_from_slice(&in_use.to_le_bytes());
        page[64 + 14..64 + 16].copy_from_slice(&flags.to_le_bytes());
        page[30..32].copy_from_slice(&[1, 0]);
        (1..9).for_each(|stride| page[stride * 512 - 2] = 1);
    };
    for (first, second, expected) in [
        ((0xFFFF, 0), (0xFFFF, 0), None),
        ((0, 2), (0, 2), None),
        ((0, 0), (0, 2), Some(Kept::Journal)),
        ((0xFFFF, 0), (0, 0), Some(Kept::Journal)),
    ] {
        restart(&mut image, 0, first.0, first.1);
        restart(&mut image, 1, second.0, second.1);
        assert_eq!(unused_of(&image, 24 * MIB).1.err(), expected);
    }
    image[log + 510] ^= 1;
    assert_eq!(unused_of(&image, 24 * MIB).1, Err(Kept::Corrupt("log")));
    image[log..log + 4].copy_from_slice(b"CHKD");
    assert_eq!(unused_of(&image, 24 * MIB).1, Err(Kept::Corrupt("log")));
}

#[test]
fn a_sleeping_windows_is_kept_and_one_that_woke_up_is_not() {
    let source = files(40, 3000);
    for (content, sleeps) in
        [(&b"hibr"[..], true), (b"HIBR", true), (b"wake", false), (b"\0\0\0\0", false), (b"what", true)]
    {
        let Some((_dir, path)) = made(24 * MIB, "", source.path()) else { return };
        let file = source.path().join("hiberfil");
        let mut bytes = vec![0; 100_000];
        bytes[..4].copy_from_slice(content);
        std::fs::write(&file, bytes).unwrap();
        run("ntfscp", ["-q", "-f", path.to_str().unwrap(), file.to_str().unwrap(), "hiberfil.sys"]);
        assert_eq!(unused(&path).1.err(), sleeps.then_some(Kept::Hibernated), "{content:?}");
    }
}

#[test]
fn metadata_that_the_map_calls_free_are_kept() {
    let Some((mut image, record)) = image() else { return };
    let map = map_of(&image, record(6));
    image[map] &= !1;
    assert_eq!(unused_of(&image, 24 * MIB).1, Err(Kept::Disagree("map of clusters", "places of its metadata")));
}

/// Where a cluster map of up to a cluster lies on a small volume.
fn map_of(image: &[u8], record: usize) -> usize {
    let data = attribute(image, record, 0x80);
    let run = data + usize::from(image[data + 32]);
    let (len, place) = (usize::from(image[run] & 15), usize::from(image[run] >> 4));
    let mut cluster = [0; 8];
    cluster[..place].copy_from_slice(&image[run + 1 + len..][..place]);
    usize::try_from(u64::from_le_bytes(cluster)).unwrap() * 4096
}

#[test]
fn no_flipped_bit_of_the_map_of_clusters_of_ntfs_frees_a_file_and_no_flip_in_its_table_does() {
    let Some((mut image, record)) = image() else { return };
    let map = map_of(&image, record(6));
    let clusters = 24 * 256 - 1;
    let used: Vec<_> = (0..clusters).filter(|cluster| image[map + cluster / 8] >> (cluster % 8) & 1 == 1).collect();
    assert!(used.len() > 100);
    for cluster in used {
        image[map + cluster / 8] ^= 1 << (cluster % 8);
        assert!(unused_of(&image, 24 * MIB).1.is_err(), "cluster {cluster}");
        image[map + cluster / 8] ^= 1 << (cluster % 8);
    }
    let table = [0, 2, 3, 5, 6, 64, 70].map(|number| record(number)..record(number) + 480);
    assert_flips_free_nothing(&mut image, table.into_iter().chain(core::iter::once(0..512)));
}
