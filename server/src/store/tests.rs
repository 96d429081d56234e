//! Layers on a web server that lies, fails and cuts connections.

use super::client::Client;
use super::remote::Shared;
use super::transfer::pull_from;
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
    /// Everything is elsewhere, but where is not said.
    Elsewhere,
    /// A list never ends.
    Endless,
    /// Every request is refused with an S3 error.
    Skewed,
    /// The range that is answered begins a byte later.
    Shifted,
}

type Objects = HashMap<String, Vec<u8>>;

/// A web server with objects in memory, for as long as the test runs.
struct Server {
    address: String,
    sent: Arc<AtomicU64>,
}

impl Server {
    fn new(objects: Objects, wrong: Wrong) -> Self {
        Self::replacing(objects, wrong, (usize::MAX, Objects::new()))
    }

    /// A server that has other objects after so many requests.
    fn replacing(objects: Objects, wrong: Wrong, later: (usize, Objects)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sent, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, all) = (Arc::clone(&sent), Arc::new((objects, later)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, sent, requests) = (Arc::clone(&all), Arc::clone(&counted), Arc::clone(&requests));
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    while let Ok(true) = answer(&stream, &all, wrong, &sent, &requests) {}
                });
            }
        });
        Self { address, sent }
    }
}

/// Answers one request; `false` if the connection ends.
fn answer(
    mut stream: &TcpStream,
    (objects, (after, later)): &(Objects, (usize, Objects)),
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
    let objects = if number < *after { objects } else { later };
    let simple = |status: &str, more: &str, body: &str| {
        write!(&mut &*stream, "HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len()).map(|()| true)
    };
    if wrong == Wrong::Busy && number < 5 {
        return simple("503 Slow Down", "", "<Error><Code>SlowDown</Code></Error>");
    }
    if wrong == Wrong::Skewed {
        return simple("403 Forbidden", "", "<Error><Code>RequestTimeTooSkewed</Code></Error>");
    }
    if wrong == Wrong::Elsewhere {
        let said = "x-amz-bucket-region: eu-9\r\n".repeat(usize::from(path.starts_with("/s3")));
        return simple("301 Moved Permanently", &said, "<Error><Code>PermanentRedirect</Code></Error>");
    }
    if wrong == Wrong::Endless {
        let page = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Prefix></Prefix><Name>b</Name><MaxKeys>1</MaxKeys><KeyCount>0</KeyCount><IsTruncated>true</IsTruncated>\
                    <NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
        return simple("200 OK", "", page);
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
fn objects() -> (Objects, String) {
    with_change(2)
}

/// The same with another change in the newer layer.
fn with_change(change: u8) -> (Objects, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut disk = vec![0; 5 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut disk);
    std::fs::write(path("disk"), &disk).unwrap();
    create(&CreateOptions::new(&path("disk"), &path("a base.slide")), |_| ()).unwrap();
    disk[1 << 20..3 << 20].fill(1);
    disk[..1000].fill(change);
    std::fs::write(path("disk"), &disk).unwrap();
    let parent = Some(path("a base.slide"));
    let child = CreateOptions { parent, ..CreateOptions::new(&path("disk"), &path("child.slide")) };
    let root = create(&child, |_| ()).unwrap().root.to_string();
    let objects = [("/d/a%20base.slide", "a base.slide"), ("/d/child.slide", "child.slide")];
    (objects.map(|(at, name)| (at.to_owned(), std::fs::read(path(name)).unwrap())).into(), root)
}

fn stores() -> Stores {
    let client = Client::with(RootCerts::WebPki, Duration::from_millis(1));
    let stores = Stores::new();
    *stores.shared.lock().unwrap() = Some(Shared::new(client).unwrap());
    stores
}

/// Opens the image on a server that does `wrong`, and checks every byte of it.
fn checked(wrong: Wrong, folder: &str) -> (Result<String, String>, f64) {
    let (objects, root) = objects();
    let bytes: usize = objects.values().map(Vec::len).sum();
    let server = Server::new(objects, wrong);
    let path = PathBuf::from(format!("{}{folder}/child.slide", server.address));
    let image = Image::open_in(&stores(), &path);
    let result = image.and_then(|image| verify_image(&image, |_| ())).map_err(|error| one_line(&error));
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
        (Wrong::Elsewhere, "/d", "the server answers 301, PermanentRedirect: it is at another address"),
        (Wrong::Elsewhere, "/s3", "the bucket is in the region eu-9: set AWS_REGION"),
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
    let error = one_line(&error);
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
        let whole = |layer: u16| resolved.layer(layer).descriptor(0..resolved.layer(layer).bytes()).is_some();
        (server.sent.load(Ordering::Relaxed) - before, whole(0) && whole(1))
    };
    let (cold, whole) = read();
    assert!(cold <= bytes as u64 + (8 << 10) && whole, "{cold} for {bytes}");
    assert_eq!(read(), (8 << 10, true), "beginnings say which layers they are");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "slide") {
            // As after a loss of power before the last flush.
            std::fs::File::options().write(true).open(&path).unwrap().write_all_at(&[0; 9], 10_000).unwrap();
        }
    }
    let (again, whole) = read();
    assert!(again <= (2 << 20) + (8 << 10) && whole, "{again}");
}

#[test]
fn a_layer_of_which_only_the_beginning_was_wanted_takes_no_place_in_the_cache() {
    let (objects, _) = objects();
    let server = Server::new(objects, Wrong::Nothing);
    let dir = tempfile::tempdir().unwrap();
    let stores = stores();
    stores.keep_in(CacheFolder::new(dir.path(), 1 << 30).unwrap());
    let layer = stores.open(&PathBuf::from(format!("{}/d/a%20base.slide", server.address))).unwrap();
    let mut bytes = [0; 4096];
    layer.read_at(0, &mut bytes).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    layer.read_at(1, &mut bytes).unwrap();
    assert!(std::fs::read_dir(dir.path()).unwrap().count() > 0);
}

#[test]
fn what_is_signed_is_read_and_the_signature_is_not_told() {
    let (mut objects, root) = objects();
    let child = objects.remove("/d/child.slide").unwrap();
    objects.insert("/d/child.slide?X-Amz-Signature=5ec".to_owned(), child);
    for (wrong, good) in [(Wrong::Nothing, true), (Wrong::Replaced, false)] {
        let server = Server::new(objects.clone(), wrong);
        let stores = stores();
        let asked = format!("{}/d/child.slide?X-Amz-Signature=5ec", server.address);
        let path = stores.shown.hide(&PathBuf::from(asked));
        let image = Image::open_in(&stores, &path);
        let checked =
            image.and_then(|image| Ok((verify_image(&image, |_| ())?.root, slidecast_image::info_of(&image)?)));
        let said = match checked {
            Ok((found, info)) => {
                assert_eq!(found.to_string(), root);
                serde_json::to_string(&info).unwrap()
            }
            Err(error) => one_line(&error),
        };
        assert_eq!(said.contains("replaced"), !good, "{said}");
        assert!(said.contains("http://127.0.0.1:") && !said.contains("5ec"), "{said}");
    }
}

#[test]
fn what_writes_or_lists_is_not_sent_on_to_another_server() {
    let (objects, _) = objects();
    let server = Server::new(objects, Wrong::Moved);
    let client = Client::with(RootCerts::WebPki, Duration::from_millis(1));
    let url = || format!("{}/moved/d/child.slide", server.address);
    let outcomes = [
        client.put(url, b"x", true).map(drop),
        client.post(url, "", false).map(drop),
        client.delete(url),
        client.text(url).map(drop),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("302") && error.contains("not followed"), "{error}");
    }
    assert_eq!(server.sent.load(Ordering::Relaxed), 0);
}

#[test]
fn a_list_that_does_not_end_is_an_error_that_says_so() {
    let server = Server::new(HashMap::new(), Wrong::Endless);
    let folder = Object::at(&server.address, "s3://bucket/d/").unwrap();
    let error = stores().listed(&folder).unwrap_err().to_string();
    assert!(error.contains("more than 100 pages"), "{error}");
}

#[test]
fn what_is_pulled_is_the_image_that_was_opened_or_nothing() {
    let ((objects, root), (others, other)) = (objects(), with_change(3));
    // Nothing but the content tells that it is another one.
    assert_eq!(objects["/d/child.slide"].len(), others["/d/child.slide"].len());
    let mut seen = (false, false);
    for after in [0, 1, 2, 4, 8, 11, 14, 30] {
        let server = Server::replacing(objects.clone(), Wrong::Nothing, (after, others.clone()));
        let dir = tempfile::tempdir().unwrap();
        let url = PathBuf::from(format!("{}/d/child.slide", server.address));
        let pulled = pull_from(&stores(), &crate::cli::Pull { url, to: dir.path().to_owned() });
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        match pulled {
            Ok(_) => {
                let found = Image::open(&dir.path().join("child.slide")).unwrap().root().to_string();
                assert_eq!(found, if after == 0 { other.clone() } else { root.clone() }, "after {after}");
                seen.0 |= after > 0;
            }
            Err(error) => {
                assert_eq!(names, 0, "after {after}: {error:?}");
                seen.1 = true;
            }
        }
    }
    assert_eq!(seen, (true, true));
}
