//! A raw disk that is packed as a whole: gzip, xz, zstd, bzip2, lz4, lzip, each in one or many members or frames.
//!
//! Such a file is read from its front only, and a disk is not: its tables and the metadata of its file systems lie here and
//! there. So it is unpacked first, into a file without a name in the folder of the image, in which zeros are holes; that
//! file goes with the process. A cut inside of a member or frame is told, and so is anything behind the last one; a cut
//! just between two of them is not there to be seen.
//!
//! Memory: at most 128 MiB for what unpacks (the largest windows of zstd and xz that are taken), and 2 MiB.

mod lz4;
mod lzip;

use super::pieces::Pieces;
use super::{DiskSource, ImportFault, Opening, RawDisk, ReadAt, formats};
use crate::error::{ImageError, Operation};
use crate::passing::PassingFile;
use core::ops::Range;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How much is unpacked at once.
const STEP: usize = 1 << 20;
/// Zeros of this length, at a multiple of it, are a hole.
const HOLE: usize = 4096;
/// The largest window of zstd, as a power of two, and the memory for xz: what `zstd --long` and `xz -9` need.
const WINDOW_LOG: u32 = 27;
const XZ_MEMORY: u64 = 128 << 20;

/// What packed the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packer {
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Lz4,
    Lzip,
}

impl Packer {
    const ALL: [Self; 6] = [Self::Gzip, Self::Xz, Self::Zstd, Self::Bzip2, Self::Lz4, Self::Lzip];

    /// The packer that is called so.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|packer| packer.name() == name)
    }

    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::Lzip => "lzip",
        }
    }

    /// Whether a file with this front was packed by it.
    pub(super) fn probe(self, head: &[u8]) -> bool {
        match self {
            Self::Gzip => head.starts_with(b"\x1F\x8B\x08"),
            Self::Xz => head.starts_with(b"\xFD7zXZ\0"),
            // A skippable frame of zstd has one of sixteen magics; lz4 has the same.
            Self::Zstd => {
                head.starts_with(b"\x28\xB5\x2F\xFD")
                    || head.get(1..4) == Some(&[0x2A, 0x4D, 0x18][..]) && head[0] & 0xF0 == 0x50
            }
            Self::Bzip2 => {
                head.starts_with(b"BZh")
                    && matches!(head.get(3), Some(b'1'..=b'9'))
                    && head.get(4..10) == Some(&b"1AY&SY"[..])
            }
            Self::Lz4 => head.starts_with(lz4::MAGIC),
            Self::Lzip => lzip::probe(head),
        }
    }

    /// Everything that `input` holds, unpacked.
    fn reader(self, input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let packed = BufReader::with_capacity(STEP, input);
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Self::Lz4 => Box::new(lz4::Frames::new(packed)),
            Self::Lzip => Box::new(lzip::Members::new(packed, XZ_MEMORY)?),
        })
    }
}

/// How the files of lzma begin, which have no magic: the usual properties, and a dictionary of whole 64 KiB. No image of partclone or table
/// of a boot sector begins so.
const LZMA: &[u8] = b"\x5D\0\0";

/// Packers that are known and not read: what they are called, and how their files begin.
const OTHERS: &[(&str, &[u8])] = &[
    ("the packing of lzop", b"\x89LZO\0\r\n\x1A\n"),
    ("the packing of lrzip", b"LRZI"),
    ("the old frames of lz4", b"\x02\x21\x4C\x18"),
];

/// The bytes of a file from its front, unpacked if they are packed.
pub(super) fn unpacked(file: &Pieces) -> Result<Box<dyn Read + Send>, ImportFault> {
    let stream = |error| ImportFault::Stream { error };
    let head = file.head(16).map_err(stream)?;
    if let Some((what, _)) = OTHERS.iter().find(|(_, magic)| head.starts_with(magic)) {
        return Err(ImportFault::Unsupported { what, remedy: "unpack the file, or pack it with zstd" });
    }
    match Packer::ALL.into_iter().find(|packer| packer.probe(&head)) {
        Some(packer) => packer.reader(file.reader()).map_err(stream),
        None if head.starts_with(LZMA) => {
            let decoder = liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY).map_err(|error| stream(error.into()))?;
            let packed = BufReader::with_capacity(STEP, file.reader());
            Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(packed, decoder)))
        }
        None => Ok(Box::new(BufReader::with_capacity(STEP, file.reader()))),
    }
}

/// Whether what a packed file holds begins so. One that does not unpack so far does not.
pub(super) fn holds(file: &RawDisk, magic: &[u8]) -> bool {
    let mut head = vec![0; magic.len()];
    let pieces = Pieces::of(&[file.path().to_owned()]);
    let read = pieces.is_ok_and(|pieces| unpacked(&pieces).is_ok_and(|mut input| input.read_exact(&mut head).is_ok()));
    read && head == magic
}

/// Unpacks the disk in `file`.
pub(super) fn open(file: RawDisk, packer: Packer, opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let reader = file.file().try_clone().and_then(|file| packer.reader(file));
    let mut reader = reader.map_err(|error| {
        let path = file.path().to_owned();
        ImageError::Import { path, format: packer.name(), fault: ImportFault::Stream { error } }
    })?;
    spool(file, packer.name(), &mut reader, opening)
}

/// Writes everything that `reader` makes of `file`, which is of the format `format`, into a file without a name, and gives that.
pub(super) fn spool(
    file: RawDisk,
    format: &'static str,
    reader: &mut dyn Read,
    opening: &Opening<'_>,
) -> Result<Box<dyn DiskSource>, ImageError> {
    let spool = PassingFile::begin(&opening.spool.join("unpacked"))?;
    unpack(&file, format, reader, spool.file(), opening)?;
    let path = file.path().to_owned();
    let unpacked = spool.file().try_clone().and_then(|file| RawDisk::adopt(file, path.clone()));
    let disk = unpacked.map_err(ImageError::io(Operation::Open, opening.spool, None))?;
    if let Some(inside) = formats::found(&disk).map_err(ImageError::io(Operation::Read, opening.spool, None))? {
        let fault = ImportFault::Named {
            what: "content",
            name: inside.to_owned(),
            why: "is no raw disk either; unpack the file first",
        };
        return Err(ImageError::Import { path, format, fault });
    }
    Ok(Box::new(Unpacked { format, packed: file, disk, _spool: spool }))
}

/// Unpacks all of `file` into `spool`, a new file.
fn unpack(
    file: &RawDisk,
    format: &'static str,
    reader: &mut dyn Read,
    spool: &File,
    opening: &Opening<'_>,
) -> Result<(), ImageError> {
    let broken = |error: io::Error| {
        let fault = error.downcast::<ImportFault>().unwrap_or_else(|error| ImportFault::Stream { error });
        ImageError::Import { path: file.path().to_owned(), format, fault }
    };
    let write =
        |at: u64| move |error| ImageError::io(Operation::Write, opening.spool.join("(the unpacked disk)"), at)(error);
    let mut buffer = vec![0; STEP];
    let mut at = 0_u64;
    loop {
        let mut len = 0;
        while len < STEP {
            match reader.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        for data in data(&buffer[..len]) {
            let place = at + data.start as u64;
            spool.write_all_at(&buffer[data], place).map_err(write(place))?;
        }
        at += len as u64;
        // The reader of a packed disk has a descriptor of its own, which shares its place with this one.
        let read = file.file().stream_position().map_err(broken)?;
        (opening.preparing)(read, file.bytes());
        if len < STEP {
            break;
        }
    }
    spool.set_len(at).map_err(write(at))
}

/// The runs of a buffer that are more than zeros, to [`HOLE`] bytes.
fn data(buffer: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, piece) in buffer.chunks(HOLE).enumerate() {
        if piece.iter().all(|byte| *byte == 0) {
            continue;
        }
        let start = number * HOLE;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = start + piece.len(),
            _ => runs.push(start..start + piece.len()),
        }
    }
    runs
}

/// A disk that was unpacked.
#[derive(Debug)]
struct Unpacked {
    format: &'static str,
    packed: RawDisk,
    disk: RawDisk,
    /// Holds the name of the file, where the file system gave it one.
    _spool: PassingFile,
}

impl ReadAt for Unpacked {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }
}

impl DiskSource for Unpacked {
    fn path(&self) -> &Path {
        self.packed.path()
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.next_data(from)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.packed.files()
    }

    fn change(&self) -> io::Result<Option<&'static str>> {
        self.packed.change()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_data_end_at_pieces_of_zeros() {
        let mut buffer = vec![0; 5 * HOLE + 10];
        buffer[HOLE] = 1;
        buffer[3 * HOLE - 1] = 1;
        buffer[5 * HOLE + 9] = 1;
        assert_eq!(data(&buffer), [HOLE..3 * HOLE, 5 * HOLE..5 * HOLE + 10]);
    }
}
