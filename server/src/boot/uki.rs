//! The unified kernel image (UKI): its kernel command line, read and replaced.
//!
//! A UKI is a PE program of sections; systemd's stub takes the command line from the one called `.cmdline`. Firmware that
//! starts a UKI hands no words to it, so what a deployment has to say must be inside. A new command line goes to the end of
//! the file and the section's header is turned to it; nothing else moves, as sections lie in memory with gaps of whole
//! pages. Offsets are those of Microsoft's "PE Format".

use std::error::Error;
use std::fmt;

/// The most of a file's beginning that is looked at: all headers are in it.
pub(super) const HEAD: usize = 64 << 10;
/// The longest kernel command line on x86-64 (`COMMAND_LINE_SIZE`).
pub(super) const MAX_COMMAND_LINE: u32 = 2048;

const SECTION_HEADER: usize = 40;
const OPTIONAL_HEADER: usize = 24;
const PE32_PLUS: u16 = 0x20b;

/// Why a UKI can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UkiError {
    /// Its headers are not those of a 64-bit PE program with a `.cmdline` section.
    NotAUki,
    /// Its command line is not one line of printable ASCII of a bearable length.
    CommandLine,
    /// It is signed: the signature would not hold for another command line.
    Signed,
    /// The new command line is longer than the gap in memory.
    NoRoom {
        /// How long it may be.
        most: u32,
    },
}

impl fmt::Display for UkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAUki => f.write_str("not a unified kernel image with a command line"),
            Self::CommandLine => f.write_str("its command line is not one line of printable ASCII"),
            Self::Signed => f.write_str("it is signed, so it can't be given this deployment's key"),
            Self::NoRoom { most } => write!(f, "it has room for a command line of {most} bytes only"),
        }
    }
}

impl Error for UkiError {}

/// What is known of a UKI from its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uki {
    /// Where the header of `.cmdline` is.
    header: usize,
    /// Where the text is, and how long it is.
    pub(super) text: (u64, u32),
    /// How much there is between this section and the next one in memory.
    room: u32,
    file_alignment: u32,
    signed: bool,
}

/// Bytes that turn a UKI into one with another command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// What to write, and where: two pieces of the section's header, then what the file is lengthened by.
    pub(super) writes: [(u64, Vec<u8>); 3],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Uki {
    /// Reads the headers in the first [`HEAD`] bytes of a file.
    pub(super) fn parse(head: &[u8]) -> Result<Self, UkiError> {
        Self::read(head).ok_or(UkiError::NotAUki)
    }

    fn read(head: &[u8]) -> Option<Self> {
        let pe = usize::try_from(u32_at(head, 0x3c)?).ok()?;
        if head.get(..2)? != b"MZ" || head.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        let (sections, optional) = (usize::from(u16_at(head, pe + 6)?), pe + OPTIONAL_HEADER);
        if u16_at(head, optional)? != PE32_PLUS {
            return None;
        }
        let file_alignment =
            u32_at(head, optional + 36).filter(|align| align.is_power_of_two() && *align <= 1 << 16)?;
        let image_size = u32_at(head, optional + 56)?;
        // Data directory 4 is that of signatures; there may be fewer.
        let directories = u32_at(head, optional + 108)?;
        let signed = directories > 4 && u32_at(head, optional + 112 + 4 * 8 + 4)? != 0;
        let first = optional + usize::from(u16_at(head, pe + 20)?);
        let table = head.get(first..first.checked_add(sections * SECTION_HEADER)?)?;
        let header = table.chunks_exact(SECTION_HEADER).position(|section| &section[..8] == b".cmdline")?;
        let header = first + header * SECTION_HEADER;
        let (size, start) = (u32_at(head, header + 8)?, u32_at(head, header + 12)?);
        let (raw_size, raw) = (u32_at(head, header + 16)?, u32_at(head, header + 20)?);
        let starts = table.chunks_exact(SECTION_HEADER).filter_map(|section| u32_at(section, 12));
        let end = starts.filter(|other| *other > start).min().unwrap_or(image_size);
        let room = end.checked_sub(start)?;
        Some(Self { header, text: (u64::from(raw), size.min(raw_size)), room, file_alignment, signed })
    }

    /// The command line, given the bytes of [`Self::text`].
    pub(super) fn command_line(text: &[u8]) -> Result<String, UkiError> {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| UkiError::CommandLine)?.trim_end();
        let fits = text.len() < MAX_COMMAND_LINE as usize && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if fits { Ok(text.to_owned()) } else { Err(UkiError::CommandLine) }
    }

    /// What gives a UKI of `file_len` bytes the command line `words`.
    pub(super) fn with_command_line(&self, file_len: u64, words: &str) -> Result<Patch, UkiError> {
        if self.signed {
            return Err(UkiError::Signed);
        }
        let len = u32::try_from(words.len() + 1).unwrap_or(u32::MAX);
        if len > self.room.min(MAX_COMMAND_LINE) {
            return Err(UkiError::NoRoom { most: self.room.min(MAX_COMMAND_LINE).saturating_sub(1) });
        }
        let align = self.file_alignment;
        let raw = file_len.next_multiple_of(u64::from(align));
        let raw32 = u32::try_from(raw).map_err(|_| UkiError::NotAUki)?;
        let raw_size = len.next_multiple_of(align);
        let place = [raw_size.to_le_bytes(), raw32.to_le_bytes()].concat();
        let mut tail = words.as_bytes().to_vec();
        tail.resize(raw_size as usize, 0);
        // Between the two pieces is the section's address in memory, which stays.
        let header = self.header as u64;
        Ok(Patch { writes: [(header + 8, len.to_le_bytes().to_vec()), (header + 16, place), (raw, tail)] })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A PE file of headers, a `.cmdline` and a `.linux` section.
    pub(in crate::boot) fn sample(words: &str, signed: bool) -> Vec<u8> {
        let mut file = vec![0; 0x400];
        let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &0x80_u32.to_le_bytes());
        put(&mut file, 0x80, b"PE\0\0");
        put(&mut file, 0x86, &2_u16.to_le_bytes());
        put(&mut file, 0x94, &240_u16.to_le_bytes());
        put(&mut file, 0x98, &PE32_PLUS.to_le_bytes());
        put(&mut file, 0x98 + 36, &0x200_u32.to_le_bytes());
        put(&mut file, 0x98 + 56, &0x9000_u32.to_le_bytes());
        put(&mut file, 0x98 + 108, &16_u32.to_le_bytes());
        if signed {
            put(&mut file, 0x98 + 112 + 36, &64_u32.to_le_bytes());
        }
        for (at, name, start, raw) in
            [(0x188, b".cmdline", 0x3000_u32, 0x400_u32), (0x1b0, b".linux\0\0", 0x4000, 0x600)]
        {
            put(&mut file, at, name);
            put(&mut file, at + 8, &u32::try_from(words.len()).unwrap().to_le_bytes());
            put(&mut file, at + 12, &start.to_le_bytes());
            put(&mut file, at + 16, &0x200_u32.to_le_bytes());
            put(&mut file, at + 20, &raw.to_le_bytes());
        }
        let mut text = words.as_bytes().to_vec();
        text.resize(0x200, 0);
        file.extend(text);
        file.extend([b'k'; 0x233]);
        file
    }

    fn words_of(file: &[u8]) -> String {
        let uki = Uki::parse(file).unwrap();
        let at = usize::try_from(uki.text.0).unwrap();
        Uki::command_line(&file[at..at + uki.text.1 as usize]).unwrap()
    }

    fn patched(file: &[u8], words: &str) -> Vec<u8> {
        let patch = Uki::parse(file).unwrap().with_command_line(file.len() as u64, words).unwrap();
        let mut new = file.to_vec();
        for (at, bytes) in patch.writes {
            let at = usize::try_from(at).unwrap();
            new.resize(new.len().max(at + bytes.len()), 0);
            new[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        new
    }

    #[test]
    fn the_command_line_of_a_uki_is_read() {
        assert_eq!(words_of(&sample("console=ttyS0 quiet", false)), "console=ttyS0 quiet");
    }

    #[test]
    fn a_longer_command_line_goes_to_the_end_and_nothing_else_moves() {
        let file = sample("quiet", false);
        let words = format!("quiet slidecast.key={}", "ab".repeat(300));
        let new = patched(&file, &words);
        assert_eq!(words_of(&new), words);
        assert_eq!(new.len() % 0x200, 0);
        assert_eq!(&new[0x190 + 4..0x190 + 8], &0x3000_u32.to_le_bytes(), "the section stays at its address");
        let changed: Vec<usize> = (0..file.len()).filter(|at| file[*at] != new[*at]).collect();
        assert!(changed.iter().all(|at| (0x190..0x1a0).contains(at)), "{changed:x?}");
    }

    #[test]
    fn a_command_line_longer_than_the_gap_is_refused() {
        let uki = Uki { room: 0x100, ..Uki::parse(&sample("quiet", false)).unwrap() };
        assert_eq!(uki.with_command_line(0xa33, &"x".repeat(0x100)), Err(UkiError::NoRoom { most: 0xff }));
        assert!(uki.with_command_line(0xa33, &"x".repeat(0xff)).is_ok());
    }

    #[test]
    fn a_signed_uki_is_left_as_it_is() {
        let uki = Uki::parse(&sample("quiet", true)).unwrap();
        assert_eq!(uki.with_command_line(0xa33, "loud"), Err(UkiError::Signed));
    }

    #[test]
    fn no_header_however_cut_or_flipped_does_harm() {
        let file = sample("quiet", false);
        for len in 0..0x1d8 {
            assert_eq!(Uki::parse(&file[..len]), Err(UkiError::NotAUki), "{len}");
        }
        for at in 0..0x1d8 {
            for value in [0, 0x7f, 0xff] {
                let mut bad = file.clone();
                bad[at] = value;
                if let Ok(uki) = Uki::parse(&bad) {
                    let _ = uki.with_command_line(bad.len() as u64, "quiet loud");
                }
            }
        }
    }

    #[test]
    fn odd_command_lines_are_refused() {
        assert_eq!(Uki::command_line(b"quiet\n\0\0").unwrap(), "quiet");
        for bad in [&b"a\nb"[..], b"a\x1b", b"\xff"] {
            assert_eq!(Uki::command_line(bad), Err(UkiError::CommandLine));
        }
        assert_eq!(Uki::command_line(&[b'x'; 4096]), Err(UkiError::CommandLine));
    }
}
