//! Android's sparse format (`libsparse/sparse_format.h` of the platform): chunks of raw bytes, of a fill, and of what does not
//! matter. What does not matter is unused in the image.
//!
//! Memory: 24 bytes for each chunk, at most 48 MiB.

use super::bytes::{fill, le16, le32, read};
use super::mapped::{Layout, MappedDisk, Piece};
use super::{DiskSource, ImportFault, Opening, RawDisk};
use crate::error::ImageError;
use core::ops::Range;

pub(super) const NAME: &str = "Android sparse";

const MAGIC: &[u8] = b"\x3A\xFF\x26\xED";
const HEADER: usize = 28;
const CHUNK: usize = 12;
const MAX_CHUNKS: u32 = 1 << 21;
const RAW: u16 = 0xCAC1;
const FILL: u16 = 0xCAC2;
const DONT_CARE: u16 = 0xCAC3;
const CRC: u16 = 0xCAC4;

/// Whether a file with this front is one.
pub(super) fn probe(head: &[u8], _tail: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Opens the disk in `file`.
pub(super) fn open(file: RawDisk, _opening: &Opening<'_>) -> Result<Box<dyn DiskSource>, ImageError> {
    let path = file.path().to_owned();
    let (bytes, chunks, unused) =
        Chunks::read(&file).map_err(|fault| ImageError::Import { path, format: NAME, fault })?;
    let mut disk = MappedDisk::new(NAME, bytes, vec![file], chunks);
    disk.unused = unused;
    Ok(Box::new(disk))
}

/// What a chunk is, and where on the disk it ends.
#[derive(Debug)]
struct Chunk {
    end: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Bytes of the file, which lie so far behind (or, wrapping, in front of) their place on the disk.
    Raw(u64),
    Fill([u8; 4]),
    DontCare,
}

/// The chunks, in the order of the disk.
#[derive(Debug)]
struct Chunks(Vec<Chunk>);

/// What the header says.
struct Header {
    /// The length of the header, and that of the header of a chunk.
    lens: (u64, u64),
    /// The length of a block in bytes.
    block: u32,
    blocks: u32,
    /// How many chunks there are.
    count: u32,
}

fn damaged<T>(what: &'static str, offset: u64) -> Result<T, ImportFault> {
    Err(ImportFault::Damaged { what, offset })
}

impl Header {
    fn read(file: &RawDisk) -> Result<Self, ImportFault> {
        let header = read(file, "header", 0, HEADER)?;
        if !probe(&header, &[]) || le16(&header, 4) != 1 {
            return Err(ImportFault::Unsupported {
                what: "another version than 1",
                remedy: "unpack it first: simg2img",
            });
        }
        let lens = (u64::from(le16(&header, 8)), u64::from(le16(&header, 10)));
        let (block, blocks, count) = (le32(&header, 12), le32(&header, 16), le32(&header, 20));
        if lens.0 < HEADER as u64 || lens.1 < CHUNK as u64 {
            return damaged("header", 8);
        }
        if block == 0 || !block.is_multiple_of(512) || block > 1 << 24 || blocks == 0 {
            return damaged("size of the disk", 12);
        }
        if count > MAX_CHUNKS {
            return Err(ImportFault::TooLarge { what: "list of chunks" });
        }
        Ok(Self { lens, block, blocks, count })
    }
}

impl Chunks {
    fn read(file: &RawDisk) -> Result<(u64, Self, Vec<Range<u64>>), ImportFault> {
        let Header { lens: (header_len, chunk_len), block, blocks, count } = Header::read(file)?;
        let bytes = u64::from(block) * u64::from(blocks);
        let (mut chunks, mut unused) = (Vec::new(), Vec::new());
        let (mut at, mut place) = (0, header_len);
        for _ in 0..count {
            let mut chunk = [0; CHUNK];
            fill(file, "chunk", place, &mut chunk)?;
            let len = u64::from(block) * u64::from(le32(&chunk, 4));
            let (stored, data, end) = (u64::from(le32(&chunk, 8)), place + chunk_len, at + len);
            let (body, what) = match le16(&chunk, 0) {
                RAW => (len, What::Raw(data.wrapping_sub(at))),
                FILL => {
                    let mut pattern = [0; 4];
                    fill(file, "fill", data, &mut pattern)?;
                    (4, What::Fill(pattern))
                }
                DONT_CARE => (0, What::DontCare),
                CRC if len == 0 => {
                    if stored != chunk_len + 4 {
                        return damaged("chunk", place);
                    }
                    place += stored;
                    continue;
                }
                _ => return damaged("chunk", place),
            };
            if len == 0 || end > bytes || stored != chunk_len + body {
                return damaged("chunk", place);
            }
            if place + stored > file.bytes() {
                return Err(ImportFault::Cut { what: "data of a chunk", offset: place });
            }
            if matches!(what, What::DontCare) {
                unused.push(at..end);
            }
            chunks.push(Chunk { end, what });
            (at, place) = (end, place + stored);
        }
        if at != bytes || place != file.bytes() {
            return damaged("end", place);
        }
        Ok((bytes, Self(chunks), unused))
    }
}

impl Layout for Chunks {
    fn piece(&self, _files: &[RawDisk], at: u64) -> Result<(Piece, u64), ImportFault> {
        let Some(chunk) = self.0.get(self.0.partition_point(|chunk| chunk.end <= at)) else {
            return Err(ImportFault::Damaged { what: "end", offset: at });
        };
        let piece = match chunk.what {
            What::Raw(distance) => Piece::Data { file: 0, offset: at.wrapping_add(distance) },
            What::Fill(pattern) => Piece::Fill(pattern),
            What::DontCare => Piece::Zeros,
        };
        Ok((piece, chunk.end))
    }
}
