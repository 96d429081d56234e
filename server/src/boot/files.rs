//! What is served: the boot files that `mkimage.sh` made, and the first stages and programs that are installed here.

use super::config::{BIOS_STAGE, UEFI_STAGE, UKI};
use super::error::BootError;
use super::uki::{HEAD, MAX_COMMAND_LINE, Uki};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The kernel.
pub(super) const KERNEL: &str = "vmlinuz";
/// The initramfs.
pub(super) const INITRAMFS: &str = "initramfs.img";

/// Where distributions put the first stages.
const IPXE_DIRS: [&str; 3] = ["/usr/lib/ipxe", "/usr/share/ipxe", "/usr/share/ipxe/x86_64"];
/// Where programs for administrators are, which are not on everybody's search path.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A file that is held open: what is served is what was there at the start, kernel and initramfs from the same build.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) len: u64,
}

impl Opened {
    /// Opens the file at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a file"));
        }
        if meta.len() == 0 {
            return Err(io::Error::other("empty"));
        }
        Ok(Self { file, len: meta.len() })
    }
}

/// The files of the folder that `mkimage.sh` wrote.
#[derive(Debug)]
pub(super) struct BootFiles {
    pub(super) kernel: Opened,
    pub(super) initramfs: Opened,
    pub(super) uki: Opened,
    pub(super) uki_path: PathBuf,
    pub(super) uki_headers: Uki,
    /// The kernel command line that is in the UKI.
    pub(super) command_line: String,
}

impl BootFiles {
    /// Opens them all.
    pub(super) fn open(dir: &Path) -> Result<Self, BootError> {
        let open = |name: &str| {
            let path = dir.join(name);
            Opened::open(&path).map_err(|source| BootError::File { path, source })
        };
        let (kernel, initramfs, uki) = (open(KERNEL)?, open(INITRAMFS)?, open(UKI)?);
        let uki_path = dir.join(UKI);
        let wrong = |source| BootError::Uki { path: uki_path.clone(), source };
        let read = |at, len| {
            read_up_to(&uki.file, at, len).map_err(|source| BootError::File { path: uki_path.clone(), source })
        };
        let uki_headers = Uki::parse(&read(0, HEAD)?).map_err(wrong)?;
        let (at, len) = uki_headers.text;
        let text = read(at, len.min(MAX_COMMAND_LINE) as usize)?;
        let command_line = Uki::command_line(&text).map_err(wrong)?;
        Ok(Self { kernel, initramfs, uki, uki_headers, command_line, uki_path })
    }
}

/// At most `len` bytes of `file` from `at` on.
fn read_up_to(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        match file.read_at(&mut bytes[have..], at + have as u64) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

/// What has to be installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) dnsmasq: PathBuf,
    pub(super) bios_stage: PathBuf,
    pub(super) uefi_stage: PathBuf,
}

impl Installed {
    /// Looks for everything; what is missing is named all at once. First stages in `dir` come before those of the system.
    pub(super) fn find(dir: &Path) -> Result<Self, BootError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let programs: Vec<_> = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from)).collect();
        let stages: Vec<_> = std::iter::once(dir.to_owned()).chain(IPXE_DIRS.map(PathBuf::from)).collect();
        Self::among(&programs, &stages)
    }

    fn among(programs: &[PathBuf], stages: &[PathBuf]) -> Result<Self, BootError> {
        let dnsmasq = first(programs, &["dnsmasq"]);
        let bios = first(stages, &[BIOS_STAGE]);
        let uefi = first(stages, &[UEFI_STAGE, "ipxe-snponly-x86_64.efi"]);
        match (dnsmasq, bios, uefi) {
            (Some(dnsmasq), Some(bios_stage), Some(uefi_stage)) => Ok(Self { dnsmasq, bios_stage, uefi_stage }),
            (dnsmasq, bios, uefi) => {
                let (mut what, mut packages) = (Vec::new(), Vec::new());
                if dnsmasq.is_none() {
                    what.push("dnsmasq".to_owned());
                    packages.push("dnsmasq-base");
                }
                what.extend(bios.is_none().then(|| BIOS_STAGE.to_owned()));
                what.extend(uefi.is_none().then(|| UEFI_STAGE.to_owned()));
                packages.extend((bios.is_none() || uefi.is_none()).then_some("ipxe"));
                Err(BootError::Missing { what, packages })
            }
        }
    }
}

fn first(dirs: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let paths = dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name)));
    paths.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::boot::uki::tests::sample;
    use std::fs;

    /// A folder as `mkimage.sh` leaves it.
    pub(in crate::boot) fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KERNEL), "kernel").unwrap();
        fs::write(dir.path().join(INITRAMFS), "initramfs").unwrap();
        fs::write(dir.path().join(UKI), sample("console=ttyS0 quiet", false)).unwrap();
        dir
    }

    #[test]
    fn a_complete_folder_is_opened_with_its_command_line() {
        let files = BootFiles::open(folder().path()).unwrap();
        assert_eq!((files.kernel.len, files.initramfs.len), (6, 9));
        assert_eq!(files.command_line, "console=ttyS0 quiet");
    }

    #[test]
    fn what_is_missing_empty_or_no_uki_is_named_with_what_makes_it() {
        let line = |dir: &Path| crate::failure::one_line(&BootFiles::open(dir).unwrap_err());
        for name in [KERNEL, INITRAMFS, UKI] {
            let dir = folder();
            let path = dir.path().join(name);
            fs::remove_file(&path).unwrap();
            let said = line(dir.path());
            assert!(
                said.starts_with(&format!("boot file {} (./mkimage.sh makes it): No such file", path.display())),
                "{said}"
            );
            fs::write(&path, "").unwrap();
            assert!(line(dir.path()).ends_with(": empty"));
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(line(dir.path()).ends_with(": not a file"));
        }
        let dir = folder();
        fs::write(dir.path().join(UKI), "MZ").unwrap();
        assert!(line(dir.path()).ends_with("slidecast.efi: not a unified kernel image with a command line"));
        assert!(line(Path::new("/nonexistent")).contains("/nonexistent/vmlinuz"));
    }

    #[test]
    fn everything_that_is_not_installed_is_named_with_its_packages() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let said = Installed::among(&dirs, &dirs).unwrap_err().to_string();
        let expected =
            "not installed: dnsmasq, undionly.kpxe, snponly.efi; on Debian: apt-get install dnsmasq-base ipxe";
        assert_eq!(said, expected);
        fs::write(dir.path().join("dnsmasq"), "").unwrap();
        fs::write(dir.path().join(BIOS_STAGE), "").unwrap();
        let said = Installed::among(&dirs, &dirs).unwrap_err().to_string();
        assert_eq!(said, "not installed: snponly.efi; on Debian: apt-get install ipxe");
        fs::write(dir.path().join("ipxe-snponly-x86_64.efi"), "").unwrap();
        assert!(Installed::among(&dirs, &dirs).unwrap().uefi_stage.ends_with("ipxe-snponly-x86_64.efi"));
    }
}
