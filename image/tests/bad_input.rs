//! Images that are cut, flipped, foreign, half made, or lack their parent: a clear error each, never a wrong disk.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{Bench, exported, noise, text};
use slidecast_image::{Image, ImageError, verify};
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// A base and a child that leaves blocks of the base partly live.
fn two_layers(bench: &Bench) -> (PathBuf, PathBuf) {
    let mut content = vec![(0, text(1, 200 << 10)), (MIB, noise(1, 20 << 10))];
    let first = bench.disk("first", 2 * MIB, &content);
    bench.base(&first, "0.slide");
    content.push((8192, noise(2, 8192)));
    let second = bench.disk("second", 2 * MIB, &content);
    bench.child(&second, "0.slide", "1.slide").unwrap();
    std::fs::remove_file(first).unwrap();
    (bench.path("0.slide"), bench.path("1.slide"))
}

#[test]
fn a_file_cut_anywhere_is_refused_when_opened() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    for path in [base, child] {
        let good = std::fs::read(&path).unwrap();
        for len in (0..good.len()).step_by(97).chain([4095, 4096, good.len() - 1]) {
            std::fs::write(&path, &good[..len]).unwrap();
            let error = Image::open(&bench.path("1.slide")).unwrap_err();
            let told = matches!(
                error,
                ImageError::Truncated { .. } | ImageError::NotAnImage { .. } | ImageError::ParentMissing { .. }
            );
            assert!(told, "{len}: {error}");
        }
        std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
        assert!(Image::open(&bench.path("1.slide")).is_err());
        std::fs::write(&path, &good).unwrap();
    }
    assert!(bench.is_equal("1.slide", &bench.path("second")));
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_never_written_out() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    let disk = std::fs::read(bench.path("second")).unwrap();
    let out = bench.path("out");
    for path in [base, child] {
        let good = std::fs::read(&path).unwrap();
        // All of what is not payload lies in the first and last pages.
        let ends = (0..300).chain(good.len().saturating_sub(6000)..good.len());
        for at in ends.step_by(7).chain((0..good.len()).step_by(131)) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bad).unwrap();
            assert!(verify(&bench.path("1.slide"), |_| ()).is_err(), "{at} of {}", path.display());
            match exported(&bench.path("1.slide"), &out) {
                // Block headers, grain hashes and what is not live are not needed to write a disk.
                Ok(_) => {
                    assert!(std::fs::read(&out).unwrap() == disk, "{at} of {}", path.display());
                    std::fs::remove_file(&out).unwrap();
                }
                Err(_) => assert!(!out.exists()),
            }
        }
        std::fs::write(&path, &good).unwrap();
    }
    verify(&bench.path("1.slide"), |_| ()).unwrap();
}

#[test]
fn a_rotten_block_is_named_with_its_file() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    let mut bytes = std::fs::read(&base).unwrap();
    bytes[4096 + 64 + 100] ^= 1;
    std::fs::write(&base, bytes).unwrap();
    let resolved = Image::open(&child).unwrap().resolve().unwrap();
    let faults: Vec<_> = (0..resolved.header().blocks)
        .filter_map(|block| resolved.check_block(slidecast_proto::units::BlockNo(block)).err())
        .collect();
    assert_eq!(faults.len(), 1);
    let told = faults[0].to_string();
    assert!(told.contains("0.slide: block 0 at 4096") && told.contains("checksum"), "{told}");
}

#[test]
fn a_wrong_hash_over_live_grains_is_found_though_all_checksums_are_right() {
    let bench = Bench::new();
    let (_, child) = two_layers(&bench);
    common::forge::wrong_live_hash(&child);
    let resolved = Image::open(&child).unwrap().resolve().unwrap();
    let blocks = (0..resolved.header().blocks).map(slidecast_proto::units::BlockNo);
    let bad: Vec<_> = blocks.filter_map(|block| resolved.check_block(block).err()).collect();
    let is_told = |error: &ImageError| error.to_string().contains("a wrong hash over its live grains");
    assert!(matches!(&bad[..], [error] if is_told(error)), "{bad:?}");
    assert!(is_told(&verify(&child, |_| ()).unwrap_err()));
}

/// A file whose disk is all zeros, and which claims that it has `bytes` of them.
fn zeros(bench: &Bench, name: &str, bytes: u64) -> PathBuf {
    let disk = bench.disk("zeros", MIB, &[]);
    bench.base(&disk, name);
    let path = bench.path(name);
    common::forge::claim_zeros(&path, bytes);
    path
}

#[test]
fn more_fills_than_512_tebibytes_are_refused_before_they_take_memory() {
    let bench = Bench::new();
    for bytes in [1 << 60, (1 << 49) + (2 << 30)] {
        let path = zeros(&bench, "huge.slide", bytes);
        let error = Image::open(&path).unwrap().resolve().unwrap_err();
        assert!(
            matches!(error, ImageError::TooMany { .. }) && error.to_string().contains("512 TiB of fills"),
            "{error}"
        );
    }
}

#[test]
fn foreign_files_are_no_images() {
    let bench = Bench::new();
    for (name, bytes) in [("empty", vec![]), ("zeros", vec![0; 10_000]), ("short", b"SLIDE".to_vec())] {
        let path = bench.path(name);
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Image::open(&path), Err(ImageError::NotAnImage { .. })), "{name}");
    }
    assert!(matches!(Image::open(&bench.path(".")), Err(ImageError::NotAnImage { .. })));
    assert!(matches!(Image::open(&bench.path("none")), Err(ImageError::Io { .. })));
    let pipe = bench.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(Image::open(&pipe), Err(ImageError::NotAnImage { .. })), "nobody waits for a pipe");
}

#[test]
fn a_half_made_file_says_so() {
    let bench = Bench::new();
    let mut bytes = b"SLIDEIMG\x01\x00\x01".to_vec();
    bytes.resize(4096 - 32, 0);
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    bytes.resize(100_000, 7);
    std::fs::write(bench.path("half.slide"), bytes).unwrap();
    assert!(matches!(Image::open(&bench.path("half.slide")), Err(ImageError::Unfinished { .. })));
}

#[test]
fn an_image_of_another_version_says_so() {
    let bench = Bench::new();
    let (base, _) = two_layers(&bench);
    let mut bytes = std::fs::read(&base).unwrap();
    bytes[8] = 2;
    std::fs::write(&base, bytes).unwrap();
    assert!(matches!(Image::open(&base), Err(ImageError::Version { version: 2, .. })));
}

#[test]
fn a_parent_is_found_under_another_name_beside_its_child() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    std::fs::rename(&base, bench.path("renamed.slide")).unwrap();
    assert!(Image::open(&child).unwrap().resolve().is_ok());
    std::fs::write(&base, b"something else").unwrap();
    assert!(Image::open(&child).unwrap().resolve().is_ok());
}

#[test]
fn a_missing_parent_is_named() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    std::fs::remove_file(&base).unwrap();
    let error = Image::open(&child).unwrap_err();
    assert!(matches!(&error, ImageError::ParentMissing { name, .. } if name == "0.slide"), "{error}");
}

#[test]
fn another_layer_under_the_name_of_the_parent_is_an_error_with_both_ids() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    let wanted = Image::open(&base).unwrap().header().layer;
    let other = bench.disk("other", 2 * MIB, &[(0, noise(9, 4096))]);
    let found = bench.base(&other, "0.slide").layer;
    let error = Image::open(&child).unwrap_err();
    assert!(matches!(error, ImageError::ParentReplaced { .. }), "{error}");
    assert!(error.to_string().contains(&wanted.to_string()) && error.to_string().contains(&found.to_string()));
}

#[test]
fn a_parent_replaced_by_its_own_grandchild_is_no_loop() {
    let bench = Bench::new();
    let (base, child) = two_layers(&bench);
    std::fs::copy(&child, &base).unwrap();
    assert!(matches!(Image::open(&child), Err(ImageError::ParentReplaced { .. })));
}
