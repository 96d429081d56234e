//! Every file of a folder of Clonezilla and of FOG cut and flipped, one at a time: an error of one line, or a disk that is
//! read without harm. What has checksums gives the same disk or an error.

use super::folders::{Machine, SCRIPTS, clonezilla, fog};
use super::lvm::Group;
use super::*;

/// What may come of a changed file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// It is checked by itself: an error, or nothing has changed.
    BeSeen,
    /// It is text or a boot sector without a checksum.
    BeRead,
}

/// What a folder gives, where it is not larger than the tests' own disks by far.
fn read(folder: &Path, all: bool) -> Result<Vec<u8>, String> {
    let disk = opened(folder).map_err(|error| error.to_string())?;
    if !all || disk.bytes() > 64 << 20 {
        let mut front = vec![0; usize::try_from(disk.bytes().min(4 << 20)).unwrap()];
        disk.read_at(0, &mut front).map_err(|error| error.to_string())?;
        return Ok(front);
    }
    bytes_of(&*disk).map_err(|error| error.to_string())
}

/// Cuts and flips `name` at up to `count` places each.
fn change(folder: &Path, name: &str, may: May, count: usize, expected: &[u8]) {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).unwrap();
    let step = |least: usize| (bytes.len() / count).max(least);
    let cuts = (0..bytes.len()).step_by(step(if bytes.len() > 512 * count { 512 } else { 1 }));
    let cuts = cuts.map(|len| (bytes[..len].to_vec(), format!("cut at {len}")));
    let flips = (0..bytes.len()).step_by(step(1)).map(|at| {
        let mut flipped = bytes.clone();
        flipped[at] ^= if at % 2 == 0 { 0x01 } else { 0x80 };
        (flipped, format!("flipped at {at}"))
    });
    for (changed, how) in cuts.chain(flips) {
        std::fs::write(&path, changed).unwrap();
        match read(folder, may == May::BeSeen) {
            Ok(read) if may == May::BeSeen => assert_eq!(difference(&read, expected), "", "{name}, {how}"),
            Ok(_) => {}
            Err(error) => assert!(!error.contains('\n') && error.contains("saved"), "{name}, {how}: {error}"),
        }
    }
    std::fs::write(&path, bytes).unwrap();
}

fn sweep(count: usize) {
    for script in SCRIPTS {
        let Some(machine) = Machine::new(script) else { return };
        for make in
            [|machine: &Machine| clonezilla(machine, "", "", ""), |machine: &Machine| fog(machine, "", "", false)]
        {
            let folder = make(&machine);
            let expected = read(&folder, true).unwrap();
            let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
            for name in entries.map(|name| name.into_string().unwrap()).collect::<Vec<_>>() {
                // The sectors in front of the first partition are bytes like those of a partition, but without any checksum.
                if name.contains("hidden-data") {
                    continue;
                }
                let may = if name.contains("img") && name != "clonezilla-img" { May::BeSeen } else { May::BeRead };
                change(&folder, &name, may, if may == May::BeSeen { count / 8 } else { count }, &expected);
            }
        }
    }
}

/// `SLIDECAST_SWEEP` is the number of places in each file; `./check.sh fuzz` takes thirty times as many.
pub(super) fn places() -> usize {
    std::env::var("SLIDECAST_SWEEP").map_or(40, |count| count.parse().unwrap())
}

#[test]
fn a_folder_with_a_cut_or_flipped_file_is_an_error_or_read_without_harm() {
    sweep(places());
}

#[test]
fn a_folder_with_a_cut_or_flipped_text_about_a_volume_group_is_an_error_or_read_without_harm() {
    let Some(group) = Group::new() else { return };
    let folder = lvm::folder(&group).0;
    let texts = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in texts.filter(|name| name.starts_with("lvm_")).collect::<Vec<_>>() {
        change(&folder, &name, May::BeRead, places(), &[]);
    }
}
