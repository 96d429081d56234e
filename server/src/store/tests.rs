//! Layers on a web server that lies, fails and cuts connections.

use super::client::Client;
use super::remote::Shared;
use super::*;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use slidecast_image::{CreateOptions, create, verify_image};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use ureq::tls::RootCerts;

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Every connection is cut after 64 KiB of a body.
    Cuts,
    /// The first five requests are refused with 503.
    Busy,
    /// Ranges are ignored.
    NoRanges,
    /// From the seventh request on another object is there.
    Replaced,
    /// `/moved/` leads to `/`.
    Moved,
    /// Every request is refused with an S3 error.
    Skewed,
    /// The range that is answered begins a byte later.
    Shifted,
}

/// A web server with objects in memory, for as long as the test runs.
struct Server {
    address: String,
    sent: Arc<AtomicU64>,
}

impl Server {
    fn new(objects: HashMap<String, Vec<u8>>, wrong: Wrong) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sent, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, objects) = (Arc::clone(&sent), Arc::new(objects));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (objects, sent, requests) = (Arc::clone(&objects), Arc::clone(&counted), Arc::clone(&requests));
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    while let Ok(true) = answer(&stream, &objects, wrong, &sent, &requests) {}
                });
            }
        });
        Self { address, sent }
    }
}

/// Answers one request; `false` if the connection ends.
fn answer(
    mut stream: &TcpStream,
    objects: &HashMap<String, Vec<u8>>,
    wrong: Wrong,
    sent: &AtomicU64,
    requests: &AtomicUsize,
) -> io::Result<bool> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(false) };
    let fields: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let field =
        |name: &str| fields.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let number = requests.fetch_add(1, Ordering::Relaxed);
    let simple = |status: &str, more: &str, body: &str| {
        write!(&mut &*stream, "HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len()).map(|()| true)
    };
    if wrong == Wrong::Busy && number < 5 {
        return simple("503 Slow Down", "", "<Error><Code>SlowDown</Code></Error>");
    }
    if wrong == Wrong::Skewed {
        return simple("403 Forbidden", "", "<Error><Code>RequestTimeTooSkewed</Code></Error>");
    }
    if let Some(rest) = path.strip_prefix("/moved").filter(|_| wrong == Wrong::Moved) {
        return simple("302 Found", &format!("location: {rest}\r\n"), "");
    }
    let Some(object) = objects.get(&path) else { return simple("404 Not Found", "", "") };
    let tag = if wrong == Wrong::Replaced && number >= 6 { "\"new\"" } else { "\"old\"" };
    if field("if-match: ").is_some_and(|wanted| wanted != tag) {
        return simple("412 Precondition Failed", "", "");
    }
    let range = field("range: bytes=").filter(|_| wrong != Wrong::NoRanges);
    let (start, end) = match range.as_deref().and_then(|range| range.split_once('-')) {
        Some((start, end)) => (start.parse().unwrap(), (end.parse::<usize>().unwrap() + 1).min(object.len())),
        None => (0, object.len()),
    };
    let (status, said) = match range {
        Some(_) => {
            let start = start + usize::from(wrong == Wrong::Shifted);
            ("206 Partial Content", format!("content-range: bytes {start}-{}/{}\r\n", end - 1, object.len()))
        }
        None => ("200 OK", String::new()),
    };
    let body = &object[start..end];
    write!(stream, "HTTP/1.1 {status}\r\n{said}etag: {tag}\r\ncontent-length: {}\r\n\r\n", body.len())?;
    let cut = if wrong == Wrong::Cuts { body.len().min(64 << 10) } else { body.len() };
    stream.write_all(&body[..cut])?;
    sent.fetch_add(cut as u64, Ordering::Relaxed);
    Ok(cut == body.len())
}

/// An image of two layers, 5 MiB that do not pack, and its root.
fn objects() -> (HashMap<String, Vec<u8>>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut disk = vec![0; 5 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut disk);
    std::fs::write(path("disk"), &disk).unwrap();
    create(&CreateOptions::new(&path("disk"), &path("a base.slide")), |_| ()).unwrap();
    disk[1 << 20..3 << 20].fill(1);
    disk[..1000].fill(2);
    std::fs::write(path("disk"), &disk).unwrap();
    let parent = Some(path("a base.slide"));
    let child = CreateOptions { parent, ..CreateOptions::new(&path("disk"), &path("child.slide")) };
    let root = create(&child, |_| ()).unwrap().root.to_string();
    let objects = [("/d/a%20base.slide", "a base.slide"), ("/d/child.slide", "child.slide")];
    (objects.map(|(at, name)| (at.to_owned(), std::fs::read(path(name)).unwrap())).into(), root)
}

fn stores() -> Stores {
    let client = Client::with(RootCerts::WebPki, Duration::from_millis(1));
    Stores { shared: Mutex::new(Some(Shared::new(client).unwrap())), cache: Mutex::new(None) }
}

/// Opens the image on a server that does `wrong`, and checks every byte of it.
fn checked(wrong: Wrong, folder: &str) -> (Result<String, String>, f64) {
    let (objects, root) = objects();
    let bytes: usize = objects.values().map(Vec::len).sum();
    let server = Server::new(objects, wrong);
    let path = PathBuf::from(format!("{}{folder}/child.slide", server.address));
    let image = Image::open_in(&stores(), &path);
    let result =
        image.and_then(|image| verify_image(&image, |_| ())).map_err(|error| slidecast_net::text::one_line(&error));
    if let Ok(report) = &result {
        assert_eq!(report.root.to_string(), root);
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = server.sent.load(Ordering::Relaxed) as f64 / bytes as f64;
    (result.map(|report| report.root.to_string()), ratio)
}

#[test]
fn an_image_on_a_web_server_is_read_once_with_the_parent_beside_it() {
    let (result, ratio) = checked(Wrong::Nothing, "/d");
    result.unwrap();
    assert!(ratio <= 1.01, "{ratio}");
}

#[test]
fn cut_connections_busy_servers_and_redirects_are_got_over() {
    for (wrong, folder) in [(Wrong::Cuts, "/d"), (Wrong::Busy, "/d"), (Wrong::Moved, "/moved/d")] {
        let (result, ratio) = checked(wrong, folder);
        assert!(result.is_ok() && ratio <= 1.01, "{wrong:?}: {result:?}, {ratio}");
    }
}

#[test]
fn a_server_that_lies_is_named_and_no_wrong_byte_is_taken() {
    for (wrong, folder, said) in [
        (Wrong::NoRanges, "/d", "ignores ranges"),
        (Wrong::Replaced, "/d", "was replaced while it was read"),
        (Wrong::Skewed, "/d", "the clock of this machine is wrong"),
        (Wrong::Shifted, "/d", "another range than it was asked for"),
        (Wrong::Nothing, "/nowhere", "there is no such object"),
    ] {
        let (result, _) = checked(wrong, folder);
        let error = result.unwrap_err();
        assert!(error.contains(said) && error.contains("http://127.0.0.1:"), "{wrong:?}: {error}");
    }
}

#[test]
fn a_server_that_is_not_there_is_given_up() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Image::open_in(&stores(), &PathBuf::from(format!("http://{closed}/a.slide"))).unwrap_err();
    let error = slidecast_net::text::one_line(&error);
    assert!(error.contains("given up after 8 tries"), "{error}");
}

#[test]
fn with_a_cache_the_second_reading_fetches_next_to_nothing_and_damage_in_it_is_got_over() {
    use std::os::unix::fs::FileExt;
    let (objects, root) = objects();
    let bytes: usize = objects.values().map(Vec::len).sum();
    let server = Server::new(objects, Wrong::Nothing);
    let dir = tempfile::tempdir().unwrap();
    let path = PathBuf::from(format!("{}/d/child.slide", server.address));
    let read = || {
        let stores = stores();
        stores.keep_in(CacheFolder::new(dir.path(), 1 << 30).unwrap());
        let before = server.sent.load(Ordering::Relaxed);
        let image = Image::open_in(&stores, &path).unwrap();
        assert_eq!(verify_image(&image, |_| ()).unwrap().root.to_string(), root);
        let resolved = image.resolve().unwrap();
        (server.sent.load(Ordering::Relaxed) - before, resolved.layer(0).descriptor().is_some())
    };
    let (cold, whole) = read();
    assert!(cold <= bytes as u64 + (16 << 10) && whole, "{cold} for {bytes}");
    assert_eq!(read(), (12 << 10, true), "beginnings say which layers they are; that of a parent is asked for twice");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        if path.extension().unwrap() == "map" {
            // As after a loss of power before the last flush.
            file.write_all_at(&[0], 16).unwrap();
        } else {
            file.write_all_at(&[0; 9], 10_000).unwrap();
        }
    }
    let (again, whole) = read();
    assert!(again <= (2 << 20) + (8 << 10) && whole, "{again}");
}
