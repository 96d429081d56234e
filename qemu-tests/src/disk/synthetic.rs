//! A small disk of generated files: seconds to make, the same in every run.

use std::fs;
use std::path::{Path, PathBuf};

use super::Layout;
use super::change::Change;
use super::random::Random;
use crate::error::{LabError, Result};

/// Its partitions: 96 MiB in all, of which about 40 MiB are used.
pub const LAYOUT: Layout = Layout { efi_mib: 18, swap_mib: 8, root_mib: 68 };

/// A sample disk in two states.
#[derive(Debug, Clone)]
pub struct Disks {
    /// Where its partitions are.
    pub layout: Layout,
    /// The first state.
    pub first: PathBuf,
    /// The second state, a few per cent away.
    pub second: PathBuf,
}

/// Makes the disk in `dir`.
///
/// # Errors
/// When a tool is missing or fails.
pub fn make(dir: &Path) -> Result<Disks> {
    let (root, scratch) = (dir.join("root"), dir.join("scratch"));
    let loader = dir.join("BOOTX64.EFI");
    let write = |path: PathBuf, content: &[u8]| fs::write(&path, content).map_err(LabError::io("writing", path));
    for folder in ["etc", "usr/share", "usr/lib", "srv", "var/copy"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).map_err(LabError::io("creating", folder))?;
    }
    let mut random = Random::new(1);
    for i in 0..600 {
        let len = usize::try_from(random.below(20_000)).unwrap_or(0);
        write(root.join(format!("etc/text{i}")), &random.text(len))?;
    }
    for i in 0..24 {
        let len = 100_000 + usize::try_from(random.below(900_000)).unwrap_or(0);
        let content = if i % 3 == 0 { random.bytes(len) } else { random.text(len) };
        write(root.join(format!("usr/lib/object{i}")), &content)?;
        // A copied tree, so that there is something to find twice.
        if i % 2 == 0 {
            write(root.join(format!("var/copy/object{i}")), &content)?;
        }
    }
    // Zeros that are written, not holes: they are content.
    write(root.join("usr/share/zeros"), &vec![0; 5 << 20])?;
    write(loader.clone(), &random.bytes(2 << 20))?;
    let disks = Disks { layout: LAYOUT, first: dir.join("first.img"), second: dir.join("second.img") };
    LAYOUT.make(&disks.first, &root, &[loader])?;
    Change::of(40 << 20).make(&LAYOUT, &disks.first, &disks.second, &root, &scratch)?;
    fs::remove_dir_all(&root).map_err(LabError::io("removing", root))?;
    Ok(disks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Compared, compare, compare_ranges};
    use crate::run::Run;

    #[test]
    fn both_states_are_sound_and_differ_by_a_few_per_cent() {
        let run = Run::start().unwrap();
        let disks = make(run.dir()).unwrap();
        LAYOUT.check(&disks.first).unwrap();
        LAYOUT.check(&disks.second).unwrap();
        assert!(matches!(compare(&disks.first, &disks.second).unwrap(), Compared::Differs { .. }));
        let used = LAYOUT.used_ranges(&disks.second).unwrap();
        let bytes: u64 = used.iter().map(|range| range.end - range.start).sum();
        assert!((30 << 20..70 << 20).contains(&bytes), "{bytes}");
        assert!(used.windows(2).all(|pair| pair[0].end <= pair[1].start), "{used:?}");
        let changed = used
            .iter()
            .flat_map(|range| (range.start..range.end).step_by(4096).map(|at| at..(at + 4096).min(range.end)))
            .filter(|grain| {
                let one = std::slice::from_ref(grain);
                matches!(compare_ranges(&disks.first, &disks.second, one).unwrap(), Compared::Differs { .. })
            })
            .count() as u64
            * 4096;
        assert!((bytes / 200..bytes / 10).contains(&changed), "{changed} of {bytes}");
    }
}
