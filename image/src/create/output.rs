//! The file that is being made: front to back, the superblock last.

use super::pool::{Packed, Pool};
use crate::error::{ImageError, Operation};
use crate::format::{BLOCK_HEADER_BYTES, Row, SUPERBLOCK_BYTES, Section, SectionEntry, Superblock, encode_footer};
use crate::passing::PassingFile;
use slidecast_proto::units::{Hash, MAX_BLOCKS};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::Receiver;

/// A layer's file, gone again when dropped before it was complete.
#[derive(Debug)]
pub(super) struct Output {
    file: PassingFile,
    at: u64,
}

impl Output {
    /// Begins the file that will be `path`.
    pub(super) fn begin(path: &Path) -> Result<Self, ImageError> {
        let mut output = Self { file: PassingFile::begin(path)?, at: 0 };
        output.append(&Superblock::encode_building())?;
        Ok(output)
    }

    /// The name it will have.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// A second handle on the file.
    pub(super) fn try_clone(&self) -> Result<File, ImageError> {
        self.file.file().try_clone().map_err(ImageError::io(Operation::Open, self.path(), None))
    }

    /// How long the file is so far.
    pub(super) fn bytes(&self) -> u64 {
        self.at
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let at = self.at;
        self.file.file().write_all_at(bytes, at).map_err(ImageError::io(Operation::Write, self.path(), at))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes blocks in the order of `slots`, until there are no more. `wrote` is told the length of the payloads so far.
    pub(super) fn write_blocks(
        &mut self,
        slots: &Receiver<Receiver<Packed>>,
        pool: &Pool,
        wrote: impl Fn(u64),
    ) -> Result<Vec<Row>, ImageError> {
        let mut rows: Vec<Row> = Vec::new();
        let (mut at, mut payloads) = (self.at, 0);
        let (mut file, path) = (self.file.file(), self.path());
        file.seek(SeekFrom::Start(at)).map_err(ImageError::io(Operation::Write, path, at))?;
        let mut file = BufWriter::with_capacity(256 << 10, file);
        while let Ok(slot) = slots.recv() {
            let packed = slot.recv().map_err(|_| ImageError::Worker)?;
            let number = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            if number >= MAX_BLOCKS {
                return Err(ImageError::TooMany { what: "blocks" });
            }
            let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
            let row = Row::new(packed.codec, len(packed.payload.len()), packed.crc, packed.hash, at);
            let header = row.block_header(number, len(packed.raw_len));
            let written = file.write_all(&header).and_then(|()| file.write_all(&packed.payload));
            written.map_err(ImageError::io(Operation::Write, path, at))?;
            at = row.end();
            payloads += at - row.offset - BLOCK_HEADER_BYTES;
            wrote(payloads);
            rows.push(row);
            pool.give_back(packed.payload);
        }
        file.flush().map_err(ImageError::io(Operation::Write, path, at))?;
        drop(file);
        self.at = at;
        Ok(rows)
    }

    /// Appends a section.
    pub(super) fn section(&mut self, kind: Section, bytes: &[u8]) -> Result<SectionEntry, ImageError> {
        let offset = self.at;
        self.append(bytes)?;
        Ok(SectionEntry { kind, offset, bytes: bytes.len() as u64, hash: Hash::of(bytes) })
    }

    /// Completes the file: footer, everything on the disk, superblock, everything on the disk, its name.
    pub(super) fn finish(&mut self, superblock: &Superblock, sections: &[SectionEntry]) -> Result<(), ImageError> {
        debug_assert_eq!(self.at, superblock.footer);
        self.append(&encode_footer(superblock.layer, sections))?;
        let (file, path) = (self.file.file(), self.path());
        file.sync_all().map_err(ImageError::io(Operation::Flush, path, None))?;
        let encoded = superblock.encode();
        debug_assert_eq!(encoded.len() as u64, SUPERBLOCK_BYTES);
        file.write_all_at(&encoded, 0).map_err(ImageError::io(Operation::Write, path, 0))?;
        file.sync_all().map_err(ImageError::io(Operation::Flush, path, None))?;
        self.file.finish()
    }
}
