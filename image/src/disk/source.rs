//! The disk of an image as the source of another image: what flattening a chain and giving it another parent are made of.

use super::{Allocation, DiskView};
use crate::chain::Image;
use crate::error::ImageError;
use crate::source::{DiskSource, ReadAt};
use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

/// How much memory unpacked blocks may take while a disk is read from its front to its end.
const CACHE_BYTES: usize = 32 << 20;

/// The disk of an image, with what it knows to be unused.
#[derive(Debug)]
pub struct ImageDisk {
    view: DiskView,
    files: Vec<PathBuf>,
    unused: Vec<Range<u64>>,
}

impl ImageDisk {
    /// The disk of `image`.
    ///
    /// # Errors
    /// [`ImageError`] naming the file and what is wrong with it.
    pub fn new(image: &Image) -> Result<Self, ImageError> {
        let files = image.layers().map(|layer| layer.path).collect();
        let view = DiskView::new(image.resolve()?, CACHE_BYTES)?;
        let unused = view.allocations(0..view.bytes()).filter(|(_, kind)| *kind == Allocation::Unused);
        let unused = unused.map(|(range, _)| range).collect();
        Ok(Self { view, files, unused })
    }
}

impl ReadAt for ImageDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.view.bytes()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.view.read_at(offset, buffer).map_err(io::Error::other)
    }
}

impl DiskSource for ImageDisk {
    fn path(&self) -> &Path {
        self.view.path()
    }

    fn format(&self) -> &'static str {
        "slide"
    }

    fn bytes(&self) -> u64 {
        self.view.bytes()
    }

    fn sector(&self) -> Option<u32> {
        Some(self.view.resolved().header().sector)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let mut data = self.view.allocations(from..self.view.bytes()).filter(|(_, kind)| *kind == Allocation::Data);
        Ok(data.next().map(|(range, _)| range))
    }

    fn unused(&self) -> &[Range<u64>] {
        &self.unused
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        // Each block was checked against its hash when it was read.
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::diff;
    use crate::{CreateOptions, create, create_from};

    #[test]
    fn a_chain_becomes_one_layer_or_an_increment_of_another_parent_with_the_same_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut disk = b"some text ".repeat(400_000);
        disk.truncate(3 << 20);
        let mut parent = None;
        for day in 0..3u8 {
            disk[usize::from(day) << 19..][..5000].fill(day + 1);
            std::fs::write(path("disk"), &disk).unwrap();
            let output = path(&format!("{day}.slide"));
            create(&CreateOptions { parent, ..CreateOptions::new(&path("disk"), &output) }, |_| ()).unwrap();
            parent = Some(output);
        }
        let chain = Image::open(&path("2.slide")).unwrap();
        let source = ImageDisk::new(&chain).unwrap();
        let base = |name: &str| CreateOptions::new(&path("2.slide"), &path(name));
        create_from(&source, &base("flat.slide"), |_| ()).unwrap();
        let rebased = CreateOptions { parent: Some(path("flat.slide")), ..base("rebased.slide") };
        let made = create_from(&source, &rebased, |_| ()).unwrap();
        assert_eq!((made.new_bytes, made.blocks), (0, 0), "the parent has everything");
        for (name, layers) in [("flat.slide", 1), ("rebased.slide", 2)] {
            let image = Image::open(&path(name)).unwrap();
            assert_eq!(image.layers().count(), layers);
            let mut bytes = vec![0; disk.len()];
            ImageDisk::new(&image).unwrap().read_at(0, &mut bytes).unwrap();
            assert!(bytes == disk, "{name}");
            assert_eq!(diff(&chain, &image).unwrap().changed_bytes, 0);
        }
        assert!(create_from(&source, &base("1.slide"), |_| ()).is_err(), "a layer of the chain is no output");
    }
}
