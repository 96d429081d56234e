//! Disks that become images and disks again.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, exported, noise, text};
use slidecast_image::{CreateOptions, ImageError, create, verify, verify_quick};

const MIB: u64 = 1 << 20;

#[test]
fn a_disk_comes_back_as_it_was() {
    let bench = Bench::new();
    let content = [(0, noise(1, 5 << 20)), (9 * MIB, text(2, 3 << 20)), (20 * MIB + 512, text(3, 1000))];
    let disk = bench.disk("disk", 30 * MIB + 512, &content);
    let report = bench.base(&disk, "a.slide");
    assert!(bench.is_equal("a.slide", &disk));
    assert_eq!(report.new_bytes, 8 * MIB + 4096);
    assert!(report.stored_bytes < 7 * MIB);
    let sum = report.fill_bytes + report.new_bytes + report.repeated_bytes + report.unused_bytes;
    assert_eq!(sum, (30 * MIB).div_ceil(4096) * 4096 + 4096);
    assert_eq!(verify(&bench.path("a.slide"), |_| ()).unwrap().root, report.root);
    verify_quick(&bench.path("a.slide")).unwrap();
}

#[test]
fn what_occurs_twice_is_stored_once() {
    let bench = Bench::new();
    let copy = noise(1, 2 << 20);
    let disk = bench.disk("disk", 16 * MIB, &[(0, copy.clone()), (5 * MIB + 4096, copy)]);
    let report = bench.base(&disk, "a.slide");
    assert_eq!((report.new_bytes, report.repeated_bytes), (2 * MIB, 2 * MIB));
    assert!(bench.is_equal("a.slide", &disk));
}

#[test]
fn a_run_that_is_too_short_is_stored_again() {
    let bench = Bench::new();
    let copy = noise(1, 12 << 10);
    let disk = bench.disk("disk", 16 * MIB, &[(0, noise(2, 4096)), (4096, copy.clone()), (MIB, copy)]);
    assert_eq!(bench.base(&disk, "a.slide").repeated_bytes, 0);
    assert!(bench.is_equal("a.slide", &disk));
    let options = CreateOptions { dedup_run: 4096, ..CreateOptions::new(&disk, &bench.path("b.slide")) };
    assert_eq!(create(&options, |_| ()).unwrap().repeated_bytes, 12 << 10);
    assert!(bench.is_equal("b.slide", &disk));
}

#[test]
fn the_same_input_gives_the_same_file() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 64 * MIB, &[(0, text(1, 40 << 20)), (50 * MIB, noise(1, 4 << 20))]);
    let (one, other) = (bench.base(&disk, "a.slide"), bench.base(&disk, "b.slide"));
    assert_eq!((one.layer, one.root), (other.layer, other.root));
    assert!(std::fs::read(bench.path("a.slide")).unwrap() == std::fs::read(bench.path("b.slide")).unwrap());
}

/// All that a layer is made of, in the one form that does not hang on the version of a compressor. Another hash means that
/// images made before are not what this program makes: raise the version of the format, or find out what changed.
#[test]
fn the_files_of_a_small_disk_and_its_increment_have_their_golden_hashes() {
    let bench = Bench::new();
    let hash = |name: &str| blake3::hash(&std::fs::read(bench.path(name)).unwrap()).to_hex().to_string();
    let mut content = vec![(0, noise(1, 200_000)), (MIB, vec![7; 100_000]), (2 * MIB, noise(1, 100_000))];
    let mut make = |name: &str, parent: Option<&str>, more: Option<(u64, Vec<u8>)>| {
        content.extend(more);
        let disk = bench.disk("disk", 3 * MIB + 512, &content);
        let options = CreateOptions {
            codec: "none".parse().unwrap(),
            parent: parent.map(|name| bench.path(name)),
            ..CreateOptions::new(&disk, &bench.path(name))
        };
        create(&options, |_| ()).unwrap();
    };
    make("a.slide", None, None);
    make("b.slide", Some("a.slide"), Some((4096, noise(2, 8192))));
    assert_eq!(hash("a.slide"), "6757fa154df18224b00b9c9dcd96dd6ceb519b845a149768da53da7129ff69d5");
    assert_eq!(hash("b.slide"), "deafbdacf282ece50d01084b2429a2926b73ad03cf6c84fbf9b59baf3d0c574a");
}

#[test]
fn an_unchanged_disk_gives_an_empty_increment() {
    let bench = Bench::new();
    // A zero grain in the middle of data is stored; it must still be known as the same.
    let content = [(0, noise(1, 1 << 20)), (MIB + 4096, noise(2, 1 << 20)), (4 * MIB, vec![7; 8192])];
    let disk = bench.disk("disk", 16 * MIB, &content);
    bench.base(&disk, "a.slide");
    let report = bench.child(&disk, "a.slide", "b.slide").unwrap();
    assert_eq!((report.blocks, report.absent_bytes), (0, 16 * MIB));
    assert!(bench.is_equal("b.slide", &disk));
    verify(&bench.path("b.slide"), |_| ()).unwrap();
}

#[test]
fn increments_hold_what_changed_and_the_chain_gives_the_newest_disk() {
    let bench = Bench::new();
    let mut content = vec![(0, noise(1, 8 << 20)), (10 * MIB, text(2, 4 << 20))];
    let first = bench.disk("first", 32 * MIB, &content);
    bench.base(&first, "0.slide");
    // A change, what was data becomes zero, a copy of what the parent holds elsewhere.
    content.push((2 * MIB, noise(3, 8192)));
    content.push((4 * MIB, vec![0; 1 << 20]));
    content.push((20 * MIB, noise(1, 1 << 20)));
    let second = bench.disk("second", 32 * MIB, &content);
    let report = bench.child(&second, "0.slide", "1.slide").unwrap();
    assert_eq!((report.new_bytes, report.repeated_bytes, report.fill_bytes), (8192, MIB, MIB));
    // Back to what the base had, and a change next to the last one.
    content.push((4 * MIB, noise(1, 8 << 20)[4 << 20..5 << 20].to_vec()));
    content.push((2 * MIB + 8192, noise(4, 4096)));
    let third = bench.disk("third", 32 * MIB, &content);
    let report = bench.child(&third, "1.slide", "2.slide").unwrap();
    assert_eq!((report.new_bytes, report.repeated_bytes), (4096, MIB));
    for (image, disk) in [("0.slide", first), ("1.slide", second), ("2.slide", third)] {
        assert!(bench.is_equal(image, &disk), "{image}");
        verify(&bench.path(image), |_| ()).unwrap();
    }
}

#[test]
fn a_grain_in_too_many_places_is_stored_again() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 40 * MIB, &[(0, noise(1, 4096).repeat(9000))]);
    let report = bench.base(&disk, "a.slide");
    assert!(report.new_bytes > 4096 && report.new_bytes < MIB, "{}", report.new_bytes);
    assert!(bench.is_equal("a.slide", &disk));
}

#[test]
fn other_grains_blocks_and_codecs_give_the_same_disk() {
    let bench = Bench::new();
    let copy = text(1, 1 << 20);
    let disk = bench.disk("disk", 9 * MIB + 512, &[(512, copy.clone()), (4 * MIB, copy), (9 * MIB, noise(1, 512))]);
    for (grain, block) in [(4096, 65536), (65536, 65536), (16 << 20, 16 << 20), (32 << 10, 1 << 20)] {
        for codec in ["none", "lz4", "zstd:1"] {
            let options = CreateOptions {
                grain: Some(grain),
                block: Some(block),
                codec: codec.parse().unwrap(),
                ..CreateOptions::new(&disk, &bench.path("a.slide"))
            };
            create(&options, |_| ()).unwrap();
            assert!(bench.is_equal("a.slide", &disk), "{grain} {block} {codec}");
            verify(&bench.path("a.slide"), |_| ()).unwrap();
        }
    }
}

#[test]
fn a_child_keeps_the_sizes_of_its_parent() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 4 * MIB, &[(0, noise(1, 4096))]);
    bench.base(&disk, "a.slide");
    let options = CreateOptions {
        parent: Some(bench.path("a.slide")),
        block: Some(65536),
        ..CreateOptions::new(&disk, &bench.path("b.slide"))
    };
    let error = create(&options, |_| ()).unwrap_err();
    assert!(matches!(error, ImageError::Inherited { .. }) && error.is_usage());
}

#[test]
fn an_increment_of_a_disk_of_another_size_is_stored_and_written_out_at_its_own_size() {
    let bench = Bench::new();
    let content = [
        (0, noise(1, 3 << 20)),
        (5 * MIB, text(2, 1 << 20)),
        (7 * MIB, noise(3, 100_000)),
        (11 * MIB, noise(9, 32 << 10)),
    ];
    let sizes = [8 * MIB + 512, 12 * MIB + 1024, 3 * MIB + 3584, 6 * MIB, 12 * MIB];
    for (no, bytes) in sizes.into_iter().enumerate() {
        let inside = content.iter().filter(|(at, _)| *at < bytes).map(|(at, content)| {
            let len = content.len().min(usize::try_from(bytes - at).unwrap());
            (*at, content[..len].to_vec())
        });
        let disk = bench.disk(&format!("disk{no}"), bytes, &inside.collect::<Vec<_>>());
        let name = format!("{no}.slide");
        let Some(parent) = no.checked_sub(1) else {
            bench.base(&disk, &name);
            continue;
        };
        let report = bench.child(&disk, &format!("{parent}.slide"), &name).unwrap();
        assert_eq!(report.disk_bytes, bytes);
        assert!(
            matches!(&report.notes[..], [note] if note.contains("since its parent was made")),
            "{:?}",
            report.notes
        );
        // What lies on both disks is not stored again, nor is what an older layer of the chain has.
        assert_eq!(report.new_bytes, if no == 1 { 32 << 10 } else { 0 }, "{name}");
        assert!(bench.is_equal(&name, &disk), "{name}");
        verify(&bench.path(&name), |_| ()).unwrap();
        let info = slidecast_image::info(&bench.path(&name)).unwrap();
        assert_eq!((info.disk_bytes, info.layers[0].disk_bytes), (bytes, sizes[0]));
        assert!(info.to_string().contains("(of a disk of 8389120 bytes)"), "{info}");
    }
}

#[test]
fn a_large_sparse_disk_costs_next_to_nothing() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 1 << 40, &[(0, noise(1, 4096)), (1 << 39, noise(2, 4096))]);
    let report = bench.base(&disk, "a.slide");
    assert_eq!((report.read_bytes, report.new_bytes), (8192, 8192));
    assert!(report.file_bytes < 200_000);
    verify(&bench.path("a.slide"), |_| ()).unwrap();
}

#[test]
fn any_whole_number_of_sectors_is_a_disk() {
    let bench = Bench::new();
    for bytes in [512, 4096 - 512, 4096, 4096 + 512, MIB - 512, MIB + 512, 5 * MIB + 1536] {
        let content = noise(bytes, usize::try_from(bytes).unwrap());
        let disk = bench.disk("disk", bytes, &[(0, content)]);
        let report = bench.base(&disk, "a.slide");
        assert_eq!((report.disk_bytes, report.read_bytes), (bytes, bytes));
        assert!(bench.is_equal("a.slide", &disk), "{bytes}");
        bench.child(&disk, "a.slide", "b.slide").unwrap();
        assert!(bench.is_equal("b.slide", &disk), "{bytes}");
    }
}

#[test]
fn a_disk_of_any_other_size_is_padded_with_zeros_to_its_next_sector_and_that_is_said() {
    let bench = Bench::new();
    let mut content = noise(1, 10_000);
    let odd = bench.disk("odd", 10_000, &[(0, content.clone())]);
    for (sector, bytes) in [(512, 10_240), (4096, 12_288)] {
        let options = CreateOptions { sector: Some(sector), ..CreateOptions::new(&odd, &bench.path("a.slide")) };
        let report = create(&options, |_| ()).unwrap();
        assert_eq!(report.disk_bytes, bytes);
        assert!(report.notes.iter().any(|note| note.contains(&format!("{} zeros are added", bytes - 10_000))));
        content.resize(usize::try_from(bytes).unwrap(), 0);
        assert_eq!(bench.exported("a.slide"), content);
    }
    bench.child(&odd, "a.slide", "b.slide").unwrap();
    assert_eq!(bench.exported("b.slide"), content);
}

#[test]
fn an_increment_reads_every_byte_of_the_source_once() {
    let bench = Bench::new();
    let first = bench.disk("first", 32 * MIB, &[(0, noise(1, 8 << 20)), (20 * MIB, text(2, 4 << 20))]);
    bench.base(&first, "a.slide");
    let second = bench.disk("second", 32 * MIB, &[(0, noise(1, 8 << 20)), (20 * MIB, text(3, 4 << 20))]);
    assert_eq!(bench.child(&second, "a.slide", "b.slide").unwrap().read_bytes, 12 * MIB);
}

#[test]
fn a_layer_that_is_made_away_from_its_parent_comes_with_a_note() {
    let bench = Bench::new();
    let disk = bench.disk("disk", MIB, &[(0, noise(1, 4096))]);
    bench.base(&disk, "a.slide");
    std::fs::create_dir(bench.path("elsewhere")).unwrap();
    let report = bench.child(&disk, "a.slide", "elsewhere/b.slide").unwrap();
    assert!(matches!(&report.notes[..], [note] if note.contains("in the same folder")), "{:?}", report.notes);
    std::fs::copy(bench.path("a.slide"), bench.path("elsewhere/a.slide")).unwrap();
    assert!(bench.is_equal("elsewhere/b.slide", &disk));
    assert_eq!(bench.child(&disk, "a.slide", "elsewhere/c.slide").unwrap().notes, [""; 0]);
}

#[test]
fn a_disk_is_written_to_a_file_or_a_device_and_to_nothing_else() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 3 * MIB, &[(0, noise(1, 1 << 20))]);
    bench.base(&disk, "a.slide");
    // What the file held before is gone, beyond the end of the disk too.
    let old = bench.disk("old", 9 * MIB, &[(0, noise(2, 9 << 20))]);
    exported(&bench.path("a.slide"), &old).unwrap();
    assert!(std::fs::read(&old).unwrap() == std::fs::read(&disk).unwrap());
    let pipe = bench.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for to in [std::path::Path::new("/dev/null"), &pipe, &bench.path(".")] {
        let error = exported(&bench.path("a.slide"), to).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("neither a file nor a block device"), "{error}");
    }
    let other_name = bench.path("other-name");
    std::fs::hard_link(bench.path("a.slide"), &other_name).unwrap();
    for to in [&bench.path("a.slide"), &other_name, std::path::Path::new("/dev/no-such-disk")] {
        let error = exported(&bench.path("a.slide"), to).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("cannot be the output"), "{error}");
    }
    verify(&bench.path("a.slide"), |_| ()).unwrap();
}

#[test]
fn no_file_is_left_when_making_it_fails() {
    let bench = Bench::new();
    let empty = bench.disk("empty", 0, &[]);
    for source in [empty, bench.path("missing"), bench.path("")] {
        assert!(create(&CreateOptions::new(&source, &bench.path("a.slide")), |_| ()).is_err());
    }
    assert_eq!(bench.names(), ["empty"]);
    let disk = bench.disk("disk", MIB, &[]);
    let error = create(&CreateOptions::new(&disk, &disk), |_| ()).unwrap_err();
    assert!(matches!(error, ImageError::Output { .. }) && error.is_usage());
}

#[test]
fn a_source_that_cannot_be_read_to_its_end_is_told_with_the_place_and_leaves_nothing() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 64 * MIB, &[(0, vec![1; 64 << 20])]);
    let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    let options = CreateOptions::new(&disk, &bench.path("a.slide"));
    let error = create(&options, |_| file.set_len(0).unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("reading ") && error.contains("/disk at ") && error.ends_with(": it ends there"),
        "{error}"
    );
    assert_eq!(bench.names(), ["disk"]);
}

#[test]
fn info_tells_layers_sizes_and_ratios() {
    let bench = Bench::new();
    let disk = bench.disk("disk", 16 * MIB, &[(0, text(1, 4 << 20))]);
    bench.base(&disk, "a.slide");
    bench.child(&disk, "a.slide", "b.slide").unwrap();
    let info = slidecast_image::info(&bench.path("b.slide")).unwrap();
    assert_eq!((info.layers.len(), info.disk_bytes, info.raw_bytes), (2, 16 * MIB, 16 * MIB));
    assert!(info.ratio > 4.0 && info.stored_blocks == 4);
    let shown = info.to_string();
    assert!(shown.contains("16.0 MiB") && shown.contains("b.slide"), "{shown}");
}

#[test]
fn sizes_that_no_image_has_are_a_usage_error() {
    let bench = Bench::new();
    let disk = bench.disk("disk", MIB, &[]);
    for (grain, block) in [(2048, 65536), (5000, 65536), (131_072, 65536), (4096, 32 << 20), (0, 65536), (4096, 0)] {
        let (grain, block) = (Some(grain), Some(block));
        // Whether or not there is a disk.
        for source in [&disk, &bench.path("missing")] {
            let options = CreateOptions { grain, block, ..CreateOptions::new(source, &bench.path("a.slide")) };
            assert!(create(&options, |_| ()).unwrap_err().is_usage(), "{grain:?} {block:?}");
        }
    }
}
