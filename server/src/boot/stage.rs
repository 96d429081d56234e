//! The private folder of a run: dnsmasq's configuration and leases, what it serves over TFTP, and the UKI of this run.

use super::config::{BIOS_STAGE, UEFI_STAGE, UKI, UefiStage};
use super::error::BootError;
use super::files::{BootFiles, Installed, Opened};
use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The folder; dropping it removes it.
#[derive(Debug)]
pub(super) struct Stage {
    dir: TempDir,
    /// The length of each file on TFTP.
    pub(super) sizes: HashMap<String, u64>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BootError {
    BootError::system(format!("writing {}", path.display()))
}

impl Stage {
    /// Makes the folder and copies what goes over TFTP. dnsmasq reads it as a user without rights, so everybody may.
    pub(super) fn make(installed: &Installed) -> Result<Self, BootError> {
        let dir = tempfile::Builder::new().prefix("slidecast-boot-").tempdir();
        let dir = dir.map_err(BootError::system("making a temporary folder"))?;
        let tftp = dir.path().join("tftp");
        fs::create_dir(&tftp).map_err(failed(&tftp))?;
        for path in [dir.path(), &tftp] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed(path))?;
        }
        let mut stage = Self { dir, sizes: HashMap::new() };
        for (from, name) in [(&installed.bios_stage, BIOS_STAGE), (&installed.uefi_stage, UEFI_STAGE)] {
            let source = Opened::open(from).map_err(BootError::system(format!("opening {}", from.display())))?;
            stage.copy(&source.file, name)?;
        }
        Ok(stage)
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Copies what is in `source` to TFTP, under `name`.
    fn copy(&mut self, mut source: &File, name: &str) -> Result<(PathBuf, File), BootError> {
        let path = self.dir.path().join("tftp").join(name);
        let copied = File::create_new(&path).and_then(|mut file| {
            self.sizes.insert(name.to_owned(), io::copy(&mut source, &mut file)?);
            file.set_permissions(Permissions::from_mode(0o644))?;
            Ok(file)
        });
        copied.map(|file| (path.clone(), file)).map_err(failed(&path))
    }

    /// The UKI with `command_line` in place of its own; on TFTP too if that is where it starts.
    pub(super) fn uki(&mut self, files: &BootFiles, command_line: &str, uefi: UefiStage) -> Result<Opened, BootError> {
        let own = |uki: &Opened| {
            let file = uki.file.try_clone().map_err(BootError::system("opening the UKI"))?;
            Ok(Opened { file, len: uki.len })
        };
        let patch = match command_line == files.command_line {
            true if uefi == UefiStage::Ipxe => return own(&files.uki),
            true => None,
            false => {
                let patch = files.uki_headers.with_command_line(files.uki.len, command_line);
                Some(patch.map_err(|source| BootError::Uki { path: files.uki_path.clone(), source })?)
            }
        };
        let (path, file) = self.copy(&files.uki.file, UKI)?;
        for (at, bytes) in patch.into_iter().flat_map(|patch| patch.writes) {
            file.write_all_at(&bytes, at).map_err(failed(&path))?;
        }
        let opened = Opened::open(&path).map_err(failed(&path))?;
        self.sizes.insert(UKI.to_owned(), opened.len);
        if uefi == UefiStage::Ipxe {
            // It is served by us alone, and we have it open.
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        Ok(opened)
    }

    /// Writes dnsmasq's configuration.
    pub(super) fn configure(&self, text: &str) -> Result<PathBuf, BootError> {
        let path = self.dir.path().join("dnsmasq.conf");
        let written = File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map(|()| path.clone()).map_err(failed(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::files::tests::folder;
    use crate::boot::uki::Uki;

    fn stage(dir: &Path) -> Stage {
        for name in [BIOS_STAGE, UEFI_STAGE] {
            fs::write(dir.join(name), name).unwrap();
        }
        let (dnsmasq, bios_stage, uefi_stage) = (dir.join("dnsmasq"), dir.join(BIOS_STAGE), dir.join(UEFI_STAGE));
        Stage::make(&Installed { dnsmasq, bios_stage, uefi_stage }).unwrap()
    }

    fn words(opened: &Opened) -> String {
        let mut bytes = vec![0; usize::try_from(opened.len).unwrap()];
        opened.file.read_exact_at(&mut bytes, 0).unwrap();
        let (at, len) = Uki::parse(&bytes).unwrap().text;
        let at = usize::try_from(at).unwrap();
        Uki::command_line(&bytes[at..at + len as usize]).unwrap()
    }

    #[test]
    fn the_folder_can_be_read_by_everybody_and_goes_with_the_run() {
        let dir = folder();
        let stage = stage(dir.path());
        let path = stage.path().to_owned();
        for (path, mode) in [(path.clone(), 0o755), (path.join("tftp"), 0o755), (path.join("tftp/snponly.efi"), 0o644)]
        {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
        assert_eq!(stage.sizes[UEFI_STAGE], 11);
        drop(stage);
        assert!(!path.exists());
    }

    #[test]
    fn the_uki_gets_the_words_of_the_deployment_and_the_one_in_the_folder_keeps_its_own() {
        let dir = folder();
        let files = BootFiles::open(dir.path()).unwrap();
        let mut stage = stage(dir.path());
        assert_eq!(
            words(&stage.uki(&files, "loud slidecast.key=ab", UefiStage::Ipxe).unwrap()),
            "loud slidecast.key=ab"
        );
        assert!(!stage.path().join("tftp/slidecast.efi").exists(), "it does not go over TFTP");
        assert_eq!(words(&files.uki), "console=ttyS0 quiet");
    }

    #[test]
    fn the_uki_goes_over_tftp_where_that_was_asked_for() {
        let dir = folder();
        let files = BootFiles::open(dir.path()).unwrap();
        let mut stage = stage(dir.path());
        let words_of = words(&stage.uki(&files, &files.command_line, UefiStage::Uki).unwrap());
        assert_eq!(words_of, files.command_line);
        assert_eq!(stage.sizes[UKI], fs::metadata(stage.path().join("tftp/slidecast.efi")).unwrap().len());
    }
}
