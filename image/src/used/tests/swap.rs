//! Swap space against mkswap.

use super::oracle::{MIB, empty, unused, unused_of};
use crate::testing::{run, tool};
use crate::used::volume::Kept;

#[test]
fn only_the_header_page_of_swap_is_used() {
    if tool("mkswap").is_none() {
        return;
    }
    for (arguments, page) in [(vec![], 4096), (vec!["-p", "65536"], 65536)] {
        let (_dir, path) = empty(8 * MIB + 1000);
        run("mkswap", arguments.into_iter().chain([path.to_str().unwrap()]));
        assert_eq!(unused(&path), ("swap", Ok(std::iter::once(page..8 * MIB).collect())));
    }
}

#[test]
fn swap_with_a_sleeping_system_or_of_a_larger_disk_is_kept() {
    if tool("mkswap").is_none() {
        return;
    }
    let (_dir, path) = empty(8 * MIB);
    run("mkswap", [path.to_str().unwrap()]);
    let image = std::fs::read(&path).unwrap();
    for asleep in [b"S1SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"] {
        let mut image = image.clone();
        image[4086..4096].copy_from_slice(asleep);
        assert_eq!(unused_of(&image, 8 * MIB), ("swap", Err(Kept::Hibernated)));
    }
    assert_eq!(unused_of(&image, 8 * MIB - 1), ("swap", Err(Kept::TooLong)));
}
