//! The flags of the commands that look into images without deploying them.

use super::look_examples::{
    DIFF_EXAMPLES, FLATTEN_EXAMPLES, GC_EXAMPLES, LIST_EXAMPLES, NBD_EXAMPLES, PULL_EXAMPLES, PUSH_EXAMPLES,
    REBASE_EXAMPLES, STAGE_EXAMPLES,
};
use super::values::layer_path;
use crate::nbd::Listen;
use crate::store::Hours;
use clap::{Args, Subcommand};
use slidecast_image::codec::Packing;
use slidecast_proto::quantity::{parse_bytes, parse_duration, parse_mbits};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// `slidecast image ...` without making an image of a disk.
#[derive(Debug, Subcommand)]
pub enum LookCommand {
    /// Let programs read the disk of an image over the network (NBD): boot it, mount it, convert it.
    #[command(after_help = NBD_EXAMPLES)]
    Nbd(Nbd),
    /// Show what a deployment of one image sends to disks that hold another.
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(Diff),
    /// Turn a layer and all its parents into one image without parents.
    #[command(after_help = FLATTEN_EXAMPLES)]
    Flatten(Flatten),
    /// Turn an image into an increment of another one.
    #[command(after_help = REBASE_EXAMPLES)]
    Rebase(Rebase),
    /// List the images in a folder of a bucket or of a web server.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListImages),
    /// Fetch an image with all its layers from a server, and check it.
    #[command(after_help = PULL_EXAMPLES)]
    Pull(Pull),
    /// Put an image with all its layers into a bucket of S3.
    #[command(after_help = PUSH_EXAMPLES)]
    Push(Push),
    /// Fill a cache ahead, at a rate and at hours when the line is free.
    #[command(after_help = STAGE_EXAMPLES)]
    Stage(Stage),
    /// Remove from a folder of a bucket what no image that is kept is made of.
    #[command(after_help = GC_EXAMPLES)]
    Gc(CollectImages),
}

/// Flags of commands that read images on servers again and again.
#[derive(Debug, Args)]
pub struct CacheFlags {
    /// Keep in this folder what is read of an image on a server: the next deployment fetches only what is new.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// How much the folder may hold; images not used for longest make room.
    #[arg(long, value_name = "SIZE", default_value = "100GiB", value_parser = parse_bytes, requires = "cache")]
    pub cache_size: u64,
}

/// `slidecast image nbd`
#[derive(Debug, Args)]
pub struct Nbd {
    /// The image.
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
    /// Where to listen: an address and a port (0 for any free one), or a Unix socket, which is made. The export is named "disk".
    #[arg(long, value_name = "HOST:PORT|unix:PATH", value_parser = Listen::from_str)]
    pub listen: Listen,
    /// Where layers of servers are kept.
    #[command(flatten)]
    pub kept: CacheFlags,
}

/// `slidecast image diff`
#[derive(Debug, Args)]
pub struct Diff {
    /// The image that disks hold.
    #[arg(value_parser = layer_path())]
    pub from: PathBuf,
    /// The image that they are to get.
    #[arg(value_parser = layer_path())]
    pub to: PathBuf,
    /// Print one JSON object, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast image flatten`
#[derive(Debug, Args)]
pub struct Flatten {
    /// The newest layer of the image.
    #[arg(value_parser = layer_path())]
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
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
    /// The image that the new layer builds on. Its grain and block size are kept.
    #[arg(long, value_name = "FILE.slide", value_parser = layer_path())]
    pub parent: PathBuf,
    /// The increment to write. It appears, or replaces one of this name, when it is complete.
    #[arg(short, long, value_name = "FILE.slide")]
    pub output: PathBuf,
    /// How blocks are compressed: zstd, zstd:LEVEL (1 to 19), lz4 or none.
    #[arg(long, value_name = "CODEC", default_value = "zstd:3", value_parser = Packing::from_str)]
    pub codec: Packing,
}

/// `slidecast image list`
#[derive(Debug, Args)]
pub struct ListImages {
    /// The folder, as s3://BUCKET/FOLDER/ or https://HOST/FOLDER/.
    #[arg(value_parser = layer_path())]
    pub url: PathBuf,
    /// Print one JSON list, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `slidecast image pull`
#[derive(Debug, Args)]
pub struct Pull {
    /// The newest layer, as https://HOST/PATH or s3://BUCKET/KEY. Its parents must lie beside it.
    #[arg(value_parser = layer_path())]
    pub url: PathBuf,
    /// The folder to put the layers into, under the names that they have on the server.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,
}

/// `slidecast image push`
#[derive(Debug, Args)]
pub struct Push {
    /// The newest layer. Its parents are sent, too, where they are not there yet.
    pub file: PathBuf,
    /// Where to, as s3://BUCKET/KEY, or s3://BUCKET/FOLDER/ under the name of the file.
    pub url: PathBuf,
}

/// `slidecast image stage`
#[derive(Debug, Args)]
pub struct Stage {
    /// The image, as https://HOST/PATH or s3://BUCKET/KEY.
    #[arg(value_parser = layer_path())]
    pub file: PathBuf,
    /// Which cache, that of a later `deploy` or `serve`.
    #[command(flatten)]
    pub kept: CacheFlags,
    /// Fetch no faster than this on average, such as 20M for 20 Mbit/s.
    #[arg(long, value_name = "RATE", value_parser = parse_mbits)]
    pub rate: Option<u32>,
    /// Fetch only at these hours of the day in the time zone of this machine, such as 22:00-06:00; wait until they begin.
    #[arg(long, value_name = "FROM-TO", value_parser = Hours::from_str)]
    pub hours: Option<Hours>,
}

/// `slidecast image gc`
#[derive(Debug, Args)]
pub struct CollectImages {
    /// The folder, as s3://BUCKET/FOLDER/.
    pub url: PathBuf,
    /// The newest layer of an image that is kept with all its parents, as its name in the folder. May be given several times.
    #[arg(long, value_name = "NAME.slide", required = true)]
    pub keep: Vec<String>,
    /// What has been there for less than this is kept, too.
    #[arg(long, value_name = "DUR", default_value = "168h", value_parser = parse_duration)]
    pub grace: Duration,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn what_is_secret_in_an_address_goes_no_further_than_the_command_line() {
        let signed = "https://user:pass@h/lab/monday.slide?X-Amz-Signature=5ec";
        for command in [
            &["deploy", signed, "--wait-for", "1"][..],
            &["image", "info", signed],
            &["image", "verify", signed],
            &["image", "export", signed, "out"],
            &["image", "nbd", signed, "--listen", "unix:s"],
            &["image", "diff", signed, "a.slide"],
            &["image", "diff", "a.slide", signed],
            &["image", "flatten", signed, "-o", "a.slide"],
            &["image", "rebase", "a.slide", "-o", "b.slide", "--parent", signed],
            &["image", "create", "disk", "-o", "b.slide", "--parent", signed],
            &["image", "pull", signed],
            &["image", "list", signed],
            &["image", "stage", signed, "--cache", "c"],
            &["serve", "--images", signed],
        ] {
            let cli = Cli::try_parse_from(["slidecast"].iter().chain(command)).unwrap();
            let all = format!("{cli:?}");
            assert!(
                all.contains("https://h/lab/monday.slide") && !all.contains("5ec") && !all.contains("pass"),
                "{all}"
            );
        }
    }
}
