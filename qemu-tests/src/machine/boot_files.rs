//! The boot files that `mkimage.sh` makes, for machines of the lab.

use std::path::{Path, PathBuf};

use super::kernel;
use super::options::Boot;
use crate::error::Result;
use crate::{programs, tool};

/// The words of the kernel command line in machines that are given their kernel: one console, a quick start.
const QUICK: &str = "console=ttyS0,115200 quiet panic=5 mitigations=off nokaslr tsc=reliable no_timer_check";

/// A folder with what `mkimage.sh` makes.
#[derive(Debug, Clone)]
pub struct BootFiles {
    /// The folder.
    pub dir: PathBuf,
}

impl BootFiles {
    /// Runs `mkimage.sh` with the agent under test, these modules and this key (`--key`); `more` comes on top.
    ///
    /// # Errors
    /// When it fails.
    pub fn make(dir: &Path, modules: &str, key: &str, more: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mkimage.sh").display().to_string();
        let (agent, out) = (programs::agent()?.display().to_string(), dir.display().to_string());
        let args = ["--agent", &agent, "--out", &out, "--modules", modules, "--key", key];
        tool::run(&script, args.iter().chain(more))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// One of the files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Kernel and initramfs without any firmware, with `words` on the kernel command line.
    ///
    /// # Errors
    /// When the kernel cannot be unpacked.
    pub fn kernel(&self, words: &str) -> Result<Boot> {
        let unpacked = self.file("vmlinux");
        let kernel = if unpacked.is_file() { unpacked } else { kernel::unpack(&self.file("vmlinuz"), &unpacked)? };
        Ok(Boot::Kernel { kernel, initramfs: self.file("initramfs.img"), words: format!("{QUICK} {words}") })
    }

    /// The USB stick.
    pub fn stick(&self) -> Boot {
        Boot::Stick(self.file("slidecast.iso"))
    }

    /// The same file as a CD.
    pub fn cd(&self) -> Boot {
        Boot::Cd(self.file("slidecast.iso"))
    }
}
