//! Files made by QEMU's tools, and what these read out of them.

use super::*;
use crate::testing::{LoopDevice, run, succeeds, tool};

/// What `qemu-img convert` is given for each kind of file: format, options, name.
pub(super) const KINDS: &[(&str, &str, &[&str])] = &[
    ("qcow2", "plain.qcow2", &[]),
    ("qcow2", "old.qcow2", &["-o", "compat=0.10"]),
    ("qcow2", "zlib.qcow2", &["-c"]),
    ("qcow2", "old-zlib.qcow2", &["-c", "-o", "compat=0.10,cluster_size=4k"]),
    ("qcow2", "zstd.qcow2", &["-c", "-o", "compression_type=zstd"]),
    ("qcow2", "parts.qcow2", &["-o", "extended_l2=on,cluster_size=128k"]),
    ("qcow2", "packed-parts.qcow2", &["-c", "-o", "extended_l2=on,cluster_size=16k"]),
    ("qcow2", "small.qcow2", &["-o", "cluster_size=512"]),
    ("qcow2", "large.qcow2", &["-c", "-o", "cluster_size=2M"]),
    ("qcow2", "reserved.qcow2", &["-o", "preallocation=metadata"]),
    ("vpc", "fixed.vhd", &["-o", "subformat=fixed,force_size=on"]),
    ("vpc", "dynamic.vhd", &["-o", "subformat=dynamic,force_size=on"]),
    ("vdi", "dynamic.vdi", &[]),
    ("vdi", "static.vdi", &["-o", "static=on"]),
    ("vhdx", "dynamic.vhdx", &["-o", "subformat=dynamic,block_size=1M"]),
    ("vhdx", "fixed.vhdx", &["-o", "subformat=fixed"]),
    ("vmdk", "sparse.vmdk", &["-o", "subformat=monolithicSparse"]),
    ("vmdk", "flat.vmdk", &["-o", "subformat=monolithicFlat"]),
    ("vmdk", "stream.vmdk", &["-o", "subformat=streamOptimized"]),
    ("vmdk", "split.vmdk", &["-o", "subformat=twoGbMaxExtentSparse"]),
    ("vmdk", "split-flat.vmdk", &["-o", "subformat=twoGbMaxExtentFlat"]),
];

/// Makes the file of a kind out of the raw disk `raw` in the same folder.
pub(super) fn made(raw: &Path, (format, name, options): (&str, &str, &[&str])) -> PathBuf {
    let path = raw.with_file_name(name);
    let paths = [raw.to_str().unwrap(), path.to_str().unwrap()];
    run("qemu-img", ["convert", "-f", "raw", "-O", format].into_iter().chain(options.iter().copied()).chain(paths));
    path
}

/// What QEMU reads out of `path`; `None` where it refuses.
pub(super) fn read_by_qemu(path: &Path, format: &str) -> Option<Vec<u8>> {
    let out = path.with_extension("oracle");
    let paths = [path.to_str().unwrap(), out.to_str().unwrap()];
    succeeds("qemu-img", ["convert", "-f", format, "-O", "raw"].into_iter().chain(paths))
        .then(|| std::fs::read(out).unwrap())
}

fn io(path: &Path, commands: &[&str]) {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    run("qemu-io", ["-f", "qcow2"].into_iter().chain(commands).chain([path.to_str().unwrap()]));
}

#[test]
fn every_kind_of_file_that_qemu_makes_gives_the_disk_it_was_made_of() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    // Neither whole clusters nor whole megabytes.
    let content = disk(7 * 2048 + 777);
    let raw = write(dir.path(), "disk.raw", &content);
    for kind in KINDS {
        let disk = opened(&made(&raw, *kind)).unwrap();
        assert_ne!(disk.format(), RAW, "{}", kind.1);
        assert_eq!(difference(&bytes_of(&*disk).unwrap(), &content), "", "{}", kind.1);
        let info = describe(disk.path()).unwrap().unwrap();
        assert_eq!((info.format.as_str(), info.disk_bytes), (disk.format(), Some(content.len() as u64)));
    }
}

#[test]
fn a_backing_chain_is_read_through_all_its_files_and_behind_a_short_one_are_zeros() {
    let Some(_) = tool("qemu-io") else { return };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "base.raw", &disk(2048));
    let [middle, top] = ["middle.qcow2", "top.qcow2"].map(|name| dir.path().join(name));
    let create = |path: &Path, options: &[&str], backing: [&str; 4], size: &str| {
        let fixed = ["create", "-q", "-f", "qcow2"].into_iter().chain(backing).chain(options.iter().copied());
        run("qemu-img", fixed.chain([path.to_str().unwrap(), size]));
    };
    create(&middle, &[], ["-b", "base.raw", "-F", "raw"], "3M");
    io(&middle, &["write -P 7 100k 9k", "write -z 512k 128k", "write -P 8 1030k 40k"]);
    create(&top, &["-o", "extended_l2=on"], ["-b", "middle.qcow2", "-F", "qcow2"], "4M");
    io(&top, &["write -P 9 130k 2k", "write -z 300k 4k", "write -P 1 3900k 10k"]);
    let opened = opened(&top).unwrap();
    let expected = read_by_qemu(&top, "qcow2").unwrap();
    assert_eq!(difference(&bytes_of(&*opened).unwrap(), &expected), "");
    assert_eq!(opened.files().len(), 3);
    assert_eq!(opened.change().unwrap(), None);
    io(&middle, &["write -P 3 0 1k"]);
    assert!(opened.change().unwrap().is_some(), "a file below was written to");
}

#[test]
fn a_snapshot_is_read_by_its_name_and_one_that_is_not_there_is_told_with_those_that_are() {
    let Some(_) = tool("qemu-io") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), "disk.raw", &disk(4096));
    let path = made(&raw, ("qcow2", "a.qcow2", &[]));
    run("qemu-img", ["snapshot", "-c", "installed", path.to_str().unwrap()]);
    io(&path, &["write -P 7 0 1M"]);
    run("qemu-img", ["snapshot", "-c", "second", path.to_str().unwrap()]);
    let of = |name| open(&path, &Asked { snapshot: Some(name), ..Asked::of(dir.path()) });
    assert_eq!(difference(&bytes_of(&*of("installed").unwrap()).unwrap(), &disk(4096)), "");
    let mut second = disk(4096);
    second[..1 << 20].fill(7);
    assert_eq!(difference(&bytes_of(&*of("second").unwrap()).unwrap(), &second), "");
    let error = of("third").unwrap_err().to_string();
    assert!(error.contains("\"third\"") && error.contains("installed, second"), "{error}");
    assert_eq!(describe(&path).unwrap().unwrap().snapshots, ["installed", "second"]);
    let error = open(&raw, &Asked { snapshot: Some("installed"), ..Asked::of(dir.path()) }).unwrap_err().to_string();
    assert!(error.contains("no snapshot"), "{error}");
}

#[test]
fn what_is_not_read_of_qcow2_is_refused_by_name() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let make = |name: &str, options: &[&str]| {
        let path = at(name);
        let fixed = ["create", "-q", "-f", "qcow2"].into_iter().chain(options.iter().copied());
        run("qemu-img", fixed.chain([path.to_str().unwrap(), "1M"]));
        opened(&path).unwrap_err().to_string()
    };
    let secret = ["--object", "secret,id=s,data=geheim", "-o", "encrypt.format=luks,encrypt.key-secret=s"];
    assert!(make("luks.qcow2", &secret).contains("encrypted content"));
    let data = format!("data_file={}", at("data.raw").display());
    assert!(make("data.qcow2", &["-o", &data]).contains("external data file"));
    std::fs::create_dir(at("inside")).unwrap();
    write(dir.path(), "outside.raw", &[1; 4096]);
    let lies = |name: &str, backing: &str, format: &str| make(name, &["-u", "-b", backing, "-F", format]);
    let none = lies("none.qcow2", "nothing.raw", "raw");
    assert!(none.contains("\"nothing.raw\"") && none.contains("is not there"), "{none}");
    assert!(lies("inside/out.qcow2", "../outside.raw", "raw").contains("outside the folder"));
    assert!(lies("net.qcow2", "nbd://localhost/disk", "raw").contains("no local file"));
    assert!(lies("loop.qcow2", "loop.qcow2", "qcow2").contains("no end"));
    assert!(lies("odd.qcow2", "outside.raw", "qed").contains("a format that is not read"));
    std::os::unix::fs::symlink(at("outside.raw"), at("inside/link.raw")).unwrap();
    assert!(lies("inside/link.qcow2", "link.raw", "raw").contains("outside the folder"));
    let mut guessed = std::fs::read(at("odd.qcow2")).unwrap();
    let place = guessed.windows(4).position(|four| four == [0xE2, 0x79, 0x2A, 0xCA]).unwrap();
    guessed[place..place + 4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
    assert!(opened(&write(dir.path(), "guess.qcow2", &guessed)).unwrap_err().to_string().contains("no format"));
}

#[test]
fn a_vmdk_reads_no_file_elsewhere_and_no_delta() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), "disk.raw", &disk(2048));
    let path = made(&raw, ("vmdk", "flat.vmdk", &["-o", "subformat=monolithicFlat"]));
    let text = std::fs::read_to_string(&path).unwrap();
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        opened(&write(dir.path(), "other.vmdk", text.replace(from, to).as_bytes())).unwrap_err().to_string()
    };
    assert!(refused("flat-flat.vmdk", "/etc/passwd").contains("outside the folder"));
    assert!(refused("flat-flat.vmdk", "../flat-flat.vmdk").contains("outside the folder"));
    assert!(refused("flat-flat.vmdk", "none.vmdk").contains("is not there"));
    assert!(refused("RW 2048", "RW 4096").contains("shorter than"));
    assert!(refused("parentCID=ffffffff", "parentCID=12345678").contains("a parent"));
    assert!(refused("FLAT", "SESPARSE").contains("another kind"));
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.vmdk")).unwrap();
    assert!(refused("flat-flat.vmdk", "link.vmdk").contains("outside the folder"));
    assert!(refused("RW 2048", "RW 1024").contains("longer than"));
    let twice = format!("{line}\n{line}", line = text.lines().find(|line| line.starts_with("RW")).unwrap());
    assert!(refused(twice.lines().next().unwrap(), &twice).contains("twice"));
    assert!(refused("parentCID=ffffffff", "parentFileNameHint=\"base.vmdk\"").contains("a parent"));
    assert!(refused("RW 2048", "SW 2048").contains("descriptor"));

    made(&raw, ("vmdk", "split.vmdk", &["-o", "subformat=twoGbMaxExtentSparse"]));
    let error = opened(&dir.path().join("split-s001.vmdk")).unwrap_err().to_string();
    assert!(error.contains("one extent of a disk in several files") && error.contains("names all of them"), "{error}");
}

#[test]
fn a_container_on_a_device_is_refused_by_name_and_imaged_on_purpose() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), "disk.raw", &disk(2048));
    let path = made(&raw, ("qcow2", "a.qcow2", &[]));
    std::fs::File::options().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
    let Some(device) = LoopDevice::new(&path, 512) else { return };
    let shown = Path::new(device.path());
    let error = opened(shown).unwrap_err().to_string();
    assert!(error.contains("qcow2") && error.contains("--format raw"), "{error}");
    assert_eq!(open_as(shown, RAW).unwrap().bytes(), 2 << 20);
    assert_eq!(difference(&bytes_of(&*open_as(shown, "qcow2").unwrap()).unwrap(), &disk(2048)), "");
}

#[test]
fn a_vhdx_says_that_its_sectors_have_4096_bytes_and_deltas_of_vdi_are_refused() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let content = disk(8192);
    let raw = write(dir.path(), "disk.raw", &content);
    let mut vhdx = std::fs::read(made(&raw, ("vhdx", "a.vhdx", &[]))).unwrap();
    let find = |bytes: &[u8]| vhdx.windows(bytes.len()).position(|found| found == bytes).unwrap();
    let region = find(b"metadata");
    let item = find(b"\x1D\xBF\x41\x81\x6F\xA9\x09\x47\xBA\x47\xF2\x33\xA8\xFA\xAB\x5F");
    let at = region + u32::from_le_bytes(vhdx[item + 16..item + 20].try_into().unwrap()) as usize;
    assert_eq!(vhdx[at..at + 4], 512_u32.to_le_bytes());
    vhdx[at..at + 4].copy_from_slice(&4096_u32.to_le_bytes());
    let opened_4k = opened(&write(dir.path(), "b.vhdx", &vhdx)).unwrap();
    assert_eq!((opened_4k.sector(), opened_4k.bytes()), (Some(4096), content.len() as u64));
    assert_eq!(difference(&bytes_of(&*opened_4k).unwrap(), &content), "");

    let mut vdi = std::fs::read(made(&raw, ("vdi", "a.vdi", &[]))).unwrap();
    vdi[0x4C] = 4;
    let error = opened(&write(dir.path(), "b.vdi", &vdi)).unwrap_err().to_string();
    assert!(error.contains("a parent") && error.contains("qemu-img convert"), "{error}");
}

#[test]
fn a_vhdx_with_a_log_or_a_parent_is_refused_by_name() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), "disk.raw", &disk(2048));
    let bytes = std::fs::read(made(&raw, ("vhdx", "a.vhdx", &[]))).unwrap();
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|found| found == what).unwrap();
    let mut logged = bytes.clone();
    for at in [64 << 10, 128 << 10] {
        let header = &mut logged[at..at + 4096];
        header[48..64].fill(0xAB);
        header[4..8].fill(0);
        let sum = !crate::used::crc32c(!0, header);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
    }
    let error = opened(&write(dir.path(), "log.vhdx", &logged)).unwrap_err().to_string();
    assert!(error.contains("log.vhdx") && error.contains("a log that has to be replayed"), "{error}");
    assert!(error.contains("qemu-img check -r all") && !error.contains('\n'), "{error}");

    let mut child = bytes;
    let parameters = find(&child, b"\x37\x67\xA1\xCA\x36\xFA");
    let offset = u32::from_le_bytes(child[parameters + 16..parameters + 20].try_into().unwrap());
    let flags = find(&child, b"metadata") + usize::try_from(offset).unwrap() + 4;
    child[flags] |= 2;
    let error = opened(&write(dir.path(), "child.vhdx", &child)).unwrap_err().to_string();
    assert!(error.contains("a parent") && error.contains("Merge-VHD"), "{error}");
}

#[test]
fn a_container_inside_of_a_container_is_refused_by_name_and_imaged_on_purpose() {
    let Some(_) = tool("qemu-img") else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = write(dir.path(), "disk.raw", &disk(256));
    let fixed = ("vpc", "inside.vhd", &["-o", "subformat=fixed,force_size=on"][..]);
    for (inside, name) in [(("qcow2", "inside.qcow2", &[][..]), "qcow2"), (fixed, "VHD")] {
        let inside = made(&raw, inside);
        let content = std::fs::read(&inside).unwrap();
        for kind in [("qcow2", "outside.qcow2", &[][..]), ("vmdk", "outside.vmdk", &[]), ("vhdx", "outside.vhdx", &[])]
        {
            let path = made(&inside, kind);
            let error = opened(&path).unwrap_err().to_string();
            assert!(
                error.contains(&format!("its content {name:?} is no raw disk")) && !error.contains('\n'),
                "{error}"
            );
            let read = bytes_of(&*open_as(&path, kind.0).unwrap()).unwrap();
            assert_eq!(difference(&read[..content.len()], &content), "", "{}", kind.1);
        }
    }
    let error = open(&raw, &Asked { disk: Some("sda"), ..Asked::of(dir.path()) }).unwrap_err().to_string();
    assert!(error.contains("(raw): it is one disk"), "{error}");
}
