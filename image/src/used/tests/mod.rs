//! The readers against the programs that made the file systems.

mod btrfs;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod flips;
mod foreign;
mod lvm;
mod lvm_damage;
mod md;
mod ntfs;
mod oracle;
mod pv;
mod swap;
mod whole_disk;
mod xfs;
