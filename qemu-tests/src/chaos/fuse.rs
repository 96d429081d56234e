//! As much of the FUSE protocol (`linux/fuse.h`, version 7) as a file system needs that is one regular file, mounted on one.
//!
//! Requests are answered one after the other in the order in which they come. The file is opened for direct I/O, so that each
//! request of whoever reads or writes it arrives here as it was made, up to [`MOST`] bytes at once.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// The most bytes of one read or write.
const MOST: usize = 1 << 20;
const HEADER: usize = 40;
const INODE: u64 = 1;
/// A regular file that its owner reads and writes.
const MODE: u32 = 0o100_600;

/// `FUSE_BIG_WRITES` and `FUSE_MAX_PAGES`: requests of more than 128 KiB.
const FLAGS: u32 = 1 << 5 | 1 << 22;
const MINOR: u32 = 31;
/// `FOPEN_DIRECT_IO`.
const DIRECT_IO: u32 = 1;

mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const ACCESS: u32 = 34;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// What the file does.
pub(super) trait Content {
    /// Its length in bytes; it never changes.
    fn bytes(&self) -> u64;
    /// Fills `into` with what stands at `at`.
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Puts `data` at `at`.
    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()>;
    /// Makes what was written last.
    fn flush(&mut self) -> io::Result<()>;
}

/// A file system that is mounted and not yet served.
#[derive(Debug)]
pub(super) struct Mounted(File);

impl Mounted {
    /// Mounts on `point`, a regular file.
    ///
    /// # Errors
    /// When the kernel does not let us.
    pub(super) fn on(point: &Path) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options =
            format!("fd={},rootmode=100600,user_id=0,group_id=0,allow_other,max_read={MOST}", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("slidecast-lab"), point, Some("fuse.slidecast-lab"), flags, Some(options.as_str()))?;
        Ok(Self(device))
    }

    /// Answers requests until the file system is unmounted.
    ///
    /// # Errors
    /// When the kernel's end fails.
    pub(super) fn serve(mut self, content: &mut impl Content) -> io::Result<()> {
        let mut request = vec![0; MOST + 4096];
        loop {
            let len = match self.0.read(&mut request) {
                Ok(len) => len,
                Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(()),
                // A request was taken back before it was read.
                Err(error) if error.kind() == ErrorKind::Interrupted || error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let Some(request) = request.get(..len).and_then(Request::parse) else { continue };
            let Some(answer) = answer(&request, content) else { continue };
            let (error, body) = match answer {
                Ok(body) => (0, body),
                Err(errno) => (-(errno as i32), Vec::new()),
            };
            let len = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
            let mut reply = Vec::with_capacity(16 + body.len());
            reply.extend_from_slice(&len.to_ne_bytes());
            reply.extend_from_slice(&error.to_ne_bytes());
            reply.extend_from_slice(&request.unique.to_ne_bytes());
            reply.extend_from_slice(&body);
            match self.0.write(&reply) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
}

struct Request<'a> {
    opcode: u32,
    unique: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(HEADER..)?;
        Some(Self { opcode: word(bytes, 4)?, unique: long(bytes, 8)?, body })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// What is answered to a request; none where the kernel wants nothing.
fn answer(request: &Request<'_>, content: &mut impl Content) -> Option<Result<Vec<u8>, Errno>> {
    let answer = match request.opcode {
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return None,
        opcode::INIT => Ok(init()),
        opcode::GETATTR | opcode::SETATTR => Ok(attributes(content.bytes())),
        opcode::OPEN => Ok([0_u32, 0, DIRECT_IO, 0].iter().flat_map(|field| field.to_ne_bytes()).collect()),
        opcode::READ => read(request.body, content),
        opcode::WRITE => write(request.body, content),
        opcode::FSYNC => content.flush().map(|()| Vec::new()).map_err(errno),
        opcode::STATFS => Ok(vec![0; 80]),
        opcode::RELEASE | opcode::FLUSH | opcode::ACCESS | opcode::DESTROY => Ok(Vec::new()),
        _ => Err(Errno::ENOSYS),
    };
    Some(answer)
}

fn init() -> Vec<u8> {
    let most = u32::try_from(MOST).unwrap_or(u32::MAX);
    let mut out: Vec<u8> = [7, MINOR, most, FLAGS].iter().flat_map(|field: &u32| field.to_ne_bytes()).collect();
    // Requests in the background and congestion, as the kernel's own defaults.
    out.extend([12_u16, 9].iter().flat_map(|field| field.to_ne_bytes()));
    out.extend([most, 1].iter().flat_map(|field| field.to_ne_bytes()));
    // Pages of a request.
    out.extend([256_u16, 0].iter().flat_map(|field| field.to_ne_bytes()));
    out.resize(64, 0);
    out
}

fn attributes(bytes: u64) -> Vec<u8> {
    // How long they hold, in seconds; they never change.
    let mut out: Vec<u8> = [3600, 0].iter().flat_map(|field: &u64| field.to_ne_bytes()).collect();
    let longs = [INODE, bytes, bytes / 512, 0, 0, 0];
    out.extend(longs.iter().flat_map(|field| field.to_ne_bytes()));
    // Nanoseconds of the times, mode, links, owner, device, size of a block, flags.
    let words = [0, 0, 0, MODE, 1, 0, 0, 0, 4096, 0];
    out.extend(words.iter().flat_map(|field: &u32| field.to_ne_bytes()));
    out
}

fn read(body: &[u8], content: &mut impl Content) -> Result<Vec<u8>, Errno> {
    let (at, len) = long(body, 8).zip(word(body, 16)).ok_or(Errno::EINVAL)?;
    let len = u64::from(len).min(MOST as u64).min(content.bytes().saturating_sub(at));
    let mut out = vec![0; usize::try_from(len).unwrap_or(0)];
    content.read(at, &mut out).map_err(errno)?;
    Ok(out)
}

fn write(body: &[u8], content: &mut impl Content) -> Result<Vec<u8>, Errno> {
    let (at, len) = long(body, 8).zip(word(body, 16)).ok_or(Errno::EINVAL)?;
    let data = usize::try_from(len).ok().and_then(|len| body.get(40..40 + len)).ok_or(Errno::EINVAL)?;
    if at.checked_add(u64::from(len)).is_none_or(|end| end > content.bytes()) {
        return Err(Errno::ENOSPC);
    }
    content.write(at, data).map_err(errno)?;
    Ok([len, 0].iter().flat_map(|field| field.to_ne_bytes()).collect())
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(Vec<u8>);

    impl Content for Memory {
        fn bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
            let at = usize::try_from(at).unwrap();
            into.copy_from_slice(&self.0[at..at + into.len()]);
            Ok(())
        }

        fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
            let at = usize::try_from(at).unwrap();
            self.0[at..at + data.len()].copy_from_slice(data);
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(memory: &mut Memory, opcode: u32, at: u64, len: u32, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut body = [0_u64.to_ne_bytes(), at.to_ne_bytes()].concat();
        body.extend(len.to_ne_bytes());
        body.resize(40, 0);
        body.extend_from_slice(data);
        answer(&Request { opcode, unique: 1, body: &body }, memory).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_nothing_beyond_the_end() {
        let mut memory = Memory(vec![0; 8192]);
        assert_eq!(ask(&mut memory, opcode::WRITE, 4096, 3, b"abc").unwrap()[..4], 3_u32.to_ne_bytes());
        assert_eq!(ask(&mut memory, opcode::READ, 4095, 5, &[]).unwrap(), b"\0abc\0");
        assert_eq!(ask(&mut memory, opcode::READ, 8190, 100, &[]).unwrap().len(), 2);
        assert_eq!(ask(&mut memory, opcode::WRITE, 8190, 3, b"abc"), Err(Errno::ENOSPC));
        assert_eq!(ask(&mut memory, opcode::WRITE, u64::MAX, 3, b"abc"), Err(Errno::ENOSPC));
        assert_eq!(ask(&mut memory, opcode::WRITE, 0, 9, b"abc"), Err(Errno::EINVAL), "less than it says");
        assert_eq!(ask(&mut memory, 99, 0, 0, &[]), Err(Errno::ENOSYS));
    }

    #[test]
    fn answers_have_the_lengths_that_the_kernel_expects() {
        let mut memory = Memory(vec![0; 8192]);
        for (opcode, len) in [(opcode::INIT, 64), (opcode::GETATTR, 104), (opcode::OPEN, 16), (opcode::STATFS, 80)] {
            assert_eq!(ask(&mut memory, opcode, 0, 0, &[]).unwrap().len(), len, "{opcode}");
        }
    }
}
