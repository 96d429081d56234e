//! The block device calls that no safe library wraps (`linux/fs.h`).

use core::ffi::c_int;
use nix::Result;
use std::fs::File;
use std::os::fd::AsRawFd;

mod raw {
    use super::LoopInfo64;
    use core::ffi::c_int;
    use nix::{ioctl_none_bad, ioctl_read, ioctl_read_bad, ioctl_write_ptr_bad, request_code_none};

    ioctl_read!(
        /// BLKGETSIZE64: the size in bytes.
        get_size, 0x12, 114, usize
    );
    ioctl_read_bad!(
        /// BLKROGET: whether the device is read-only.
        get_read_only, request_code_none!(0x12, 94), c_int
    );
    ioctl_read_bad!(
        /// BLKSSZGET: the logical sector.
        get_sector, request_code_none!(0x12, 104), c_int
    );
    ioctl_none_bad!(
        /// BLKRRPART: read the partition table again.
        reread_table, request_code_none!(0x12, 95)
    );
    ioctl_write_ptr_bad!(
        /// BLKDISCARD: start and length in bytes.
        discard, request_code_none!(0x12, 119), [u64; 2]
    );
    ioctl_write_ptr_bad!(
        /// BLKZEROOUT: start and length in bytes.
        zero_out, request_code_none!(0x12, 127), [u64; 2]
    );
    ioctl_read_bad!(
        /// LOOP_GET_STATUS64: what is behind a loop device.
        get_loop_status, 0x4c05, LoopInfo64
    );
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    /// Offset, limit; number and kind of encryption; length of the key and flags.
    shape: [u64; 4],
    /// Name of the file and of the encryption, 64 bytes each.
    names: [[u64; 8]; 2],
    key: [u64; 4],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232, "the kernel writes so many bytes");

/// What is behind a loop device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoopStatus {
    /// The device that the file is on.
    pub(crate) device: u64,
    /// The inode of the file.
    pub(crate) inode: u64,
    /// If the file is a device node: of which device; else 0.
    pub(crate) rdevice: u64,
}

/// What is behind a loop device.
pub(crate) fn loop_status(device: &File) -> Result<LoopStatus> {
    let mut info = LoopInfo64::default();
    // SAFETY: the call writes one loop_info64, 232 bytes of plain numbers, to the address, which is a valid one of that size.
    unsafe { raw::get_loop_status(device.as_raw_fd(), &raw mut info) }?;
    Ok(LoopStatus { device: info.device, inode: info.inode, rdevice: info.rdevice })
}

/// The size of a block device in bytes.
pub(crate) fn size(device: &File) -> Result<u64> {
    let mut bytes: usize = 0;
    // SAFETY: the call writes one 64-bit number (size_t in the kernel's table) to the address, which is a valid usize.
    unsafe { raw::get_size(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes as u64)
}

/// Whether a block device refuses writes.
pub(crate) fn read_only(device: &File) -> Result<bool> {
    let mut flag: c_int = 0;
    // SAFETY: the call writes one int to the address, which is a valid int.
    unsafe { raw::get_read_only(device.as_raw_fd(), &raw mut flag) }?;
    Ok(flag != 0)
}

/// The logical sector of a block device in bytes.
pub(crate) fn sector(device: &File) -> Result<u32> {
    let mut bytes: c_int = 0;
    // SAFETY: the call writes one int to the address, which is a valid int.
    unsafe { raw::get_sector(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// Makes the kernel read the partition table again.
pub(crate) fn reread_table(device: &File) -> Result<()> {
    // SAFETY: the call takes no argument and touches no memory of ours.
    unsafe { raw::reread_table(device.as_raw_fd()) }.map(drop)
}

/// Tells the device that the content of a range does not matter. What it reads as afterwards is not defined.
pub(crate) fn discard(device: &File, start: u64, len: u64) -> Result<()> {
    let range = [start, len];
    // SAFETY: the call reads two 64-bit numbers from the address, which is a valid pair of them.
    unsafe { raw::discard(device.as_raw_fd(), &raw const range) }.map(drop)
}

/// Makes a range read as zeros: by the device if it can, else the kernel writes them.
pub(crate) fn zero_out(device: &File, start: u64, len: u64) -> Result<()> {
    let range = [start, len];
    // SAFETY: the call reads two 64-bit numbers from the address, which is a valid pair of them.
    unsafe { raw::zero_out(device.as_raw_fd(), &raw const range) }.map(drop)
}
