//! Linux swap: only its header page is used, unless a system sleeps in it (`mm/swapfile.c`, `kernel/power/swap.c`).

use super::reader::Reader;
use super::volume::{Kept, Unused, Volume};
use crate::le::u32_at;

/// The pages of the machines that Linux runs on.
const PAGES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// What stands in place of the signature while a system sleeps: the kernel, the user-space suspend tool, TuxOnIce.
const ASLEEP: [&[u8]; 5] =
    [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001", b"\xED\xC3\x02\xE9\x98\x56\xE5\x0C"];

/// The row of the table of readers.
pub(super) const READER: Reader = Reader { probe: |head| is_swap(head).then_some("swap"), unused };

/// Whether the first pages of a volume are those of swap space, awake or asleep.
fn is_swap(head: &[u8]) -> bool {
    page_of(head, |signature| signature == b"SWAPSPACE2" || signature == b"SWAP-SPACE" || is_asleep(signature))
        .is_some()
}

fn is_asleep(signature: &[u8]) -> bool {
    ASLEEP.iter().any(|asleep| signature.starts_with(asleep))
}

/// The size of the page whose last ten bytes are such a signature.
fn page_of(head: &[u8], is: impl Fn(&[u8]) -> bool) -> Option<usize> {
    PAGES.into_iter().find(|page| head.get(page - 10..*page).is_some_and(&is))
}

/// Everything behind the header page.
fn unused(volume: &Volume<'_>, head: &[u8]) -> Result<Unused, Kept> {
    if page_of(head, is_asleep).is_some() {
        return Err(Kept::Hibernated);
    }
    let page = page_of(head, |signature| signature == b"SWAPSPACE2").ok_or(Kept::NotRead("this version of swap"))?;
    if u32_at(head, 1024) != Some(1) {
        return Err(Kept::NotRead("this version of swap"));
    }
    let last = u32_at(head, 1028).ok_or(Kept::Corrupt("header"))?;
    let page = page as u64;
    let end = (u64::from(last) + 1) * page;
    if end > volume.bytes() {
        return Err(Kept::TooLong);
    }
    let mut unused = Unused::default();
    unused.push(page..end);
    Ok(unused)
}
