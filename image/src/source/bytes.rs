//! Reading structures of container files: within the file, and never more than is asked for.

use super::{DiskSource, ImportFault, RawDisk, ReadAt};
use std::io;

/// The big-endian 16-bit number at `at`; 0 beyond the end.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    crate::le::array_at(bytes, at).map_or(0, u16::from_be_bytes)
}

/// The big-endian 32-bit number at `at`; 0 beyond the end.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    crate::le::array_at(bytes, at).map_or(0, u32::from_be_bytes)
}

/// The big-endian 64-bit number at `at`; 0 beyond the end.
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    crate::le::array_at(bytes, at).map_or(0, u64::from_be_bytes)
}

/// The little-endian 16-bit number at `at`; 0 beyond the end.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    crate::le::u16_at(bytes, at).unwrap_or(0)
}

/// The little-endian 32-bit number at `at`; 0 beyond the end.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    crate::le::u32_at(bytes, at).unwrap_or(0)
}

/// The little-endian 64-bit number at `at`; 0 beyond the end.
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    crate::le::u64_at(bytes, at).unwrap_or(0)
}

/// Fills `buffer` from `offset` of `file`, where its `what` should be.
pub(super) fn fill(file: &RawDisk, what: &'static str, offset: u64, buffer: &mut [u8]) -> Result<(), ImportFault> {
    file.read_at(offset, buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => ImportFault::Cut { what, offset },
        _ => ImportFault::Io { path: file.path().to_owned(), offset, error },
    })
}

/// The `len` bytes at `offset`, which the caller has bounded. Nothing is allocated for what lies behind the end of the file.
pub(super) fn read(file: &RawDisk, what: &'static str, offset: u64, len: usize) -> Result<Vec<u8>, ImportFault> {
    if offset.checked_add(len as u64).is_none_or(|end| end > file.bytes()) {
        return Err(ImportFault::Cut { what, offset });
    }
    let mut bytes = vec![0; len];
    fill(file, what, offset, &mut bytes)?;
    Ok(bytes)
}

/// As [`read`], but what lies behind the end of the file is left out.
pub(super) fn read_to_end(
    file: &RawDisk,
    what: &'static str,
    offset: u64,
    most: usize,
) -> Result<Vec<u8>, ImportFault> {
    let left = file.bytes().saturating_sub(offset);
    read(file, what, offset, usize::try_from(left).unwrap_or(usize::MAX).min(most))
}

/// How much of a table is read at once, in bytes.
const STEP: usize = 256 << 10;

/// A table of `count` numbers of `N` bytes. Nothing is allocated for one that is not all in the file.
pub(super) fn read_table<T, const N: usize>(
    file: &RawDisk,
    what: &'static str,
    offset: u64,
    count: usize,
    parse: fn([u8; N]) -> T,
) -> Result<Vec<T>, ImportFault> {
    let bytes = count.checked_mul(N).and_then(|bytes| offset.checked_add(bytes as u64));
    if bytes.is_none_or(|end| end > file.bytes()) {
        return Err(ImportFault::Cut { what, offset });
    }
    let mut numbers = Vec::with_capacity(count);
    let mut buffer = vec![0; STEP.min(count * N)];
    while numbers.len() < count {
        let len = (STEP / N).min(count - numbers.len()) * N;
        fill(file, what, offset + (numbers.len() * N) as u64, &mut buffer[..len])?;
        numbers.extend(buffer[..len].as_chunks().0.iter().map(|number| parse(*number)));
    }
    Ok(numbers)
}
