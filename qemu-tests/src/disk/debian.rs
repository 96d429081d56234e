//! A real Debian system on a disk, kept in a cache folder.
//!
//! `mmdebstrap` (else `debootstrap`) makes the tree once, as a tar; the disks are made of it with `mke2fs -d`. Everything
//! is written under a temporary name and renamed, so that a run that was stopped leaves nothing half made behind.

use std::fs;
use std::path::{Path, PathBuf};

use super::Layout;
use super::change::Change;
use super::loader;
use super::synthetic::Disks;
use crate::error::{LabError, Result};
use crate::tool;

/// Which system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// A base system that boots, with BIOS and UEFI, from virtio or NVMe disks, to a login on the serial line.
    Minimal,
    /// The same with a kernel and Python: at least 512 MiB used.
    Full,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            // Another name when what is made changes: the old one may be in somebody's cache.
            Self::Minimal => "bootable",
            Self::Full => "full",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            Self::Minimal => "systemd-sysv,udev,dbus,iproute2,login,passwd,kmod,linux-image-cloud-amd64",
            Self::Full => "systemd-sysv,udev,dbus,iproute2,login,passwd,kmod,python3,linux-image-amd64",
        }
    }

    fn layout(self) -> Layout {
        match self {
            Self::Minimal => Layout { efi_mib: 64, swap_mib: 128, root_mib: 1024 },
            Self::Full => Layout { efi_mib: 64, swap_mib: 128, root_mib: 2048 },
        }
    }
}

const NO_DOCS: &str = "--dpkgopt=path-exclude=/usr/share/doc/*";
const NO_LOCALES: &str = "--dpkgopt=path-exclude=/usr/share/locale/*";
/// Otherwise it would have that of the machine on which it was made.
const HOST_NAME: &str = r#"--customize-hook=echo sample > "$1/etc/hostname""#;

/// Debian's keys, as its package `debian-archive-keyring` has them on every distribution.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where sample disks are kept: `SLIDECAST_CACHE`, else `slidecast` in the user's cache folder.
pub fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("SLIDECAST_CACHE").unwrap_or_else(|| {
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        caches.unwrap_or_else(|| PathBuf::from("/var/tmp")).join("slidecast")
    })
}

/// The disk in both states, made on first use; `say` is told what takes long.
///
/// # Errors
/// When a tool is missing or fails, or no Debian archive can be reached.
pub fn make(flavour: Flavour, say: &mut dyn FnMut(&str)) -> Result<Disks> {
    let cache = cache();
    fs::create_dir_all(&cache).map_err(LabError::io("creating", &cache))?;
    let layout = flavour.layout();
    let named = |state: &str| cache.join(format!("debian-{}-{state}.img", flavour.name()));
    let disks = Disks { layout, first: named("first"), second: named("second") };
    // The second state is renamed into place last.
    if disks.second.is_file() && disks.first.is_file() {
        return Ok(disks);
    }
    let tar = cache.join(format!("debian-{}.tar", flavour.name()));
    if !tar.is_file() {
        say(&format!("installing a {} Debian system into {} (once)", flavour.name(), tar.display()));
        let half = cache.join(format!("debian-{}.half.tar", flavour.name()));
        bootstrap(flavour, &half)?;
        fs::rename(&half, &tar).map_err(LabError::io("renaming", &half))?;
    }
    say("making the sample disk: GPT, EFI partition, swap, ext4 root; and its state a week later");
    let work = cache.join(format!("work-{}", std::process::id()));
    let made = assemble(flavour, &layout, &tar, &work, &disks);
    let _ = fs::remove_dir_all(&work);
    made.map(|()| disks)
}

fn assemble(flavour: Flavour, layout: &Layout, tar: &Path, work: &Path, disks: &Disks) -> Result<()> {
    let root = work.join("root");
    fs::create_dir_all(&root).map_err(LabError::io("creating", &root))?;
    // Device nodes need rights that a user namespace lacks, and a running system makes its own.
    let owner = if crate::privilege::in_user_namespace() { "--no-same-owner" } else { "--numeric-owner" };
    let words = ["--extract", "--exclude=./dev/*", owner, "--file"].map(Path::new);
    tool::run("tar", words.into_iter().chain([tar, Path::new("--directory"), &root]))?;
    let (first, second) = (work.join("first.img"), work.join("second.img"));
    let (kernel, initrd) = (in_boot(&root, "vmlinuz-"), in_boot(&root, "initrd.img-"));
    match (flavour, kernel.as_slice(), initrd.as_slice()) {
        (Flavour::Minimal, [kernel, ..], [initrd, ..]) => {
            layout.make(&first, &root, &[])?;
            loader::install(layout, &first, kernel, initrd, work)?;
        }
        // The larger system is there for its size: nobody starts it.
        _ => layout.make(&first, &root, &kernel)?,
    }
    let used: u64 = layout.used_ranges(&first)?.iter().map(|range| range.end - range.start).sum();
    Change::of(used).make(layout, &first, &second, &root, &work.join("scratch"))?;
    for (from, to) in [(&first, &disks.first), (&second, &disks.second)] {
        fs::rename(from, to).map_err(LabError::io("renaming", from))?;
    }
    Ok(())
}

/// The files of `/boot` whose names begin like this.
fn in_boot(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(root.join("boot")).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix)))
        .collect()
}

fn bootstrap(flavour: Flavour, tar: &Path) -> Result<()> {
    let release = release();
    let include = format!("--include={}", flavour.packages());
    let made = if tool::have("mmdebstrap") {
        // Ubuntu's apt does not know Debian's keys by itself, and without gpg mmdebstrap does not look for them either.
        let keyring = Path::new(KEYRING).exists().then(|| format!("--keyring={KEYRING}"));
        let args = ["--quiet", "--variant=minbase", &include, NO_DOCS, NO_LOCALES, HOST_NAME];
        let args = args.into_iter().chain(keyring.as_deref()).chain([release.as_str()]).map(Path::new);
        tool::run("mmdebstrap", args.chain([tar])).map(drop)
    } else if tool::have("debootstrap") {
        let tree = tar.with_extension("tree");
        let args = ["--variant=minbase", &include, &release].map(Path::new);
        let made = tool::run("debootstrap", args.into_iter().chain([tree.as_path()])).and_then(|_| {
            let args = [Path::new("--create"), Path::new("--numeric-owner"), Path::new("--file"), tar];
            tool::run("tar", args.into_iter().chain([Path::new("--directory"), &tree, Path::new(".")]))
        });
        let _ = fs::remove_dir_all(&tree);
        made.map(drop)
    } else {
        let why = "a sample disk needs mmdebstrap or debootstrap: apt-get install mmdebstrap";
        return Err(LabError::Unable { why: why.to_owned() });
    };
    made.map_err(|error| {
        let _ = fs::remove_file(tar);
        let said = error.to_string();
        let first = said.lines().find(|line| line.contains("E:")).unwrap_or(&said).trim();
        let why = format!(
            "no Debian system could be installed for the sample disk (is a Debian archive reachable?): {first}"
        );
        LabError::Unable { why }
    })
}

/// The Debian release to install: this machine's own, if it is Debian.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(name)) => name,
        _ => "bookworm".to_owned(),
    }
}
