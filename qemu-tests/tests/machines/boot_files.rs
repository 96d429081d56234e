//! What `mkimage.sh` makes, and of what.

use std::path::{Path, PathBuf};

use slidecast_lab::disk::debian;
use slidecast_lab::machine::{Boot, BootFiles, Options};
use slidecast_lab::{Lab, tool};

use crate::Takes::One;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures};

pub(crate) const TESTS: &[Test] = &[
    ("boot_files::the_same_input_gives_the_same_bytes_and_the_manifest_says_which", One, same_bytes),
    ("boot_files::the_drivers_of_ordinary_pcs_and_servers_are_in_and_it_all_stays_small", One, drivers),
    ("boot_files::packed_modules_of_another_distribution_make_the_same_files", One, packed),
    ("boot_files::the_agent_loads_packed_modules", One, loads_packed),
];

/// Wired cards and disks of ordinary PCs and servers.
const DRIVERS: &str = "e1000e igb igc ixgbe i40e ice r8169 tg3 bnxt_en mlx4_core mlx4_en mlx5_core atlantic virtio_net \
                       vmxnet3 hv_netvsc ahci nvme megaraid_sas mpt3sas usb-storage uas virtio_blk virtio_scsi \
                       hv_storvsc sdhci-pci mmc_block sd_mod";

fn public_key(fixtures: &Fixtures) -> String {
    slidecast_lab::programs::public_key(&fixtures.key).unwrap()
}

fn manifest(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("manifest.txt")).unwrap()
}

fn sh(line: &str) -> String {
    tool::run("sh", ["-ec", line]).unwrap()
}

fn same_bytes() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    // In another folder, at another time.
    let again = BootFiles::make(&lab.path("again"), "common", &public_key(fixtures), &[]).unwrap();
    assert_eq!(manifest(&again.dir), manifest(&fixtures.boot.dir));
    for name in ["vmlinuz", "initramfs.img", "slidecast.efi", "slidecast.iso", "boot.ipxe"] {
        let file = again.file(name);
        let sum = tool::run("sha256sum", [&file]).unwrap();
        let bytes = std::fs::metadata(&file).unwrap().len();
        let line = format!("{} {bytes:>9} {name}", sum.split(' ').next().unwrap());
        assert!(manifest(&again.dir).lines().any(|said| said == line), "{line} is not in\n{}", manifest(&again.dir));
    }
}

fn drivers() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let list = sh(&format!("zstd -dc '{}' | cpio -t --quiet", fixtures.boot.file("initramfs.img").display()));
    for driver in DRIVERS.split_whitespace() {
        assert!(list.contains(&format!("/{driver}.ko\n")), "{driver} is not in the initramfs");
    }
    let virtio = BootFiles::make(&lab.path("virtio"), "virtio", &public_key(fixtures), &[]).unwrap();
    for (files, most) in [(&fixtures.boot, 20 << 20), (&virtio, 6 << 20)] {
        let bytes = std::fs::metadata(files.file("initramfs.img")).unwrap().len();
        assert!(bytes <= most, "{bytes} bytes in {}", files.dir.display());
    }
}

/// The kernel that the boot files were made of, unpacked to `dir` as `mkimage.sh` does it: its `vmlinuz` and its modules.
fn unpack_kernel(dir: &Path) -> (PathBuf, PathBuf) {
    let (root, cache) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), debian::cache().join("kernel"));
    let line = format!(
        "cd '{}'; . qemu-tests/need.sh; . initramfs/kernel.sh; fetch_kernel '{}' '{}'; echo \"$kernel\"; echo \"$modules\"",
        root.display(),
        cache.display(),
        dir.display()
    );
    let said = tool::run("bash", ["-ec", &line]).unwrap();
    let mut paths = said.lines().map(PathBuf::from);
    (paths.next().unwrap(), paths.next().unwrap())
}

fn packed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let (kernel, modules) = unpack_kernel(&lab.path("kernel"));
    // All three ways of packing, among the modules of this set. A distribution may have packed them already.
    let folder = modules.join("kernel").display().to_string();
    sh(&format!(
        "cd '{folder}'
        unpack() {{ find \"$@\" -name '*.ko.xz' -exec xz -d {{}} + -o -name '*.ko.zst' -exec zstd -qd --rm {{}} +; }}
        pack() {{ from=$1; shift; find $from -maxdepth 1 -name '*.ko' -exec \"$@\" {{}} +; }}
        unpack drivers/virtio drivers/block drivers/scsi net/core
        unpack drivers/net -maxdepth 1
        pack drivers/virtio xz
        pack net/core gzip
        pack drivers/net gzip
        pack drivers/scsi zstd -q --rm
        pack drivers/block zstd -q --rm"
    ));
    let key = public_key(fixtures);
    let (kernel, modules) = (kernel.display().to_string(), modules.display().to_string());
    let given = ["--kernel", &kernel, "--kernel-modules", &modules];
    let packed = BootFiles::make(&lab.path("packed"), "virtio", &key, &given).unwrap();
    let plain = BootFiles::make(&lab.path("plain"), "virtio", &key, &[]).unwrap();
    assert_eq!(manifest(&packed.dir), manifest(&plain.dir));
}

fn loads_packed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let (tree, initramfs) = (lab.path("tree").display().to_string(), lab.path("packed.img"));
    let unpack = format!(
        "mkdir '{tree}'; cd '{tree}'; zstd -dc '{}' | cpio -id --quiet",
        fixtures.boot.file("initramfs.img").display()
    );
    let pack = "find lib/modules -name '*.ko' -exec zstd -q --rm {} +; depmod -b . \"$(ls lib/modules)\"";
    sh(&format!("{unpack}; {pack}; find . | cpio --quiet -o -H newc | zstd -q >'{}'", initramfs.display()));
    let Boot::Kernel { kernel, words, .. } = fixtures.kernel() else { unreachable!() };
    let boot = Boot::Kernel { kernel, initramfs, words };
    let mut machine = lab.machine(Options::new(boot, vec![fixtures.disk(&lab, "d")])).unwrap();
    machine.wait_for("slidecast: disk /dev/vda (serial d,", BOOT).unwrap();
    machine.wait_for("slidecast: waiting for server", BOOT).unwrap();
    assert!(machine.console().contains("(dhcp)"), "{}", machine.console());
    assert!(!machine.console().contains("loading module"), "{}", machine.console());
}
