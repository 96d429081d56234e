//! A bucket in memory, to which layers are pushed, and from which they are removed.

use super::client::Client;
use super::gc::collect;
use super::push::{LEAST_PART, Pushed, heeds_conditions};
use super::remote::Shared;
use super::s3::Object;
use super::*;
use crate::cli::CollectImages;
use core::time::Duration;
use slidecast_image::{CreateOptions, create};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use ureq::tls::RootCerts;

const XMLNS: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

#[derive(Default)]
struct Bucket {
    /// Objects by their path in the address.
    objects: BTreeMap<String, Vec<u8>>,
    /// The parts of the one upload that there can be.
    parts: Option<BTreeMap<u16, Vec<u8>>>,
    /// Conditions are ignored.
    careless: bool,
    /// How many parts are taken before the credentials are refused.
    takes: Option<usize>,
    /// How many bytes of parts were sent.
    sent: usize,
}

fn serve(bucket: &Arc<Mutex<Bucket>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let bucket = Arc::clone(bucket);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let bucket = Arc::clone(&bucket);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Ok(true) = answer(&mut stream, &bucket) {}
            });
        }
    });
    address
}

/// Answers one request; `false` once the client has left.
fn answer(stream: &mut BufReader<TcpStream>, bucket: &Mutex<Bucket>) -> io::Result<bool> {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut fields = Vec::new();
    loop {
        let field = line()?.to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        fields.push(field);
    }
    let Some((method, target)) = first.split_once(' ') else { return Ok(false) };
    let field = |name: &str| fields.iter().find_map(|field| field.strip_prefix(name));
    let len = field("content-length: ").map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let (path, query) =
        target.split(' ').next().unwrap().split_once('?').unwrap_or((target.split(' ').next().unwrap(), ""));
    let range = field("range: bytes=").and_then(|range| range.split_once('-'));
    let (status, tag, more, body) =
        bucket.lock().unwrap().answer(method, (path, query), field("if-none-match").is_some(), range, body);
    let mut stream = stream.get_ref();
    write!(stream, "HTTP/1.1 {status} X\r\netag: \"{tag}\"\r\n{more}content-length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)?;
    Ok(true)
}

impl Bucket {
    fn answer(
        &mut self,
        method: &str,
        (path, query): (&str, &str),
        only_new: bool,
        range: Option<(&str, &str)>,
        body: Vec<u8>,
    ) -> (u16, String, String, Vec<u8>) {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        let plain = |status: u16, body: String| (status, "t".to_owned(), String::new(), body.into_bytes());
        match (method, value("partNumber="), value("uploadId=")) {
            ("POST", _, None) => {
                self.parts = Some(BTreeMap::new());
                plain(
                    200,
                    format!(
                        "<InitiateMultipartUploadResult {XMLNS}><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                    ),
                )
            }
            ("PUT", Some(number), _) => {
                if self.takes == Some(0) {
                    return plain(403, "<Error><Code>ExpiredToken</Code></Error>".to_owned());
                }
                self.takes = self.takes.map(|takes| takes - 1);
                self.sent += body.len();
                self.parts.as_mut().unwrap().insert(number.parse().unwrap(), body);
                plain(200, String::new())
            }
            ("GET", _, Some(_)) => match &self.parts {
                None => plain(404, "<Error><Code>NoSuchUpload</Code></Error>".to_owned()),
                Some(parts) => {
                    let row = |(number, part): (&u16, &Vec<u8>)| {
                        let (bytes, now) = (part.len(), "2026-01-01T00:00:00Z");
                        format!(
                            "<Part><PartNumber>{number}</PartNumber><LastModified>{now}</LastModified><ETag>\"t\"</ETag><Size>{bytes}</Size></Part>"
                        )
                    };
                    let rows: String = parts.iter().map(row).collect();
                    plain(
                        200,
                        format!(
                            "<ListPartsResult {XMLNS}><UploadId>u</UploadId><MaxParts>1000</MaxParts><IsTruncated>false</IsTruncated>{rows}</ListPartsResult>"
                        ),
                    )
                }
            },
            ("POST", _, Some(_)) => {
                let whole = self.parts.take().unwrap().into_values().flatten().collect();
                self.objects.insert(path.to_owned(), whole);
                plain(200, "<CompleteMultipartUploadResult/>".to_owned())
            }
            ("DELETE", _, Some(_)) => {
                self.parts = None;
                plain(204, String::new())
            }
            ("PUT", None, _) if only_new && !self.careless && self.objects.contains_key(path) => {
                plain(412, String::new())
            }
            ("PUT", None, _) => {
                self.objects.insert(path.to_owned(), body);
                plain(200, String::new())
            }
            ("DELETE", ..) => {
                self.objects.remove(path);
                plain(204, String::new())
            }
            ("GET", ..) if query.contains("list-type=2") => {
                let row = |(path, object): (&String, &Vec<u8>)| {
                    let (key, bytes) = (path.trim_start_matches("/b/"), object.len());
                    format!(
                        "<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>{bytes}</Size></Contents>"
                    )
                };
                let rows: String = self.objects.iter().map(row).collect();
                plain(
                    200,
                    format!(
                        "<ListBucketResult {XMLNS}><MaxKeys>9</MaxKeys><KeyCount>9</KeyCount><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
                    ),
                )
            }
            _ => match (self.objects.get(path), range) {
                (Some(object), Some((start, last))) => {
                    let (start, all) = (start.parse::<usize>().unwrap(), object.len());
                    let end = (last.parse::<usize>().unwrap() + 1).min(all);
                    let said = format!("content-range: bytes {start}-{}/{all}\r\n", end - 1);
                    (206, "t".to_owned(), said, object[start..end].to_vec())
                }
                _ => plain(404, String::new()),
            },
        }
    }
}

fn client() -> Client {
    Client::with(RootCerts::WebPki, Duration::from_millis(1))
}

#[test]
fn a_push_that_was_interrupted_goes_on_with_the_parts_that_are_there() {
    let bucket = Arc::new(Mutex::new(Bucket { takes: Some(1), ..Bucket::default() }));
    let object = Object::at(&serve(&bucket), "s3://b/d/a.slide").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..LEAST_PART * 2 + 1000).map(|at| at.to_le_bytes()[1]).collect();
    std::fs::write(dir.path().join("a.slide"), &content).unwrap();
    let (client, file, note) = (client(), File::open(dir.path().join("a.slide")).unwrap(), dir.path().join("note"));
    let told = Mutex::new(0);
    let push = || {
        let pushed =
            Pushed { client: &client, object: &object, file: &file, bytes: content.len() as u64, note: Some(&note) };
        *told.lock().unwrap() = 0;
        pushed.send(&|bytes| *told.lock().unwrap() += bytes)
    };
    let error = push().unwrap_err();
    assert!(error.to_string().contains("the credentials have expired") && note.exists(), "{error}");
    assert_eq!(bucket.lock().unwrap().parts.as_ref().unwrap().len(), 1);
    bucket.lock().unwrap().takes = None;
    push().unwrap();
    assert!(!note.exists() && *told.lock().unwrap() == content.len() as u64);
    let mut found = bucket.lock().unwrap();
    assert!(found.objects["/b/d/a.slide"] == content);
    assert_eq!(found.sent, content.len(), "no part was sent twice");
    // The server has forgotten an upload: it is begun anew.
    (found.sent, found.takes) = (0, Some(2));
    drop(found);
    push().unwrap_err();
    let mut found = bucket.lock().unwrap();
    (found.parts, found.takes, found.sent) = (None, None, 0);
    drop(found);
    push().unwrap();
    assert_eq!(bucket.lock().unwrap().sent, content.len());
}

#[test]
fn a_server_that_ignores_conditions_is_found_out_and_nothing_is_left_there() {
    for careless in [false, true] {
        let bucket = Arc::new(Mutex::new(Bucket { careless, ..Bucket::default() }));
        let object = Object::at(&serve(&bucket), "s3://b/d/a.slide").unwrap();
        assert_eq!(heeds_conditions(&client(), &object).unwrap(), !careless);
        assert!(bucket.lock().unwrap().objects.is_empty());
    }
}

#[test]
fn what_no_kept_image_is_made_of_is_removed_from_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut objects = BTreeMap::new();
    for (name, parent) in [("base", None), ("monday", Some("base")), ("tuesday", Some("base")), ("other", None)] {
        std::fs::write(path("disk"), name.repeat(1 << 18)).unwrap();
        let parent = parent.map(|parent| path(&format!("{parent}.slide")));
        let output = path(&format!("{name}.slide"));
        create(&CreateOptions { parent, ..CreateOptions::new(&path("disk"), &output) }, |_| ()).unwrap();
        objects.insert(format!("/b/d/{name}.slide"), std::fs::read(output).unwrap());
    }
    objects.insert("/b/d/broken.slide".to_owned(), vec![7; 9000]);
    objects.insert("/b/d/readme.txt".to_owned(), b"not ours".to_vec());
    let bucket = Arc::new(Mutex::new(Bucket { objects, ..Bucket::default() }));
    let folder = Object::at(&serve(&bucket), "s3://b/d/-").unwrap();
    let stores = Stores::new();
    *stores.shared.lock().unwrap() = Some(Shared::new(client()).unwrap());
    let collect = |keep: &str, grace: u64, dry_run| {
        let (url, keep, grace) = (PathBuf::from("s3://b/d/"), vec![keep.to_owned()], Duration::from_secs(grace));
        collect(&stores, &folder, &CollectImages { url, keep, grace, dry_run }).is_ok()
    };
    let names = || {
        let bucket = bucket.lock().unwrap();
        bucket.objects.keys().map(|path| path.trim_start_matches("/b/d/").to_owned()).collect::<Vec<_>>()
    };
    let all = names();
    assert!(!collect("no.slide", 0, false) && names() == all, "a name that is wrong keeps nothing and removes nothing");
    assert!(collect("monday.slide", 0, true) && names() == all);
    assert!(collect("monday.slide", u64::MAX, false) && names() == all, "all are young");
    assert!(collect("monday.slide", 3600, false));
    assert_eq!(names(), ["base.slide", "broken.slide", "monday.slide", "readme.txt"]);
}
