//! A file that may have been split: its pieces are read one after the other, and only one of them is open at a time.

use super::raw::Stamp;
use crate::error::{ImageError, Operation};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The pieces of a file, at least one, in their order.
#[derive(Clone, Debug)]
pub(super) struct Pieces(Vec<(PathBuf, Stamp)>);

impl Pieces {
    /// The file whose pieces these are.
    pub(super) fn of(paths: &[PathBuf]) -> Result<Self, ImageError> {
        let look = |path: &PathBuf| {
            let stamp = File::open(path).and_then(|file| Stamp::of(&file, false));
            stamp.map(|stamp| (path.clone(), stamp)).map_err(ImageError::io(Operation::Open, path, None))
        };
        paths.iter().map(look).collect::<Result<_, _>>().map(Self)
    }

    /// The path of the first one, by which messages name the file.
    pub(super) fn path(&self) -> &Path {
        self.0.first().map_or(Path::new(""), |(path, _)| path)
    }

    /// The paths of all.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// What has changed since they were looked at.
    pub(super) fn change(&self) -> io::Result<Option<&'static str>> {
        for (path, then) in &self.0 {
            if let Some(change) = then.changed(Stamp::of(&File::open(path)?, false)?) {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    /// Reads from the front.
    pub(super) fn reader(&self) -> Reader {
        let mut rest: Vec<_> = self.0.iter().map(|(path, _)| path.clone()).collect();
        rest.reverse();
        Reader { rest, now: None }
    }

    /// The first `len` bytes, or as many as there are.
    pub(super) fn head(&self, len: u64) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.reader().take(len).read_to_end(&mut head)?;
        Ok(head)
    }
}

/// All pieces, one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    /// Those that were not begun; the next one is the last.
    rest: Vec<PathBuf>,
    now: Option<File>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.now {
                match file.read(buffer)? {
                    0 if !buffer.is_empty() => self.now = None,
                    len => return Ok(len),
                }
            }
            let Some(path) = self.rest.pop() else { return Ok(0) };
            self.now = Some(File::open(path)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_one_file_and_a_change_of_any_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = ["a", "b", "c"].map(|name| dir.path().join(name)).to_vec();
        for (path, content) in paths.iter().zip(["one ", "", "two"]) {
            std::fs::write(path, content).unwrap();
        }
        let pieces = Pieces::of(&paths).unwrap();
        assert_eq!(pieces.head(5).unwrap(), b"one t");
        assert_eq!(io::read_to_string(pieces.reader()).unwrap(), "one two");
        assert_eq!(pieces.change().unwrap(), None);
        std::fs::write(&paths[2], "longer").unwrap();
        assert_eq!(pieces.change().unwrap(), Some("size"));
        std::fs::remove_file(&paths[1]).unwrap();
        assert!(pieces.change().is_err() && Pieces::of(&paths).is_err());
    }
}
