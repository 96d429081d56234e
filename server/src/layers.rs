//! `slidecast image diff`, `flatten` and `rebase`: what differs between images, and a disk in other layers.

use crate::cli::{Diff, Flatten, Rebase};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::image::{advance, bar, tell};
use crate::say;
use crate::shown::shown;
use crate::store::{self, STORES};
use slidecast_image::disk::ImageDisk;
use slidecast_image::{CreateOptions, CreateProgress, Image, create_from};

/// Shows what a deployment of one image sends to disks that hold another.
///
/// # Errors
/// What the image crate says, as a [`Failure`].
pub fn diff(args: &Diff) -> Result<ExitCode, Failure> {
    let report = slidecast_image::diff::diff(&store::open(&args.from)?, &store::open(&args.to)?)?;
    if args.json {
        say(&serde_json::to_string_pretty(&report).expect("it has only numbers, texts and lists"));
    } else {
        // Names of partitions come from the disk and may hold anything.
        report.to_string().lines().for_each(|line| say(&shown(line)));
    }
    Ok(ExitCode::Done)
}

/// Makes one layer of a chain.
///
/// # Errors
/// What the image crate says, as a [`Failure`].
pub fn flatten(args: Flatten) -> Result<ExitCode, Failure> {
    let image = store::open(&args.file)?;
    let (grain, block) = (image.header().grain, image.header().block);
    let codec = args.codec;
    let options =
        CreateOptions { codec, grain: Some(grain), block: Some(block), ..CreateOptions::new(&args.file, &args.output) };
    made_again(&image, &options)
}

/// Makes an increment of another parent.
///
/// # Errors
/// What the image crate says, as a [`Failure`].
pub fn rebase(args: Rebase) -> Result<ExitCode, Failure> {
    let image = store::open(&args.file)?;
    let parent = Some(args.parent);
    let options =
        CreateOptions { parent, codec: args.codec, store: &STORES, ..CreateOptions::new(&args.file, &args.output) };
    made_again(&image, &options)
}

fn made_again(image: &Image, options: &CreateOptions) -> Result<ExitCode, Failure> {
    let reading = bar("creating");
    let made = create_from(&ImageDisk::new(image)?, options, |progress| {
        if let CreateProgress::Reading { done_bytes, disk_bytes, .. } = progress {
            advance(&reading, done_bytes, disk_bytes);
        }
    });
    reading.finish_and_clear();
    tell(&options.output, &made?);
    Ok(ExitCode::Done)
}
