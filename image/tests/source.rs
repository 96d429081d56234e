//! Sources that change, shrink, or are no raw disks.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, noise};
use slidecast_image::{CreateOptions, ImageError, create};
use std::cell::Cell;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;

#[test]
fn a_source_that_shrinks_or_is_written_to_gives_an_error_and_no_file() {
    for (shrinks, allow_changes, made) in
        [(true, false, false), (true, true, false), (false, false, false), (false, true, true)]
    {
        let bench = Bench::new();
        let disk = bench.disk("disk", 64 * MIB, &[(0, noise(1, 40 << 20))]);
        let options = CreateOptions { allow_changes, ..CreateOptions::new(&disk, &bench.path("a.slide")) };
        let done = Cell::new(false);
        let result = create(&options, |_| {
            if !done.replace(true) {
                let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
                if shrinks {
                    file.set_len(62 * MIB).unwrap();
                } else {
                    file.write_all_at(b"new", 0).unwrap();
                    file.set_times(std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
                }
            }
        });
        assert_eq!(result.is_ok(), made, "{result:?}");
        assert_eq!(bench.path("a.slide").exists(), made);
        assert_eq!(bench.names().len(), if made { 2 } else { 1 });
    }
}

#[test]
fn a_container_is_refused_by_name_and_imaged_on_purpose() {
    let bench = Bench::new();
    let disk = bench.disk("disk", MIB, &[(0, b"QED\0\0\0\0\x03".to_vec())]);
    let error = create(&CreateOptions::new(&disk, &bench.path("a.slide")), |_| ()).unwrap_err();
    assert!(matches!(error, ImageError::Container { format: "QED", .. }));
    assert!(error.to_string().contains("--format raw"), "{error}");
    create(&CreateOptions { format: Some("raw".into()), ..CreateOptions::new(&disk, &bench.path("a.slide")) }, |_| ())
        .unwrap();
    assert!(bench.is_equal("a.slide", &disk));
    let ours = create(&CreateOptions::new(&bench.path("a.slide"), &bench.path("b.slide")), |_| ()).unwrap_err();
    assert!(ours.to_string().contains("slidecast image export"), "{ours}");
}

#[test]
fn a_file_can_be_said_to_have_sectors_of_4096() {
    let bench = Bench::new();
    let disk = bench.disk("disk", MIB, &[(0, noise(1, 4096))]);
    let options = CreateOptions { sector: Some(4096), ..CreateOptions::new(&disk, &bench.path("a.slide")) };
    create(&options, |_| ()).unwrap();
    let image = slidecast_image::Image::open(&bench.path("a.slide")).unwrap();
    assert_eq!(image.resolve().unwrap().header().sector, 4096);
    let odd = bench.disk("odd", MIB + 512, &[]);
    create(&CreateOptions { source: odd, output: bench.path("odd.slide"), ..options }, |_| ()).unwrap();
    let image = slidecast_image::Image::open(&bench.path("odd.slide")).unwrap();
    assert_eq!(image.resolve().unwrap().header().disk_bytes, MIB + 4096, "padded to its next sector");
}

#[test]
fn a_name_that_could_not_be_given_in_the_end_and_a_key_are_no_outputs() {
    let bench = Bench::new();
    let disk = bench.disk("disk", MIB, &[]);
    std::fs::write(bench.path("key"), format!("{}\n", "0a".repeat(32))).unwrap();
    let long = "x".repeat(235);
    for name in ["key", long.as_str()] {
        let error = create(&CreateOptions::new(&disk, &bench.path(name)), |_| ()).unwrap_err();
        assert!(matches!(error, ImageError::Output { .. }), "{error}");
    }
    bench.base(&disk, &"y".repeat(220));
    bench.base(&disk, "a.slide");
    assert!(common::exported(&bench.path("a.slide"), &bench.path("key")).is_err());
    assert!(common::exported(&bench.path("a.slide"), &bench.path(&"y".repeat(220))).is_err());
}
