//! A disk becomes an image, changes a little, becomes an increment, and comes back from both layers as it was last.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use slidecast_image::{CreateOptions, ExportOptions, Image, create, export, verify};
use std::error::Error;
use std::os::unix::fs::FileExt;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("slidecast-layers-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = run(&folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn run(folder: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let [disk, base, monday, copy] = ["disk", "base.slide", "monday.slide", "copy"].map(|name| folder.join(name));

    // 8 MiB, of which 1 MiB is text and the rest a hole.
    let file = std::fs::File::create(&disk)?;
    file.set_len(8 << 20)?;
    let text: Vec<u8> = (0..1_u32 << 17).flat_map(|line| format!("{line:07x}\n").into_bytes()).collect();
    file.write_all_at(&text, 1 << 20)?;
    let report = create(&CreateOptions::new(&disk, &base), |_| ())?;
    println!("base:   layer {}, {} bytes in the file", report.layer, std::fs::metadata(&base)?.len());

    // Only what changed is in the increment, also where it is a copy of what the base has.
    file.write_all_at(&text[..64 << 10], 6 << 20)?;
    file.write_all_at(b"monday", 1 << 20)?;
    let parent = Some(base.clone());
    let report = create(&CreateOptions { parent, ..CreateOptions::new(&disk, &monday) }, |_| ())?;
    println!("monday: layer {}, {} bytes in the file", report.layer, std::fs::metadata(&monday)?.len());

    verify(&monday, |_| ())?;
    let image = Image::open(&monday)?.resolve()?;
    let header = image.header();
    println!("image:  root {}, {} blocks, of which {} are stored", image.root(), header.blocks, header.stored_blocks);

    export(&ExportOptions { image: monday, to: copy.clone(), verify: None }, |_| ())?;
    assert_eq!(std::fs::read(&disk)?, std::fs::read(&copy)?);
    println!("export: the same bytes as the disk");
    Ok(())
}
