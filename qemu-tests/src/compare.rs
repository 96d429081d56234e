//! Comparing disks, without any of the product's code.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::error::{LabError, Result};

const STEP: usize = 1 << 20;

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// All compared bytes are equal; this many were compared.
    Equal(u64),
    /// The first difference.
    Differs {
        /// Its offset in bytes.
        at: u64,
        /// The byte on the target.
        actual: u8,
        /// The byte that should be there.
        expected: u8,
    },
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(bytes) => write!(f, "equal ({bytes} bytes compared)"),
            Self::Differs { at, actual, expected } => {
                write!(f, "differs at byte {at} (sector {}): {actual:#04x} instead of {expected:#04x}", at / 512)
            }
        }
    }
}

/// Compares the given byte ranges of a target with those of the file that it should equal.
///
/// # Errors
/// When one of them cannot be read, or is too short.
pub fn compare_ranges(actual: &Path, expected: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Compared> {
    let open = |path: &Path| File::open(path).map_err(LabError::io("opening", path));
    let (left, right) = (open(actual)?, open(expected)?);
    let (mut a, mut b) = (vec![0; STEP], vec![0; STEP]);
    let mut compared = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).unwrap_or(STEP).min(STEP);
            left.read_exact_at(&mut a[..len], at).map_err(LabError::io("reading", actual))?;
            right.read_exact_at(&mut b[..len], at).map_err(LabError::io("reading", expected))?;
            if a[..len] != b[..len] {
                let i = (0..len).find(|&i| a[i] != b[i]).unwrap_or(0);
                return Ok(Compared::Differs { at: at + i as u64, actual: a[i], expected: b[i] });
            }
            at += len as u64;
            compared += len as u64;
        }
    }
    Ok(Compared::Equal(compared))
}

/// Compares whole disks. Right for targets that started as zeros: `image export` leaves holes where content does not
/// matter, and holes read as zeros.
///
/// # Errors
/// When one of them cannot be read.
pub fn compare(actual: &Path, expected: &Path) -> Result<Compared> {
    let whole = 0..length(expected)?;
    compare_ranges(actual, expected, &[whole])
}

/// Compares only what `expected` has data for, not its holes: for targets that held something else before. A zero that
/// was exported as a hole is not looked at.
///
/// # Errors
/// When one of them cannot be read.
pub fn compare_data(actual: &Path, expected: &Path) -> Result<Compared> {
    compare_ranges(actual, expected, &data_ranges(expected)?)
}

/// The ranges of a sparse file that are not holes.
///
/// # Errors
/// When it cannot be read.
pub fn data_ranges(path: &Path) -> Result<Vec<std::ops::Range<u64>>> {
    let file = File::open(path).map_err(LabError::io("opening", path))?;
    let seek = |from: u64, whence| -> Result<Option<u64>> {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        match lseek(file.as_fd(), from, whence) {
            Ok(at) => Ok(u64::try_from(at).ok()),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(LabError::io("seeking in", path)(io::Error::from(error))),
        }
    };
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(start) = seek(at, Whence::SeekData)? {
        let end = seek(start, Whence::SeekHole)?.unwrap_or(start);
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// Size of a file or block device in bytes.
///
/// # Errors
/// When it cannot be opened.
pub fn length(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(LabError::io("opening", path))?;
    let end = lseek(file.as_fd(), 0, Whence::SeekEnd);
    end.map_err(|error| LabError::io("seeking in", path)(io::Error::from(error))).map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    fn two(run: &Run) -> (std::path::PathBuf, std::path::PathBuf) {
        let (a, b) = (run.dir().join("a"), run.dir().join("b"));
        for path in [&a, &b] {
            let file = File::create(path).unwrap();
            file.set_len(4 << 20).unwrap();
            file.write_all_at(&[7; 9000], 2 << 20).unwrap();
        }
        (a, b)
    }

    #[test]
    fn equal_disks_are_equal_and_one_changed_byte_is_found() {
        let run = Run::start().unwrap();
        let (a, b) = two(&run);
        assert_eq!(compare(&a, &b).unwrap(), Compared::Equal(4 << 20));
        let at = (4 << 20) - 1;
        File::options().write(true).open(&a).unwrap().write_all_at(&[1], at).unwrap();
        assert_eq!(compare(&a, &b).unwrap(), Compared::Differs { at, actual: 1, expected: 0 });
    }

    #[test]
    fn holes_of_the_expected_disk_do_not_count_when_only_data_is_compared() {
        let run = Run::start().unwrap();
        let (a, b) = two(&run);
        File::options().write(true).open(&a).unwrap().write_all_at(&[1], 0).unwrap();
        assert!(matches!(compare_data(&a, &b).unwrap(), Compared::Equal(bytes) if bytes >= 9000));
        File::options().write(true).open(&a).unwrap().write_all_at(&[1], (2 << 20) + 8999).unwrap();
        assert!(matches!(compare_data(&a, &b).unwrap(), Compared::Differs { .. }));
    }

    #[test]
    fn a_target_that_is_too_short_is_an_error() {
        let run = Run::start().unwrap();
        let (a, b) = two(&run);
        File::options().write(true).open(&a).unwrap().set_len(1 << 20).unwrap();
        assert!(compare(&a, &b).is_err());
    }
}
