//! Images made of disks in other formats.
#![allow(missing_docs, reason = "a test")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may panic and say what they skip")]

mod common;

use common::{Bench, noise, text};
use slidecast_image::{CreateOptions, CreateProgress, ImageError, create, create_layers};
use std::cell::Cell;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// Runs a program; `false` where it is not installed, which is said.
fn run(program: &str, arguments: &[&str]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => {
            println!("SKIPPED: {program} is not installed (./check.sh installs it)");
            false
        }
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_image_of_a_qcow2_and_its_increment_are_those_of_the_raw_disk() {
    let bench = Bench::new();
    let monday = bench.disk("monday.raw", 24 * MIB, &[(0, text(1, 5 << 20)), (16 * MIB, noise(2, 3 << 20))]);
    let [qcow2, later, gzip] = ["monday.qcow2", "tuesday.qcow2", "monday.raw.gz"].map(|name| bench.path(name));
    if !run("qemu-img", &["convert", "-c", "-O", "qcow2", shown(&monday), shown(&qcow2)]) {
        return;
    }
    let of_raw = bench.base(&monday, "raw.slide");
    let of_qcow2 = bench.base(&qcow2, "a.slide");
    assert_eq!((of_raw.layer, of_raw.root), (of_qcow2.layer, of_qcow2.root));
    assert!(bench.is_equal("a.slide", &monday));

    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "monday.qcow2", "-F", "qcow2", shown(&later)]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 300k", shown(&later)]);
    let child = bench.child(&later, "a.slide", "b.slide").unwrap();
    assert!(child.new_bytes + child.fill_bytes <= 300 << 10, "{child:?}");
    let tuesday = bench.path("tuesday.raw");
    run("qemu-img", &["convert", "-O", "raw", shown(&later), shown(&tuesday)]);
    assert!(bench.is_equal("b.slide", &tuesday));

    run("gzip", &["-k", "-1", shown(&monday)]);
    let (told, packed) = (Cell::new(None), gzip.metadata().unwrap().len());
    let made = create(&CreateOptions::new(&gzip, &bench.path("c.slide")), |progress| match progress {
        CreateProgress::Preparing { done_bytes, all_bytes } => told.set(Some((done_bytes, all_bytes))),
        CreateProgress::Reading { .. } => assert_eq!(told.get(), Some((packed, packed)), "it is unpacked first"),
    });
    assert_eq!(made.unwrap().root, of_raw.root);
    assert!(told.get().is_some());
}

#[test]
fn a_file_that_the_disk_is_read_from_is_no_output_and_a_damaged_one_leaves_nothing() {
    let bench = Bench::new();
    let raw = bench.disk("base.raw", 4 * MIB, &[(MIB, noise(1, 1 << 20))]);
    let (top, image) = (bench.path("top.qcow2"), bench.path("a.slide"));
    if !run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", shown(&top)]) {
        return;
    }
    for output in [&raw, &top] {
        let error = create(&CreateOptions::new(&top, output), |_| ()).unwrap_err();
        assert!(matches!(error, ImageError::Output { what: "it is the source", .. }), "{error}");
    }
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 2M 1M", shown(&top)]);
    let bytes = std::fs::read(&top).unwrap();
    std::fs::write(&top, &bytes[..bytes.len() - 4096]).unwrap();
    let error = create(&CreateOptions::new(&top, &image), |_| ()).unwrap_err().to_string();
    assert!(error.contains("top.qcow2") && error.contains("cut short"), "{error}");
    let format = Some("raw".to_owned());
    create(&CreateOptions { format, ..CreateOptions::new(&top, &image) }, |_| ()).unwrap();
    assert!(bench.is_equal("a.slide", &top), "as raw its own bytes are imaged");
    assert_eq!(bench.names().iter().filter(|name| name.contains("partial")).count(), 0);
}

#[test]
fn an_image_of_a_packed_partclone_file_with_its_table_is_its_disk_and_reads_what_is_used_once() {
    let bench = Bench::new();
    let (start, bytes) = (2048 * 512, 24 * MIB);
    let volume = bench.disk("volume", bytes, &[(0, noise(1, 24 << 20))]);
    let [image, packed, table] = ["volume.pc", "volume.pc.zst", "disk.sf"].map(|name| bench.path(name));
    let log = bench.path("log");
    std::fs::create_dir(bench.path("files")).unwrap();
    std::fs::write(bench.path("files/a"), noise(2, 3 << 20)).unwrap();
    let made = run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", shown(&bench.path("files")), shown(&volume)]);
    let options = ["-B", "-f", "0", "-c", "-s", shown(&volume), "-O", shown(&image), "-L", shown(&log)];
    if !made || !run("partclone.extfs", &options) || !run("zstd", &["-q", shown(&image)]) {
        return;
    }
    let text = format!("label: dos\n/dev/sda1 : start=2048, size={}, type=83\n", bytes / 512);
    std::fs::write(&table, text).unwrap();
    let options = CreateOptions { table: Some(table), ..CreateOptions::new(&packed, &bench.path("a.slide")) };
    let report = create(&options, |progress| {
        assert!(matches!(progress, CreateProgress::Reading { .. }), "nothing is unpacked first");
    })
    .unwrap();
    assert_eq!(report.disk_bytes, start + bytes);
    let length = image.metadata().unwrap().len();
    assert!(report.read_bytes < length + (64 << 10) && report.unused_bytes > 15 * MIB, "{report:?}, {length}");
    let exported = bench.exported("a.slide");
    std::fs::write(&volume, &exported[usize::try_from(start).unwrap()..]).unwrap();
    assert!(run("e2fsck", &["-f", "-n", shown(&volume)]));
    run("debugfs", &["-R", &format!("dump /a {}", bench.path("a").display()), shown(&volume)]);
    assert!(std::fs::read(bench.path("a")).unwrap() == noise(2, 3 << 20));
}

#[test]
fn a_backing_chain_becomes_a_chain_of_layers_and_none_is_left_where_one_fails() {
    let bench = Bench::new();
    let base = bench.disk("base.raw", 16 * MIB, &[(0, noise(1, 6 << 20))]);
    let [middle, top, image] = ["middle.qcow2", "top.qcow2", "week.slide"].map(|name| bench.path(name));
    let over = |backing: &str, format: &str, path: &Path, size: &str| {
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", backing, "-F", format, shown(path), size])
    };
    if !over("base.raw", "raw", &middle, "16M") {
        return;
    }
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 300k", shown(&middle)]);
    over("middle.qcow2", "qcow2", &top, "20M");
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 9 1100k 64k", "-c", "write -z 3M 1M", shown(&top)]);
    let made = create_layers(&CreateOptions::new(&top, &image), |_| ()).unwrap();
    assert_eq!(made.len(), 3);
    assert!(made[1].1.new_bytes + made[1].1.fill_bytes <= 300 << 10 && made[2].1.new_bytes == 0, "{made:?}");
    assert!(made[1].1.read_bytes <= 320 << 10 && made[2].1.read_bytes <= 128 << 10, "{made:?}");
    for (name, source) in [("week.layer0.slide", &base), ("week.layer1.slide", &middle), ("week.slide", &top)] {
        let raw = bench.path("raw");
        run("qemu-img", &["convert", "-O", "raw", shown(source), shown(&raw)]);
        assert!(bench.is_equal(name, &raw), "{name}");
    }
    assert_eq!(slidecast_image::info(&image).unwrap().layers.len(), 3);
    let error = create_layers(&CreateOptions::new(&top, &image), |_| ()).unwrap_err().to_string();
    assert!(error.contains("week.layer0.slide") && error.contains("there already"), "{error}");
    let changed = Cell::new(0);
    let error = create_layers(&CreateOptions::new(&top, &bench.path("other.slide")), |progress| {
        if let CreateProgress::Reading { done_bytes, disk_bytes, .. } = progress
            && done_bytes == disk_bytes
        {
            changed.set(changed.get() + 1);
            std::fs::File::options().append(true).open(&middle).unwrap().set_len(1 << 30).unwrap();
        }
    });
    assert!(matches!(error, Err(ImageError::Changed { .. })) && changed.get() > 1, "{error:?}");
    assert!(!bench.names().iter().any(|name| name.starts_with("other")), "{:?}", bench.names());
}

#[test]
fn a_layer_has_what_it_uses_of_the_file_below_also_where_the_layer_below_left_it_out() {
    let bench = Bench::new();
    let bytes = 24 * MIB;
    let with = bench.disk("with.raw", bytes, &[]);
    let [without, top, files] = ["without.raw", "top.qcow2", "files"].map(|name| bench.path(name));
    std::fs::create_dir(&files).unwrap();
    let content = [noise(2, 3 << 20), noise(3, 2 << 20)];
    std::fs::write(files.join("a"), &content[0]).unwrap();
    std::fs::write(files.join("b"), &content[1]).unwrap();
    if !run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", shown(&files), shown(&with)]) {
        return;
    }
    // A file that the lowest disk has deleted is there again in the one above, which has new metadata alone.
    std::fs::copy(&with, &without).unwrap();
    run("debugfs", &["-w", "-R", "rm /a", shown(&without)]);
    run("e2fsck", &["-f", "-n", shown(&without)]);
    if !run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", "with.raw", "-F", "raw", shown(&top)]) {
        return;
    }
    run("qemu-img", &["rebase", "-b", "without.raw", "-F", "raw", shown(&top)]);
    let made = create_layers(&CreateOptions::new(&top, &bench.path("a.slide")), |_| ()).unwrap();
    let (below, above) = (&made[0].1, &made[1].1);
    assert!(below.new_bytes < (3 << 20) && above.new_bytes >= 3 << 20, "{made:?}");
    // Of the file that both have, and of the metadata that are the same, nothing is read again.
    assert!(above.read_bytes + (2 << 20) <= below.read_bytes + (3 << 20) + (128 << 10), "{made:?}");
    let volume = bench.path("volume");
    std::fs::write(&volume, bench.exported("a.slide")).unwrap();
    run("e2fsck", &["-f", "-n", shown(&volume)]);
    for (name, content) in ["a", "b"].iter().zip(&content) {
        run("debugfs", &["-R", &format!("dump /{name} {}", bench.path("dumped").display()), shown(&volume)]);
        assert!(std::fs::read(bench.path("dumped")).unwrap() == *content, "{name}");
    }
}
