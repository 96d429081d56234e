//! Makes the inputs that fuzzing starts from, in FOLDER/TARGET/: file systems by the programs that make them, layers by
//! `create`, and texts. What a missing program would make is left out.
//!
//! Usage: `cargo run --example seeds -- FOLDER`

use slidecast_image::{CreateOptions, create};
use slidecast_proto::frame::{Header, Kind};
use slidecast_proto::units::DeploymentId;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// Target, name, size of the volume, program, and its arguments before the volume.
const VOLUMES: [(&str, &str, u64, &str, &[&str]); 27] = [
    ("ext", "ext2", MIB, "mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024"]),
    ("ext", "ext4", 4 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4", "-N", "64"]),
    ("ext", "uninit", 4 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4", "-N", "64", "-O", "^metadata_csum,uninit_bg"]),
    ("ext", "plain", 4 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4", "-N", "64", "-O", "^metadata_csum,^uninit_bg"]),
    ("ext", "bigalloc", 16 * MIB, "mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum,bigalloc"]),
    ("ext", "meta_bg", 32 * MIB, "mke2fs", &["-q", "-F", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"]),
    ("ext", "two_backups", 32 * MIB, "mke2fs", &["-q", "-F", "-b", "1024", "-O", "sparse_super2,^resize_inode"]),
    ("fat", "fat12", 2 * MIB, "mkfs.vfat", &["-F", "12"]),
    ("fat", "fat16", 16 * MIB, "mkfs.vfat", &["-F", "16"]),
    ("fat", "fat32", 64 * MIB, "mkfs.vfat", &["-F", "32"]),
    ("ntfs", "ntfs", 2 * MIB, "mkntfs", &["-q", "-F", "-Q"]),
    ("btrfs", "mixed", 16 * MIB, "mkfs.btrfs", &["-q", "-M", "-n", "4096"]),
    ("swap", "swap", MIB, "mkswap", &["-q"]),
    ("xfs", "xfs", 64 * MIB, "env", &SMALL_XFS),
    (
        "xfs",
        "xfs_4",
        64 * MIB,
        "env",
        &[SMALL_XFS[0], SMALL_XFS[1], SMALL_XFS[2], "mkfs.xfs", "-q", "-f", "-m", "crc=0"],
    ),
    (
        "xfs",
        "xfs_full",
        64 * MIB,
        "env",
        &[SMALL_XFS[0], SMALL_XFS[1], SMALL_XFS[2], "mkfs.xfs", "-q", "-m", "rmapbt=1"],
    ),
    ("exfat", "exfat", 8 * MIB, "mkfs.exfat", &["-b", "4K"]),
    ("f2fs", "f2fs", 60 * MIB, "mkfs.f2fs", &["-q", "-f"]),
    (
        "container",
        "qcow2",
        0,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", "size=256K,cluster_size=4k,preallocation=metadata"],
    ),
    (
        "container",
        "parts",
        0,
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", "size=256K,cluster_size=16k,extended_l2=on"],
    ),
    ("container", "vhd", 0, "qemu-img", &["create", "-q", "-f", "vpc", "-o", "size=1M,force_size=on"]),
    ("container", "vmdk", 0, "qemu-img", &["create", "-q", "-f", "vmdk", "-o", "size=1M"]),
    ("container", "vdi", 0, "qemu-img", &["create", "-q", "-f", "vdi", "-o", "size=2M,static=on"]),
    ("container", "vhdx", 0, "qemu-img", &["create", "-q", "-f", "vhdx", "-o", "size=1M,block_size=1M"]),
    ("partition_table", "gpt", 8 * MIB, "sgdisk", &["-n", "1:64:+1M", "-n", "2:0:0"]),
    ("partition_table", "gpt_of_4", MIB, "sgdisk", &["-S", "4", "-n", "1:0:0"]),
    ("partition_table", "mbr", 8 * MIB, "sgdisk", &["-n", "1:64:+1M", "-n", "2:0:0", "-m", "1:2"]),
];

/// mkfs.xfs makes volumes below 300 MiB only for the tests of xfsprogs.
const SMALL_XFS: [&str; 6] = ["TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1", "mkfs.xfs", "-q", "-f"];

const LINES: [&[u8]; 4] = [
    b"BOOT_IMAGE=vmlinuz quiet slidecast.server=10.0.0.1:7531 slidecast.target=/dev/sda slidecast.attended=1",
    b"slidecast.key=insecure slidecast.shell=0 BOOTIF=01-52-54-00-12-34-56 ip=dhcp",
    b"ip=10.0.0.9::10.0.0.1:255.255.255.0:host:eth0:off:10.0.0.1 \"quoted words\" console=ttyS0",
    b"slidecast.target=\"model=Samsung SSD*,size=100GiB..1TiB\" slidecast.server=host slidecast.sever=x",
];

/// The front of an image of partclone, version 2, of 64 blocks; its header gets its checksum when it is read.
fn partclone_of_bits() -> Vec<u8> {
    let map = [0xFF, 0x0F, 0, 0xF0, 0, 0, 0, 0x81];
    let mut image = vec![0; 110];
    image[..15].copy_from_slice(b"partclone-image");
    image[30..36].copy_from_slice(b"0002\xDE\xC0");
    image[36..41].copy_from_slice(b"EXTFS");
    for (at, number) in [(52, 64 << 12), (60, 64), (68, 18), (76, 18)] {
        image[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
    }
    image[84..88].copy_from_slice(&4096_u32.to_le_bytes());
    image[88..106].copy_from_slice(&[18, 0, 0, 0, 2, 0, 64, 0, 0x20, 0, 4, 0, 1, 0, 0, 0, 1, 1]);
    [&[1][..], &image, &map, &(!crc32fast::hash(&map)).to_le_bytes()].concat()
}

/// The same of version 1.
fn partclone_of_bytes() -> Vec<u8> {
    let mut image = vec![0; 64 + 4096];
    image[..15].copy_from_slice(b"partclone-image");
    image[15..20].copy_from_slice(b"EXTFS");
    image[30..34].copy_from_slice(b"0001");
    image[36..40].copy_from_slice(&4096_u32.to_le_bytes());
    image[40..48].copy_from_slice(&(8_u64 << 12).to_le_bytes());
    image[48..56].copy_from_slice(&8_u64.to_le_bytes());
    [&[0][..], &image, &[1, 1, 0, 0, 1, 0, 0, 1], b"BiTmAgIc"].concat()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: seeds FOLDER")?);
    let scratch = folder.join("scratch");
    fs::create_dir_all(&scratch)?;
    for (target, name, bytes, program, arguments) in VOLUMES {
        let volume = scratch.join(name);
        fs::File::create(&volume)?.set_len(bytes)?;
        if !run(program, arguments, &volume) {
            eprintln!("seeds: no {name}: {program} is missing or failed");
            continue;
        }
        let mut content = fs::read(&volume)?;
        content.resize(content.len().next_multiple_of(512), 0);
        clear_upper_case(&mut content);
        let description = slidecast_image::fuzzing::encode(&content);
        // The byte in front says whether checksums are put right.
        let flags: &[u8] = if target == "partition_table" { &[1] } else { &[] };
        put(&folder, target, name, &[flags, &description].concat())?;
        put(&folder, "disk", name, &description)?;
    }
    for (name, block) in [("small", Some(64 << 10)), ("usual", None)] {
        let (disk, layer) = (scratch.join("disk"), scratch.join("layer.slide"));
        let content: Vec<u8> = (0..300_u32 << 10).map(|at| if at < 200 << 10 { (at >> 12) as u8 } else { 0 }).collect();
        fs::write(&disk, content)?;
        create(&CreateOptions { block, ..CreateOptions::new(&disk, &layer) }, |_| ())?;
        put(&folder, "layer", name, &[&[1_u8][..], &fs::read(&layer)?].concat())?;
        fs::remove_file(&layer)?;
    }
    for (no, line) in LINES.into_iter().enumerate() {
        put(&folder, "kernel_command_line", &format!("line{no}"), line)?;
    }
    for kind in [Kind::Hello, Kind::Lacks, Kind::Ack, Kind::Again] {
        put(&folder, "frame", &format!("{kind:?}"), &Header::bare(kind, DeploymentId([1; 16]), 7).encode())?;
    }
    let disk = physical_volume();
    put(&folder, "lvm", "linear_and_striped", &slidecast_image::fuzzing::encode(&disk))?;
    put(&folder, "md", "raid1", &slidecast_image::fuzzing::encode(&array_member(&disk)))?;
    put(&folder, "partclone", "bits", &partclone_of_bits())?;
    put(&folder, "partclone", "bytes", &partclone_of_bytes())?;
    put(&folder, "dhcp", "lease", &dhcp())?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// NTFS has a table of capital letters of 128 KiB, which no reader looks at: without it an input is a fifth as long.
fn clear_upper_case(volume: &mut [u8]) {
    const BYTES: usize = 128 << 10;
    let front: Vec<u8> = (0..32_u16).flat_map(u16::to_le_bytes).collect();
    let found = (0..volume.len()).step_by(512).find(|at| volume[*at..].starts_with(&front));
    if let Some(table) = found.and_then(|at| volume.get_mut(at..at + BYTES)) {
        table.fill(0);
    }
}

fn put(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn run(program: &str, arguments: &[&str], volume: &Path) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new(program);
    command.args(arguments).arg(volume).env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A physical volume of 3 MiB with two logical volumes, without checksums.
fn physical_volume() -> Vec<u8> {
    let volume = |name: &str, segment: &str| {
        format!(
            "{name} {{ id = \"{name}\" status = [\"READ\", \"WRITE\", \"VISIBLE\"] segment_count = 1\nsegment1 {{ start_extent = 0\n{segment} }} }}\n"
        )
    };
    let linear = volume("root", "extent_count = 3 type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 0]");
    let stripes =
        "extent_count = 4 type = \"striped\" stripe_count = 2 stripe_size = 8 stripes = [\"pv0\", 4, \"pv0\", 8]";
    let text = format!(
        "vg {{ id = \"a\" format = \"lvm2\" extent_size = 128\nphysical_volumes {{ pv0 {{ id = \"{}\" pe_start = 2048 pe_count = 32 }} }}\n\
         logical_volumes {{\n{linear}{} }} }}\ncontents = \"Text Format Volume Group\"\nversion = 1\n\0",
        "a".repeat(32),
        volume("data", stripes)
    );
    let mut disk = vec![0; 3 << 20];
    disk[512..520].copy_from_slice(b"LABELONE");
    disk[520] = 1;
    disk[532] = 32;
    disk[536..544].copy_from_slice(b"LVM2 001");
    disk[544..576].fill(b'a');
    let header = [3 << 20, 1 << 20, 0, 0, 0, 4096, 60 << 10, 0, 0];
    disk[576..648].copy_from_slice(&header.map(u64::to_le_bytes).concat());
    disk[4100..4116].copy_from_slice(b" LVM2 x[5A%r0N*>");
    disk[4116] = 1;
    let area = [4096, 60 << 10, 512, text.len() as u64];
    disk[4120..4152].copy_from_slice(&area.map(u64::to_le_bytes).concat());
    disk[4608..4608 + text.len()].copy_from_slice(text.as_bytes());
    disk
}

/// A member of a RAID1 with a superblock of version 1.2 and `content` in the array, without a checksum.
fn array_member(content: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; (1 << 20) + content.len()];
    disk[1 << 20..].copy_from_slice(content);
    let sectors = content.len() as u64 / 512;
    let numbers = [
        (0, 0xA92B_4EFC),
        (4, 1),
        (72, 1),
        (80, sectors),
        (92, 2),
        (128, 2048),
        (136, sectors),
        (144, 8),
        (208, u64::MAX),
        (220, 2),
    ];
    for (at, value) in numbers {
        let len = if value > u64::from(u32::MAX) { 8 } else { 4 };
        disk[4096 + at..4096 + at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }
    disk
}

/// An offer and its confirmation, each with the flags and the length that the target expects in front.
fn dhcp() -> Vec<u8> {
    let mut out = Vec::new();
    for kind in [2, 5, 5] {
        let mut reply = vec![2, 1, 6, 0];
        reply.resize(16, 0);
        reply.extend([10, 0, 0, 9]);
        reply.resize(236, 0);
        reply.extend([99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 0, 0, 1, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1]);
        reply.extend([51, 4, 0, 0, 3, 232, 6, 4, 10, 0, 0, 1, 12, 4, b'h', b'o', b's', b't', 26, 2, 5, 220]);
        reply.extend(b"\x77\x0e\x03lab\x04test\x00\x01x\xc0\x04\x79\x08\x18\x0a\x01\x01\x0a\x00\x00\x01\xff");
        out.push(1 | 9 << 1);
        out.extend(u16::try_from(reply.len()).unwrap_or(0).to_le_bytes());
        out.extend(reply);
    }
    out
}
