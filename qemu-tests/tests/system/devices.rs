//! Block devices that `slidecast image` reads and writes.

use std::fs;
use std::path::Path;

use slidecast_lab::{Lab, NodeOptions, TargetKind, programs, tool};

use crate::fixtures::{Fixtures, slidecast};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("devices::a_device_gives_the_same_layer_as_the_file_behind_it", Needs::Loops, same_layer),
    ("devices::an_image_goes_to_no_device_that_is_in_use_or_read_only", Needs::Loops, not_over),
    ("devices::an_image_of_a_device_in_use_comes_with_a_note", Needs::Loops, in_use),
];

/// A lab with one node, whose loop device is the disk to try, and that device.
fn device() -> (Lab, String) {
    let lab = Lab::new(1).unwrap();
    let options = NodeOptions::file(Fixtures::get().bytes()).on(TargetKind::Loop { sector: 512 });
    let path = lab.node(0, &options).unwrap().target.path.display().to_string();
    (lab, path)
}

/// What the command says when it fails; it must fail with exit code 1 and one line.
fn refused(args: &[&str]) -> String {
    let output = std::process::Command::new(programs::server().unwrap()).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    said
}

fn mount(lab: &Lab, device: &str) {
    let dir = lab.path("mounted");
    fs::create_dir(&dir).unwrap();
    tool::run("mount", [Path::new(device), &dir]).unwrap();
}

fn same_layer() {
    let (lab, device) = device();
    let fixtures = Fixtures::get();
    slidecast(&["image", "export", &fixtures.base.display().to_string(), &device]);
    let (from_device, from_file) = (lab.path("device.slide"), lab.path("file.slide"));
    slidecast(&["image", "create", &device, "-o", &from_device.display().to_string()]);
    let file = lab.path("n1.disk").display().to_string();
    slidecast(&["image", "create", &file, "-o", &from_file.display().to_string()]);
    assert!(fs::read(from_device).unwrap() == fs::read(from_file).unwrap());
}

fn not_over() {
    let (lab, device) = device();
    let base = Fixtures::get().base.display().to_string();
    tool::run("blockdev", ["--setro", &device]).unwrap();
    assert!(refused(&["image", "export", &base, &device]).contains("it is read-only"));
    tool::run("blockdev", ["--setrw", &device]).unwrap();
    tool::run("mke2fs", ["-q", &device]).unwrap();
    mount(&lab, &device);
    assert!(refused(&["image", "export", &base, &device]).contains("it is in use"));
}

fn in_use() {
    let (lab, device) = device();
    tool::run("mke2fs", ["-q", &device]).unwrap();
    mount(&lab, &device);
    let image = lab.path("used.slide").display().to_string();
    let mut create = std::process::Command::new(programs::server().unwrap());
    let output = create.args(["image", "create", &device, "-o", &image]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains(&format!("note: {device} is in use")), "{said}");
}
