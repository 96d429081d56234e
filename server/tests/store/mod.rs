//! `slidecast deploy` of an image that lies on a web server.
#![expect(clippy::unwrap_used, reason = "what fails in a test should stop it")]

use crate::support::{Agent, Sandbox};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A web server that answers ranges of the files in a folder and has a list of them, for as long as the test runs.
pub(crate) struct Web {
    pub(crate) address: String,
    /// How many bytes of files it has sent.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Web {
    pub(crate) fn new(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (folder, sent) = (folder.to_owned(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&sent);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (folder, sent) = (folder.clone(), Arc::clone(&counted));
                std::thread::spawn(move || while let Ok(true) = answer(stream.as_ref().unwrap(), &folder, &sent) {});
            }
        });
        Self { address, sent }
    }
}

/// Answers one request; `false` once the client has left.
fn answer(mut stream: &TcpStream, folder: &Path, sent: &AtomicU64) -> io::Result<bool> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(false) };
    let fields: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let name = first.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    if name.is_empty() {
        let names = std::fs::read_dir(folder)?.flatten().map(|entry| entry.file_name().into_string().unwrap());
        let page: String = names.map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
        return write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len()).map(|()| true);
    }
    let Ok(bytes) = std::fs::read(folder.join(name)) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").map(|()| true);
    };
    let range = fields.iter().find_map(|line| line.strip_prefix("range: bytes=")).unwrap();
    let (start, last) = range.split_once('-').unwrap();
    let (start, last) = (start.parse::<usize>().unwrap(), last.parse::<usize>().unwrap().min(bytes.len() - 1));
    let (len, all) = (last + 1 - start, bytes.len());
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\netag: \"{all}\"\r\ncontent-range: bytes {start}-{last}/{all}\r\ncontent-length: {len}\r\n\r\n"
    )?;
    stream.write_all(&bytes[start..=last])?;
    sent.fetch_add(len as u64, Ordering::Relaxed);
    Ok(true)
}

#[test]
fn an_image_on_a_web_server_is_deployed_and_the_next_time_it_comes_from_the_cache() {
    let mut sandbox = Sandbox::new();
    let web = Web::new(sandbox.dir.path());
    let bytes = std::fs::metadata(&sandbox.image).unwrap().len();
    sandbox.image = PathBuf::from(format!("{}/base.slide", web.address));
    let cache = sandbox.path("cache");
    let mut fetched = 0;
    for most in [bytes + (8 << 10), 8 << 10] {
        let server = sandbox.deploy(&["--wait-for", "1", "--cache", cache.to_str().unwrap(), "--cache-size", "1GiB"]);
        let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
        let (prepare, join) = agent.join();
        let received = agent.receive(&prepare, &join, u32::MAX).unwrap();
        assert!(received.blocks.is_full());
        agent.finish();
        drop(agent);
        let (code, out, err) = server.end();
        assert_eq!(code, 0, "{out}{err}");
        let now = web.sent.load(Ordering::Relaxed);
        assert!(now - fetched <= most, "{} of {most} bytes", now - fetched);
        fetched = now;
    }
}

#[test]
fn an_image_that_was_staged_is_deployed_without_being_fetched_again() {
    let mut sandbox = Sandbox::new();
    let web = Web::new(sandbox.dir.path());
    let bytes = std::fs::metadata(&sandbox.image).unwrap().len();
    sandbox.image = PathBuf::from(format!("{}/base.slide", web.address));
    let cache = sandbox.path("cache");
    let stage = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.args(["image", "stage"]).arg(&sandbox.image).arg("--cache").arg(&cache).args(more);
        let output = command.env_remove("XDG_CONFIG_HOME").env("HOME", sandbox.path("")).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = stage(&["--cache-size", "8KiB"]);
    assert!(code == Some(1) && said.contains("the cache does not take it"), "{said}");
    web.sent.store(0, Ordering::Relaxed);
    let (code, said) = stage(&["--rate", "10G"]);
    assert!(code == Some(0) && said.contains("1 layer in the cache and good"), "{said}");
    assert!((bytes..bytes + (16 << 10)).contains(&web.sent.swap(0, Ordering::Relaxed)));
    let (code, said) = stage(&[]);
    assert!(code == Some(0) && said.contains(" 0 B fetched"), "{said}");
    let server = sandbox.deploy(&["--wait-for", "1", "--cache", cache.to_str().unwrap()]);
    let mut agent = Agent::connect(sandbox.port, Some(sandbox.server_key())).unwrap();
    let (prepare, join) = agent.join();
    assert!(agent.receive(&prepare, &join, u32::MAX).unwrap().blocks.is_full());
    agent.finish();
    drop(agent);
    assert_eq!(server.end().0, 0);
    assert!(web.sent.load(Ordering::Relaxed) <= 20 << 10);
}
