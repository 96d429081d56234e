//! Raw images with a block map beside them.

use super::*;
use crate::testing::{run, tool};
use std::os::unix::fs::FileExt;

/// A raw image with holes, of an odd size, and its map.
fn made(folder: &Path) -> (PathBuf, Vec<u8>) {
    let content: Vec<u8> = disk(5 * 2048).into_iter().chain([9; 700]).collect();
    let path = folder.join("disk.img");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (at, piece) in (0..).step_by(4096).zip(content.chunks(4096)) {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, at).unwrap();
        }
    }
    file.sync_all().unwrap();
    let paths = [path.to_str().unwrap(), "-o"];
    run("bmaptool", ["create"].into_iter().chain(paths).chain([folder.join("disk.bmap").to_str().unwrap()]));
    (path, content)
}

#[test]
fn an_image_with_a_map_is_compared_with_its_checksums_packed_or_not() {
    let Some(_) = tool("bmaptool") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (path, content) = made(dir.path());
    let image = opened(&path).unwrap();
    assert_eq!(difference(&bytes_of(&*image).unwrap(), &content), "");
    assert!(image.notes().iter().any(|note| note.contains("checksums of")), "{:?}", image.notes());
    assert!(image.files().contains(&dir.path().join("disk.bmap")));
    run("gzip", ["-k", path.to_str().unwrap()]);
    let packed = opened(&dir.path().join("disk.img.gz")).unwrap();
    assert_eq!(difference(&bytes_of(&*packed).unwrap(), &content), "");
    assert!(packed.notes().iter().any(|note| note.contains("checksums of")));

    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"other", 3000).unwrap();
    let error = opened(&path).unwrap_err().to_string();
    assert!(error.contains("disk.bmap") && error.contains("another checksum at 0"), "{error}");
    assert!(open_as(&path, RAW).unwrap().notes().is_empty(), "as raw its bytes are imaged as they are");
    file.set_len(4096).unwrap();
    assert!(opened(&path).unwrap_err().to_string().contains("size of the image"));
}

#[test]
fn what_a_map_does_not_cover_is_zeros() {
    let Some(_) = tool("bmaptool") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (path, content) = made(dir.path());
    let hole = opened(&path).unwrap().next_data(0).unwrap().unwrap().end;
    std::fs::File::options().write(true).open(&path).unwrap().write_all_at(b"old", hole).unwrap();
    let image = opened(&path).unwrap();
    let mut all = vec![1; content.len()];
    image.read_at(0, &mut all).unwrap();
    assert_eq!(difference(&all, &content), "");
}

#[test]
fn a_map_that_is_cut_or_has_a_flipped_byte_is_refused() {
    let Some(_) = tool("bmaptool") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (path, content) = made(dir.path());
    let map = dir.path().join("disk.bmap");
    let text = std::fs::read(&map).unwrap();
    for len in (0..text.len()).step_by(64) {
        std::fs::write(&map, &text[..len]).unwrap();
        assert!(opened(&path).is_err(), "cut at {len}");
    }
    for at in (0..text.len()).step_by(7) {
        let mut flipped = text.clone();
        flipped[at] ^= 1;
        std::fs::write(&map, flipped).unwrap();
        if let Ok(image) = opened(&path) {
            assert_eq!(difference(&bytes_of(&*image).unwrap(), &content), "", "byte {at}");
        }
    }
}
