//! The flags of the commands that look into images without deploying them.

use crate::nbd::Listen;
use clap::Args;
use slidecast_image::codec::Packing;
use std::path::PathBuf;
use std::str::FromStr;

/// `slidecast image nbd`
#[derive(Debug, Args)]
pub struct Nbd {
    /// The image.
    pub file: PathBuf,
    /// Where to listen: an address and a port (0 for any free one), or a Unix socket, which is made. The export is named "disk".
    #[arg(long, value_name = "HOST:PORT|unix:PATH", value_parser = Listen::from_str)]
    pub listen: Listen,
}

/// `slidecast image diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The image that disks hold.
    pub from: PathBuf,
    /// The image that they are to get.
    pub to: PathBuf,
    /// Print one JSON object, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast image flatten`
#[derive(Debug, Args)]
pub struct Flatten {
    /// The newest layer of the image.
    pub file: PathBuf,
    /// The image to write, a base. It appears, or replaces one of this name, when it is complete.
    #[arg(short, long, value_name = "FILE.slide")]
    pub output: PathBuf,
    /// How blocks are compressed: zstd, zstd:LEVEL (1 to 19), lz4 or none.
    #[arg(long, value_name = "CODEC", default_value = "zstd:3", value_parser = Packing::from_str)]
    pub codec: Packing,
}

/// `slidecast image rebase`
#[derive(Debug, Args)]
pub struct Rebase {
    /// The newest layer of the image.
    pub file: PathBuf,
    /// The image that the new layer builds on. Its grain and block size are kept.
    #[arg(long, value_name = "FILE.slide")]
    pub parent: PathBuf,
    /// The increment to write. It appears, or replaces one of this name, when it is complete.
    #[arg(short, long, value_name = "FILE.slide")]
    pub output: PathBuf,
    /// How blocks are compressed: zstd, zstd:LEVEL (1 to 19), lz4 or none.
    #[arg(long, value_name = "CODEC", default_value = "zstd:3", value_parser = Packing::from_str)]
    pub codec: Packing,
}
