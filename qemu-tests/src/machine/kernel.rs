//! A kernel that starts quickly under emulation: what a `vmlinuz` unpacks itself to.
//!
//! Unpacking costs an emulated processor seconds. QEMU takes the unpacked kernel as well, through its PVH entry.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{LabError, Result};
use crate::tool;

/// Tells unpackings at the same time apart.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Writes the kernel inside of `vmlinuz` to `to`; gives `vmlinuz` itself where that cannot be done. `to` is there at once and whole:
/// another test may look for it meanwhile.
///
/// # Errors
/// When the file cannot be read or the other one not be written.
pub fn unpack(vmlinuz: &Path, to: &Path) -> Result<PathBuf> {
    let bytes = fs::read(vmlinuz).map_err(LabError::io("reading", vmlinuz))?;
    let Some(payload) = payload(&bytes) else { return Ok(vmlinuz.to_owned()) };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let (packed, part) = (to.with_extension(format!("{number}.packed")), to.with_extension(format!("{number}.part")));
    fs::write(&packed, payload).map_err(LabError::io("writing", &packed))?;
    let script = match payload {
        [0xfd, b'7', b'z', ..] => "xz -dc --single-stream",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd -dcq",
        [0x1f, 0x8b, ..] => "gzip -dc",
        _ => return Ok(vmlinuz.to_owned()),
    };
    // The length of the kernel stands behind its packed form: tools take that for rubbish and say so, after the work.
    let line = format!("{script} < '{}' > '{}' || true", packed.display(), part.display());
    tool::run("sh", ["-c", &line])?;
    let unpacked = fs::read(&part).map_err(LabError::io("reading", &part))?;
    if !unpacked.starts_with(b"\x7fELF") {
        return Ok(vmlinuz.to_owned());
    }
    fs::rename(&part, to).map_err(LabError::io("renaming", &part))?;
    Ok(to.to_owned())
}

/// The packed kernel: the real-mode code's sectors, then `payload_offset` and `payload_length` (the kernel's
/// `Documentation/arch/x86/boot.rst`, protocol 2.08).
fn payload(vmlinuz: &[u8]) -> Option<&[u8]> {
    if vmlinuz.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let number = |at: usize| usize::try_from(u32::from_le_bytes(*vmlinuz.get(at..)?.first_chunk()?)).ok();
    let sectors = match vmlinuz[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512;
    vmlinuz.get(start + number(0x248)?..)?.get(..number(0x24c)?)
}
