//! A backing chain as a chain of layers: one for each file, the lowest first, each as an increment of the one below it. Of a file above the
//! lowest one only what it has itself is read, and what the layer below left out as unused.

use super::prepare::check_output;
use super::{CreateOptions, CreateProgress, CreateReport, create_on, opened};
use crate::error::ImageError;
use crate::source::DiskSource;
use std::path::{Path, PathBuf};

/// Makes a layer of the source, and of each file below it. The newest is the output of `options`; those below it are called
/// `NAME.layer0.slide` and so on, the base first, and lie beside it. Gives what was made, the base first.
///
/// No file that is there already is replaced but the output itself. Where a layer cannot be made, those below it are removed again.
///
/// # Errors
/// [`ImageError`] saying what could not be read or written, or what does not fit together.
pub fn create_layers(
    options: &CreateOptions,
    progress: impl Fn(CreateProgress),
) -> Result<Vec<(PathBuf, CreateReport)>, ImageError> {
    check_output(&options.output, core::slice::from_ref(&options.source))?;
    let source = opened(options, &progress)?;
    let mut chain: Vec<&dyn DiskSource> = vec![&*source];
    while let Some(below) = chain.last().and_then(|disk| disk.below()) {
        chain.push(below);
    }
    chain.reverse();
    let outputs: Vec<_> = (0..chain.len()).map(|index| name_of(&options.output, index, chain.len())).collect();
    for output in &outputs[..chain.len() - 1] {
        check_output(output, &source.files())?;
        if output.exists() {
            let what = "it would become a layer of the new image, and is there already; move it away";
            return Err(ImageError::Output { path: output.clone(), what });
        }
    }
    let mut made: Vec<(PathBuf, CreateReport)> = Vec::new();
    for (disk, output) in chain.into_iter().zip(outputs) {
        let mut options = CreateOptions { output: output.clone(), ..options.clone() };
        if let Some((below, _)) = made.last() {
            options = CreateOptions { parent: Some(below.clone()), grain: None, block: None, ..options };
        }
        match create_on(disk, !made.is_empty(), &options, &progress) {
            Ok(report) => made.push((output, report)),
            Err(error) => {
                made.iter().for_each(|(layer, _)| drop(std::fs::remove_file(layer)));
                return Err(error);
            }
        }
    }
    Ok(made)
}

/// The name of the layer `index` of `count`, of which the last one is `output`.
fn name_of(output: &Path, index: usize, count: usize) -> PathBuf {
    if index + 1 == count {
        return output.to_owned();
    }
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".slide").unwrap_or(&name);
    output.with_file_name(format!("{stem}.layer{index}.slide"))
}
