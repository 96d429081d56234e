//! The file of the report. It is opened before anything starts, so that a wrong path is known in time; what stands in it stays
//! until there is a report to write.

use super::DeployError;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An open file without a report; if it was made for one and none came, it goes again.
#[derive(Debug)]
pub(super) struct ReportFile {
    file: File,
    path: PathBuf,
    /// There was no such file before.
    made: bool,
}

impl ReportFile {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn open(path: &Path) -> Result<Self, DeployError> {
        let open = |new: bool| OpenOptions::new().write(true).create_new(new).open(path);
        let (opened, made) = match open(true) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (open(false), false),
            opened => (opened, true),
        };
        let file = opened.map_err(|source| DeployError::Report { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), made })
    }

    /// Whether this is the file at `path`, by whatever name.
    pub(super) fn is(&self, path: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let (ours, other) = (self.file.metadata().map(identity), std::fs::metadata(path).map(identity));
        matches!((ours, other), (Ok(ours), Ok(other)) if ours == other)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn write(mut self, text: &str) -> Result<(), DeployError> {
        // Pipes and terminals have no old content.
        let emptied = if self.file.metadata().is_ok_and(|it| it.is_file()) { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(text.as_bytes()));
        self.made = false;
        written.map_err(|source| DeployError::Report { path: self.path.clone(), source })
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.made {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_made_for_a_report_that_never_comes_goes_again_and_an_old_report_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        drop(ReportFile::open(&new).unwrap());
        assert!(!new.exists());
        std::fs::write(&old, "a report that is longer").unwrap();
        drop(ReportFile::open(&old).unwrap());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "a report that is longer");
        ReportFile::open(&old).unwrap().write("another").unwrap();
        ReportFile::open(&new).unwrap().write("the first").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "another");
        assert_eq!(std::fs::read_to_string(&new).unwrap(), "the first");
        assert!(matches!(ReportFile::open(dir.path()), Err(DeployError::Report { .. })));
        ReportFile::open(Path::new("/dev/null")).unwrap().write("nobody reads it").unwrap();
    }
}
