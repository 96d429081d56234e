//! Modules into the kernel.

use super::tables::Tables;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// MODULE_INIT_COMPRESSED_FILE (linux/module.h): the kernel unpacks it, with the one codec it was built for.
const COMPRESSED: u32 = 4;
/// The largest module that is unpacked.
const MAX_UNPACKED: u64 = 64 << 20;

/// The modules of the boot image.
#[derive(Debug)]
pub(super) struct Loader {
    folder: PathBuf,
    tables: Tables,
    /// Files that were tried, successfully or not.
    pub(super) tried: BTreeSet<String>,
    /// What devices call themselves, once looked up.
    known: BTreeSet<String>,
    loaded: u32,
}

impl Loader {
    /// Reads the tables in `folder`; what is missing counts as empty.
    pub(super) fn new(folder: PathBuf) -> Self {
        let text = |name: &str| {
            fs::read_to_string(folder.join(name)).unwrap_or_else(|error| {
                log::debug!("reading {}: {error}", folder.join(name).display());
                String::new()
            })
        };
        let tables = Tables::parse(&text("modules.dep"), &text("modules.alias"), &text("modules.softdep"));
        if tables.len() == 0 {
            log::warn!("no kernel modules in {}: only what is built in works", folder.display());
        }
        Self { folder, tables, tried: BTreeSet::new(), known: BTreeSet::new(), loaded: 0 }
    }

    /// How many modules were loaded.
    pub(super) fn loaded(&self) -> u32 {
        self.loaded
    }

    /// Loads what drives a device that calls itself so. Gives whether anything was loaded.
    pub(super) fn on_device(&mut self, modalias: &str) -> bool {
        if !self.known.insert(modalias.to_owned()) {
            return false;
        }
        let before = self.loaded;
        let drivers: Vec<String> = self.tables.drivers(modalias).into_iter().map(str::to_owned).collect();
        for driver in drivers {
            self.load(&driver);
        }
        self.loaded > before
    }

    fn load(&mut self, module: &str) {
        let order: Vec<String> = self.tables.order(module).into_iter().map(str::to_owned).collect();
        for path in order {
            if !self.tried.insert(path.clone()) {
                continue;
            }
            match insert(&self.folder.join(&path)) {
                Ok(()) => self.loaded += 1,
                // It is in the kernel already, or has no use for this machine (ENODEV): nothing is wrong.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENODEV)) => {
                    log::debug!("module {path}: {error}");
                }
                Err(error) => log::warn!("loading module {path}: {error}"),
            }
        }
    }
}

fn insert(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    let result = match kind {
        "ko" => finit_module(&file, c"", ModuleInitFlags::empty()),
        "zst" => init_module(&unpack(&file)?, c""),
        "gz" | "xz" => finit_module(&file, c"", ModuleInitFlags::from_bits_retain(COMPRESSED)),
        _ => Err(Errno::EINVAL),
    };
    match result {
        Err(error) if matches!(kind, "gz" | "xz") && error != Errno::EEXIST && error != Errno::ENODEV => {
            let text = format!("{error} (this kernel does not unpack .{kind}; .ko and .ko.zst always work)");
            Err(io::Error::other(text))
        }
        result => Ok(result?),
    }
}

fn unpack(file: &File) -> io::Result<Vec<u8>> {
    let mut module = Vec::new();
    zstd::Decoder::new(file)?.take(MAX_UNPACKED).read_to_end(&mut module)?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_module_is_unpacked_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ko.zst");
        fs::write(&path, zstd::encode_all(&b"not a module"[..], 1).unwrap()).unwrap();
        assert_eq!(unpack(&File::open(&path).unwrap()).unwrap(), b"not a module");
        assert!(insert(&path).is_err());
        let plain = folder.path().join("a.txt");
        fs::write(&plain, "x").unwrap();
        assert_eq!(insert(&plain).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_device_is_looked_up_once_and_a_broken_module_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("modules.dep"), "a.txt:\nb.txt: a.txt\n").unwrap();
        fs::write(folder.path().join("modules.alias"), "alias pci:v1* b.txt\nalias pci:* a.txt\n").unwrap();
        fs::write(folder.path().join("a.txt"), "x").unwrap();
        let mut loader = Loader::new(folder.path().to_owned());
        assert!(!loader.on_device("pci:v1d2"));
        assert_eq!(loader.tried.iter().map(String::as_str).collect::<Vec<_>>(), ["a.txt", "b.txt"]);
        assert!(!loader.on_device("pci:v1d2"));
        assert_eq!(loader.loaded(), 0);
    }
}
