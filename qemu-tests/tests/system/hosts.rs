//! Boot files from the packages of several distributions: the same files, wherever a package has its kernel and modules.
//!
//! The packages are made here, of the layout that the real ones have, and so is the apt that knows them. What
//! `qemu-tests/hosts.sh` does with the real distributions takes too long for every run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use slidecast_lab::{Lab, programs, tool};

use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("hosts::boot_files_are_made_of_the_kernel_packages_of_debian_12", Needs::Packages, debian_12),
    ("hosts::boot_files_are_made_of_the_kernel_packages_of_debian_13", Needs::Packages, debian_13),
    ("hosts::boot_files_are_made_of_the_kernel_packages_of_ubuntu", Needs::Packages, ubuntu),
    ("hosts::a_package_without_modules_is_named", Needs::Packages, no_modules),
    ("hosts::a_file_that_its_package_no_longer_has_is_named", Needs::Packages, moved),
];

const VERSION: &str = "6.9.1-77-amd64";
/// The size of an ordinary kernel: a UKI has to fill a FAT file system.
const KERNEL: usize = 8 << 20;
const MODULES: [&str; 3] = ["virtio_blk", "virtio_net", "virtio_pci"];

/// An apt that knows the packages of one folder, in front of the real one.
struct Apt<'a> {
    lab: &'a Lab,
    /// Its programs.
    bin: PathBuf,
    /// Packages and what they depend on.
    pool: PathBuf,
}

impl<'a> Apt<'a> {
    fn new(lab: &'a Lab) -> Self {
        let (bin, pool) = (lab.path("bin"), lab.path("pool"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&pool).unwrap();
        let at = pool.display();
        let cache = format!(
            "#!/bin/sh\ncase $1 in depends) cat '{at}'/$2.depends ;; show) [ -f '{at}'/$3.deb ] && echo Filename: pool/$3.deb ;; esac\n"
        );
        let get = format!(
            "#!/bin/sh\nfor last; do :; done\ncase \" $* \" in *' download '*) cp '{at}'/$last.deb . ;; esac\n"
        );
        for (name, text) in [("apt-cache", cache), ("apt-get", get)] {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { lab, bin, pool }
    }

    /// A package that holds `tree` and depends on others.
    fn add(&self, name: &str, tree: Option<&Path>, depends: &[&str]) {
        let lines: String = depends.iter().map(|other| format!("  Depends: {other}\n")).collect();
        fs::write(self.pool.join(format!("{name}.depends")), format!("{name}\n{lines}")).unwrap();
        let Some(tree) = tree else { return };
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        let control =
            format!("Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: a test\nDescription: one\n");
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let deb = self.pool.join(format!("{name}.deb"));
        let words = ["-Znone", "--root-owner-group", "--build"].map(Path::new);
        tool::run("dpkg-deb", words.into_iter().chain([tree, &deb])).unwrap();
    }

    /// Runs a command of the repository with this apt.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command.args(args).env("PATH", path).env("SLIDECAST_CACHE", self.lab.path("cache"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).output().unwrap()
    }

    fn mkimage(&self, more: &[&str]) -> Output {
        let (agent, out) =
            (programs::agent().unwrap().display().to_string(), self.lab.path("out").display().to_string());
        let args = ["--agent", &agent, "--out", &out, "--modules", "virtio", "--key", "none"];
        self.run("./mkimage.sh", &[&args, more].concat())
    }
}

/// A kernel in `boot`, which root alone can read on Ubuntu.
fn add_kernel(tree: &Path, mode: u32) {
    fs::create_dir_all(tree.join("boot")).unwrap();
    let kernel = tree.join("boot").join(format!("vmlinuz-{VERSION}"));
    fs::write(&kernel, vec![7; KERNEL]).unwrap();
    fs::set_permissions(&kernel, fs::Permissions::from_mode(mode)).unwrap();
}

/// Modules below `lib`, packed with the command `pack`.
fn add_modules(lab: &Lab, tree: &Path, lib: &str, pack: &str) {
    let modules = tree.join(lib).join("modules").join(VERSION);
    let drivers = modules.join("kernel/drivers/virtio");
    fs::create_dir_all(&drivers).unwrap();
    let mut order = String::new();
    for name in MODULES {
        let (source, object) = (lab.path("module.c"), drivers.join(format!("{name}.ko")));
        let info = format!("name={name}\\0depends=\\0license=GPL");
        fs::write(
            &source,
            format!("__attribute__((section(\".modinfo\"), used)) static const char info[] = \"{info}\";\n"),
        )
        .unwrap();
        tool::run("cc", [Path::new("-c"), Path::new("-x"), Path::new("c"), &source, Path::new("-o"), &object]).unwrap();
        if !pack.is_empty() {
            tool::run("sh", ["-ec", &format!("{pack} '{}'", object.display())]).unwrap();
        }
        order += &format!("kernel/drivers/virtio/{name}.ko\n");
    }
    fs::write(modules.join("modules.order"), order).unwrap();
    for list in ["modules.builtin", "modules.builtin.modinfo"] {
        fs::write(modules.join(list), "").unwrap();
    }
}

/// Firmware as a package has it that was unpacked for `--add`.
fn add_firmware(lab: &Lab, lib: &str) -> String {
    let dir = lab.path("firmware").join(lib).join("firmware/vendor");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("card.fw"), "firmware").unwrap();
    // Many files of these packages are links to others.
    symlink("card.fw", dir.join("other.fw")).unwrap();
    lab.path("firmware").display().to_string()
}

/// Boot files come out, with modules as plain files and the firmware where the kernel looks; the second time nothing is fetched.
fn assert_makes_boot_files(lab: &Lab, apt: &Apt<'_>, lib: &str) {
    let firmware = add_firmware(lab, lib);
    for _ in 0..2 {
        let made = apt.mkimage(&["--add", &firmware]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let out = lab.path("out");
        assert!(fs::read(out.join("vmlinuz")).unwrap() == vec![7; KERNEL], "this is not the package's kernel");
        assert_eq!(fs::metadata(out.join("vmlinuz")).unwrap().permissions().mode() & 0o777, 0o644);
        let list = format!("zstd -dc '{}' | cpio -t --quiet", out.join("initramfs.img").display());
        let list = tool::run("sh", ["-ec", &list]).unwrap();
        let files = MODULES.map(|name| format!("lib/modules/{VERSION}/kernel/drivers/virtio/{name}.ko"));
        for file in
            files.iter().map(String::as_str).chain(["lib/firmware/vendor/card.fw", "lib/firmware/vendor/other.fw"])
        {
            assert!(list.lines().any(|line| line == file), "{file} is not in the initramfs:\n{list}");
        }
        assert!(!list.contains("usr/lib/firmware"), "{list}");
        fs::remove_file(apt.bin.join("apt-get")).ok();
    }
}

fn debian(lib: &str, pack: &str) {
    let lab = Lab::new(1).unwrap();
    let apt = Apt::new(&lab);
    let (image, tree) = (format!("linux-image-{VERSION}"), lab.path("tree"));
    add_kernel(&tree, 0o644);
    add_modules(&lab, &tree, lib, pack);
    apt.add("linux-image-amd64", None, &[&image]);
    apt.add(&image, Some(&tree), &["kmod", "linux-base"]);
    assert_makes_boot_files(&lab, &apt, lib);
}

fn debian_12() {
    debian("lib", "");
}

fn debian_13() {
    debian("usr/lib", "xz");
}

fn ubuntu() {
    let lab = Lab::new(1).unwrap();
    let apt = Apt::new(&lab);
    let [image, modules, extra] = ["image", "modules", "modules-extra"].map(|what| format!("linux-{what}-{VERSION}"));
    let [image_tree, modules_tree, extra_tree] = ["image", "modules", "extra"].map(|name| lab.path(name));
    add_kernel(&image_tree, 0o600);
    add_modules(&lab, &modules_tree, "lib", "zstd -q --rm");
    // The rest of the drivers, without lists of modules.
    let more = Path::new("lib/modules").join(VERSION).join("kernel/drivers/virtio");
    fs::create_dir_all(extra_tree.join(&more)).unwrap();
    let file = Path::new("virtio_net.ko.zst");
    fs::rename(modules_tree.join(&more).join(file), extra_tree.join(&more).join(file)).unwrap();
    apt.add("linux-image-generic", None, &[&image, &extra, "linux-firmware", "intel-microcode"]);
    apt.add(&image, Some(&image_tree), &["kmod", &modules]);
    apt.add(&modules, Some(&modules_tree), &[]);
    apt.add(&extra, Some(&extra_tree), &[&image]);
    assert_makes_boot_files(&lab, &apt, "lib");
}

fn no_modules() {
    let lab = Lab::new(1).unwrap();
    let apt = Apt::new(&lab);
    let (image, tree) = (format!("linux-image-{VERSION}"), lab.path("tree"));
    add_kernel(&tree, 0o644);
    apt.add("linux-image-amd64", None, &[&image]);
    apt.add(&image, Some(&tree), &[]);
    let made = apt.mkimage(&[]);
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(!made.status.success() && said.contains("no modules of vmlinuz-6.9.1-77-amd64 in "), "{said}");
    assert!(said.contains("/linux-image-6.9.1-77-amd64.deb"), "{said}");
}

fn moved() {
    let lab = Lab::new(1).unwrap();
    let apt = Apt::new(&lab);
    let needs = |tools: &str| {
        let output = apt.run("bash", &["-ec", &format!(". qemu-tests/need.sh; need_tools {tools}; echo enough")]);
        (output.status.success(), [output.stdout, output.stderr].concat())
    };
    let (found, said) = needs("sh '/nonexistent/undionly.kpxe|/bin/sh'");
    assert!(found && said == b"enough\n", "a file is where one of its places says: {}", String::from_utf8_lossy(&said));
    let (found, said) = needs("sh /nonexistent/undionly.kpxe");
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!found && said.contains("installing: ipxe"), "{said}");
    assert!(said.contains("still missing after apt-get install ipxe: /nonexistent/undionly.kpxe"), "{said}");
}
