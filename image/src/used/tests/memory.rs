//! How much memory a look at a large disk takes: `SLIDECAST_DISK=FILE cargo test -p slidecast-image --release --lib memory -- --ignored --nocapture`.

use crate::source::{DiskSource, RawDisk};
use crate::used::scan;
use std::path::Path;
use std::time::Instant;

/// A field of `/proc/self/status`, in KiB.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "measures one disk that SLIDECAST_DISK names"]
fn the_memory_of_a_look_at_a_disk_is_told() {
    let disk = std::env::var_os("SLIDECAST_DISK").unwrap();
    let source = RawDisk::open(Path::new(&disk)).unwrap();
    let (before, start) = (status("VmRSS"), Instant::now());
    let report = scan(&source, source.bytes(), 512);
    let (peak, took) = (status("VmHWM"), start.elapsed());
    for partition in &report.partitions {
        println!("{}: {} of {} bytes unused {}", partition.fs, partition.unused_bytes, partition.bytes, partition.note);
    }
    report.notes.iter().for_each(|note| println!("{note}"));
    println!("{} ranges, {} KiB more than before, {took:.1?}", report.unused.len(), peak - before);
}
