//! `slidecast image ...`: the image crate with words and a progress line.

use crate::cli::{Create, Export, ImageCommand, Info, LookCommand, ReadBack, VerifyImage};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::layers;
use crate::nbd;
use crate::say;
use crate::shown::{count, shown};
use crate::store::{self, STORES, gc, stage, transfer};
use indicatif::{ProgressBar, ProgressStyle};
use slidecast_image::source::describe;
use slidecast_image::{CreateOptions, CreateProgress, CreateReport, ExportOptions, ImageError};
use slidecast_image::{create, create_layers, export_image, info_of, verify_image};
use slidecast_proto::quantity::Bytes;
use std::fmt;
use std::path::{Path, PathBuf};

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        if error.is_usage() { Self::usage(error) } else { Self::not_done(error) }
    }
}

/// Runs one of the commands.
///
/// # Errors
/// What the image crate says, as a [`Failure`].
pub fn run(command: ImageCommand) -> Result<ExitCode, Failure> {
    match command {
        ImageCommand::Create(args) => run_create(args),
        ImageCommand::Info(args) => run_info(&args),
        ImageCommand::Verify(args) => run_verify(&args),
        ImageCommand::Export(args) => run_export(args),
        ImageCommand::Look(command) => look(command),
    }
}

/// Runs one of the commands that make no image of a disk.
fn look(command: LookCommand) -> Result<ExitCode, Failure> {
    match command {
        LookCommand::Nbd(args) => nbd::run(&args),
        LookCommand::Diff(args) => layers::diff(&args),
        LookCommand::Flatten(args) => layers::flatten(args),
        LookCommand::Rebase(args) => layers::rebase(args),
        LookCommand::List(args) => transfer::list(&args),
        LookCommand::Pull(args) => transfer::pull(&args),
        LookCommand::Push(args) => transfer::push(&args),
        LookCommand::Stage(args) => stage::run(&args),
        LookCommand::Gc(args) => gc::run(&args),
    }
}

/// A progress line on standard error; where that is no terminal, none.
pub(crate) fn bar(what: &str) -> ProgressBar {
    const TEMPLATE: &str = "{msg} [{wide_bar}] {percent:>3} %  {bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template is fixed and good").progress_chars("=> ");
    ProgressBar::new(0).with_style(style).with_message(what.to_owned())
}

/// Moves the line; images may grow while one looks.
pub(crate) fn advance(bar: &ProgressBar, done: u64, all: u64) {
    if bar.length() != Some(all) {
        bar.set_length(all);
    }
    bar.set_position(done);
}

fn run_create(args: Create) -> Result<ExitCode, Failure> {
    let Create { source, output, parent, block_size, grain, codec, dedup_run, sector, .. } = args;
    let Create { format, snapshot, table, partition, disk, layers, allow_changes, .. } = args;
    let reading = bar("creating");
    let options = CreateOptions {
        parent,
        block: block_size,
        grain,
        codec,
        dedup_run,
        sector,
        format,
        snapshot,
        table,
        partition,
        disk,
        allow_changes,
        store: &STORES,
        ..CreateOptions::new(&source, &output)
    };
    let preparing = bar("preparing");
    let show = |progress| match progress {
        CreateProgress::Preparing { done_bytes, all_bytes } => advance(&preparing, done_bytes, all_bytes),
        CreateProgress::Reading { done_bytes, disk_bytes, .. } => {
            if !preparing.is_finished() {
                preparing.finish_and_clear();
            }
            advance(&reading, done_bytes, disk_bytes);
        }
    };
    let made = if layers {
        create_layers(&options, show)
    } else {
        create(&options, show).map(|made| vec![(output.clone(), made)])
    };
    preparing.finish_and_clear();
    reading.finish_and_clear();
    for (output, made) in made? {
        tell(&output, &made);
    }
    Ok(ExitCode::Done)
}

/// What became of one layer.
pub(crate) fn tell(output: &Path, made: &CreateReport) {
    for note in &made.notes {
        crate::complain(&format!("note: {}", shown(note)));
    }
    let (name, of_disk) = (output.display(), Bytes(made.disk_bytes));
    say(&format!("{name}: layer {} of a disk of {of_disk}; manifest root {}", made.layer, made.root));
    let [unused, fills, repeated, parents] =
        [made.unused_bytes, made.fill_bytes, made.repeated_bytes, made.absent_bytes].map(Bytes);
    say(&format!("{name}: {unused} unused, {fills} fills, {repeated} repeated, {parents} in its parents"));
    let (new, stored, file) = (Bytes(made.new_bytes), Bytes(made.stored_bytes), Bytes(made.file_bytes));
    let (blocks, block) = (count(made.blocks as usize, "block"), Bytes(made.block.into()));
    say(&format!("{name}: {new} new in {blocks} of at most {block}, stored in {stored}; the file has {file}"));
}

/// A file of which nothing can be told.
#[derive(Debug)]
struct UnknownFormat(PathBuf);

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.display();
        write!(
            f,
            "{path}: not a SlideCast image, and its content shows no other format: image create takes it for a raw disk"
        )
    }
}

impl std::error::Error for UnknownFormat {}

fn run_info(args: &Info) -> Result<ExitCode, Failure> {
    let found = if args.file.is_dir() {
        Err(ImageError::NotAnImage { path: args.file.clone() })
    } else {
        store::open(&args.file).and_then(|image| info_of(&image))
    };
    let (text, json) = match found {
        Err(ImageError::NotAnImage { path }) if path == args.file && !store::is_remote(&path) => match describe(&path)?
        {
            Some(info) => (info.to_string(), serde_json::to_string_pretty(&info)),
            None => return Err(Failure::not_done(UnknownFormat(path))),
        },
        info => info.map(|info| (info.to_string(), serde_json::to_string_pretty(&info)))?,
    };
    if args.json {
        say(&json.expect("it has only numbers, texts and lists"));
    } else {
        // Names of partitions come from the disk and may hold anything.
        text.lines().for_each(|line| say(&shown(line)));
    }
    Ok(ExitCode::Done)
}

fn run_verify(args: &VerifyImage) -> Result<ExitCode, Failure> {
    let bar = bar("verifying");
    let image = store::open(&args.file)?;
    let checked = verify_image(&image, |progress| advance(&bar, progress.done_bytes, progress.stored_bytes));
    bar.finish_and_clear();
    let checked = checked?;
    let (layers, blocks) = (count(checked.layers as usize, "layer"), count(checked.blocks as usize, "block"));
    let (name, stored) = (args.file.display(), Bytes(checked.stored_bytes));
    say(&format!("{name}: good: {layers}, {blocks}, {stored}; manifest root {}", checked.root));
    Ok(ExitCode::Done)
}

fn run_export(args: Export) -> Result<ExitCode, Failure> {
    let bar = bar("exporting");
    let Export { file, dest, verify } = args;
    let verify = verify.map(|verify| verify == ReadBack::Full);
    let options = ExportOptions { image: file, to: dest, verify };
    let image = store::open(&options.image)?;
    let written = export_image(&image, &options, |progress| advance(&bar, progress.done_bytes, progress.raw_bytes));
    bar.finish_and_clear();
    let written = written?;
    for note in &written.notes {
        crate::complain(&format!("warn: {}", shown(note)));
    }
    let (used, disk) = (Bytes(written.raw_bytes), Bytes(written.disk_bytes));
    let how = if written.verified { "written and read back" } else { "written" };
    say(&format!("{}: {used} of a disk of {disk} {how}; manifest root {}", options.to.display(), written.root));
    Ok(ExitCode::Done)
}
