//! Images that must not be deployed: one clear line, exit code 1, no disk touched.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use slidecast_lab::disk::random;
use slidecast_lab::process::Place;
use slidecast_lab::{Exit, Lab, Process, programs};

use crate::fixtures::{Fixtures, LONG, SOON, slidecast, start_agents};
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("bad_images::a_missing_image_is_refused", Needs::Network, missing),
    ("bad_images::a_truncated_image_is_refused_wherever_it_ends", Needs::Network, truncated),
    ("bad_images::a_foreign_file_is_refused", Needs::Network, foreign),
    ("bad_images::creating_an_image_that_is_killed_leaves_no_image", Needs::Network, half_made),
    ("bad_images::an_increment_without_its_parent_is_refused", Needs::Network, no_parent),
    ("bad_images::an_increment_beside_another_parent_of_the_same_name_is_refused", Needs::Network, other_parent),
    ("bad_images::a_wrong_hash_over_live_grains_ends_as_image_corrupt_on_every_node", Needs::Network, wrong_live),
    ("bad_images::what_killed_creates_left_is_collected_and_what_runs_is_not", Needs::Network, left_over),
    ("bad_images::a_block_that_rots_on_the_server_ends_as_image_corrupt_with_file_and_block", Needs::Network, rotten),
];

/// `deploy` of this image fails at once with exit code 1 and one line that has these words.
fn assert_refused(image: &Path, words: &[&str]) {
    let lab = Lab::new(1).unwrap();
    let mut deploy = lab.deploy(image, 1, &["--progress", "none"]).unwrap();
    assert_eq!(deploy.process.wait_exit(SOON).unwrap(), Exit::Code(1), "{}", deploy.process.tail());
    let said = deploy.process.err();
    let line = said.trim();
    assert!(!line.is_empty() && line.lines().count() == 1, "not one line: {said}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
    assert!(!line.contains("panicked"), "{line}");
}

fn missing() {
    assert_refused(Path::new("/nonexistent/lost.slide"), &["/nonexistent/lost.slide", "No such file"]);
}

fn truncated() {
    let fixtures = Fixtures::get();
    let dir = fixtures.folder("truncated");
    let whole = fs::read(&fixtures.base).unwrap();
    for len in [0, 7, 600, whole.len() / 2, whole.len() - 1] {
        let image = dir.join(format!("cut{len}.slide"));
        fs::write(&image, &whole[..len]).unwrap();
        assert_refused(&image, &[&format!("cut{len}.slide")]);
    }
}

fn foreign() {
    let fixtures = Fixtures::get();
    let image = fixtures.folder("foreign").join("foreign.slide");
    random::write_file(&image, 3 << 20, 5).unwrap();
    assert_refused(&image, &["foreign.slide"]);
    assert_refused(&fixtures.disks.first, &["first.img"]);
    assert_refused(Path::new("/dev/null"), &["/dev/null"]);
    assert_refused(&fixtures.folder("foreign"), &["foreign"]);
}

fn half_made() {
    let fixtures = Fixtures::get();
    let dir = fixtures.folder("half-made");
    let image = dir.join("half.slide");
    let source = dir.join("source.img");
    random::write_file(&source, 256 << 20, 6).unwrap();
    let args = ["image".into(), "create".into(), source.clone().into_os_string(), "-o".into(), image.clone().into()];
    let mut create = Process::start("create", &dir, &Place::default(), &programs::server().unwrap(), args).unwrap();
    // Something of it is on the disk, though under no name.
    let begun = |process: &Process| {
        let counts = fs::read_to_string(format!("/proc/{}/io", process.pid())).unwrap_or_default();
        let written = counts.lines().find_map(|line| line.strip_prefix("wchar: ")?.trim().parse::<u64>().ok());
        written.is_some_and(|bytes| bytes > 1 << 20)
    };
    create.wait_until("writing", LONG, begun).unwrap();
    create.kill();
    assert!(!image.exists());
    // Where the file system knows files without a name, nothing of it is left.
    let unnamed = File::options().write(true).custom_flags(libc::O_TMPFILE).open(&dir).is_ok();
    let is_partial = |entry: fs::DirEntry| entry.path().extension().is_some_and(|end| end == "partial");
    assert!(!unnamed || !fs::read_dir(&dir).unwrap().flatten().any(is_partial));
    // And the next one is not in its way.
    fs::remove_file(&source).unwrap();
    random::write_file(&source, 1 << 20, 6).unwrap();
    slidecast(&["image", "create", &source.display().to_string(), "-o", &image.display().to_string()]);
    slidecast(&["image", "verify", &image.display().to_string()]);
}

fn no_parent() {
    let fixtures = Fixtures::get();
    let image = fixtures.folder("no-parent").join("increment.slide");
    fs::copy(&fixtures.increment, &image).unwrap();
    assert_refused(&image, &["parent"]);
}

fn other_parent() {
    let fixtures = Fixtures::get();
    let dir = fixtures.folder("other-parent");
    let image = dir.join("increment.slide");
    fs::copy(&fixtures.increment, &image).unwrap();
    let (source, other) = (fixtures.disks.second.display().to_string(), dir.join("base.slide").display().to_string());
    slidecast(&["image", "create", &source, "-o", &other]);
    assert_refused(&image, &["parent"]);
}

fn rotten() {
    let fixtures = Fixtures::get();
    let image = fixtures.folder("rotten").join("rotten.slide");
    fs::copy(&fixtures.base, &image).unwrap();
    let file = File::options().read(true).write(true).open(&image).unwrap();
    // The middle of the file is in some block's payload.
    let middle = file.metadata().unwrap().len() / 2;
    let mut bytes = [0; 64];
    file.read_exact_at(&mut bytes, middle).unwrap();
    file.write_all_at(&bytes.map(|byte| !byte), middle).unwrap();
    fails_as_corrupt(&image, &["rotten.slide", "block"]);
}

/// Two nodes fail because of the image, which `says` describe; the disks are innocent.
fn fails_as_corrupt(image: &Path, says: &[&str]) {
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(2, &Fixtures::get().node()).unwrap();
    let mut deploy = lab.deploy(image, 2, &[]).unwrap();
    let mut agents = start_agents(&lab, &nodes);
    let (exit, report) = deploy.wait(LONG).unwrap();
    assert_eq!(exit, Exit::Code(3), "{report:?}");
    for node in report.nodes.iter() {
        assert_eq!((node.state.as_str(), node.reason.as_str()), ("failed", "image-corrupt"), "{node:?}");
        assert!(says.iter().all(|word| node.detail.contains(word)), "{}", node.detail);
    }
    for agent in &mut agents {
        assert_ne!(agent.wait_exit(Duration::from_secs(20)).unwrap(), Exit::Code(0));
    }
}

fn wrong_live() {
    let fixtures = Fixtures::get();
    let dir = fixtures.folder("wrong-live");
    let image = dir.join("wrong.slide");
    fs::copy(&fixtures.base, dir.join("base.slide")).unwrap();
    fs::copy(&fixtures.increment, &image).unwrap();
    crate::false_images::wrong_live_hash(&image);
    fails_as_corrupt(&image, &["wrong hash over its live grains"]);
}

fn left_over() {
    let lab = Lab::new(1).unwrap();
    let dir = lab.path("folder");
    fs::create_dir(&dir).unwrap();
    let source = lab.path("source.img");
    random::write_file(&source, 128 << 20, 8).unwrap();
    let start = |name: &str| {
        // Without /proc no file without a name can be given one, as where the file system knows none.
        let words = ["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"].map(OsString::from);
        let program = programs::server().unwrap().into_os_string();
        let command = ["image", "create", "--codec", "zstd:19"].map(OsString::from);
        let files = [source.clone().into_os_string(), "-o".into(), dir.join(name).into_os_string()];
        let args = words.into_iter().chain([program]).chain(command).chain(files);
        let mut create = Process::start(name, &lab.path(""), &Place::default(), Path::new("unshare"), args).unwrap();
        let begins = format!(".{name}.");
        let begun = |_: &Process| partial(&dir).iter().any(|found| found.starts_with(&begins));
        create.wait_until("having begun its file", LONG, begun).unwrap();
        create
    };
    let mut killed = start("killed.slide");
    killed.kill();
    assert_eq!(partial(&dir).len(), 1, "{:?}", partial(&dir));
    let stopped = start("stopped.slide");
    // What was left is gone; what is being made stays, even if its maker stands still.
    let names = partial(&dir);
    assert!(matches!(&names[..], [name] if name.starts_with(".stopped.slide.")), "{names:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(stopped.pid().cast_signed()), nix::sys::signal::Signal::SIGSTOP)
        .unwrap();
    let small = lab.path("small.img");
    random::write_file(&small, 1 << 20, 9).unwrap();
    let to = dir.join("small.slide").display().to_string();
    slidecast(&["image", "create", &small.display().to_string(), "-o", &to]);
    assert_eq!(partial(&dir), names);
    drop(stopped);
}

/// The passing names in a folder.
fn partial(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".partial")).collect()
}
