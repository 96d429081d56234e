//! `slidecast image nbd` with the programs that people use on it, and with a client that keeps to no rules.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails in a test should stop it, and a test that is none says so"
)]

use slidecast_image::{CreateOptions, ExportOptions, create, export};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A disk of 40 MiB with a GPT, as an image of two layers, and what `image export` makes of it.
struct Sample {
    dir: tempfile::TempDir,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let disk = std::fs::File::create(path("disk")).unwrap();
        disk.set_len(40 << 20).unwrap();
        match Command::new("sgdisk").args(["-n1:2048:+30M", "-n2:0:0"]).arg(path("disk")).output() {
            Ok(table) => assert!(table.status.success(), "{}", String::from_utf8_lossy(&table.stderr)),
            Err(_) => {
                println!("SKIPPED: sgdisk is not installed (./check.sh installs it): the disk has no partition table")
            }
        }
        let mut noise = vec![0; 9 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        disk.write_all_at(&noise, 2 << 20).unwrap();
        disk.write_all_at(&b"textual ".repeat(1 << 17), 20 << 20).unwrap();
        create(&CreateOptions::new(&path("disk"), &path("base.slide")), |_| ()).unwrap();
        disk.write_all_at(b"tuesday", (3 << 20) + 1000).unwrap();
        disk.write_all_at(&noise[..1 << 20], 25 << 20).unwrap();
        let parent = Some(path("base.slide"));
        let child = CreateOptions { parent, ..CreateOptions::new(&path("disk"), &path("child.slide")) };
        create(&child, |_| ()).unwrap();
        let options = ExportOptions { image: path("child.slide"), to: path("export.raw"), verify: None };
        export(&options, |_| ()).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serve(&self, listen: &str) -> Served {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.args(["image", "nbd"]).arg(self.path("child.slide")).args(["--listen", listen]);
        command.env_remove("XDG_CONFIG_HOME").env("HOME", self.dir.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (_, uri) = line.trim().rsplit_once(" at ").unwrap();
        Served { child, uri: uri.to_owned() }
    }
}

struct Served {
    child: Child,
    uri: String,
}

impl Served {
    /// Ends it as an operator does.
    fn end(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program says, and whether it succeeded; `None` if it is not installed.
fn says(program: &str, args: &[&str]) -> Option<(bool, String)> {
    let Ok(output) = Command::new(program).args(args).output() else {
        println!("SKIPPED: {program} is not installed (./check.sh installs it)");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), said.into_owned()))
}

fn good(program: &str, args: &[&str]) -> Option<String> {
    let (good, said) = says(program, args)?;
    assert!(good, "{program} {args:?}: {said}");
    Some(said)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn programs_read_the_disk_that_export_writes() {
    let sample = Sample::new();
    let socket = sample.path("socket");
    let served = sample.serve(&format!("unix:{}", text(&socket)));
    let (uri, export, out) = (served.uri.as_str(), sample.path("export.raw"), sample.path("out"));
    good("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&export), uri]);
    good("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", uri, text(&out)]);
    good("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&export), text(&out)]);
    if good("nbdcopy", &[uri, text(&out)]).is_some() {
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&export).unwrap());
    }
    if let Some(said) = good("nbdinfo", &["--json", uri]) {
        let info: serde_json::Value = serde_json::from_str(&said).unwrap();
        let export = &info["exports"][0];
        assert_eq!((export["export-name"].as_str(), export["export-size"].as_u64()), (Some("disk"), Some(40 << 20)));
        assert_eq!((&export["is_read_only"], &export["can_multi_conn"]), (&true.into(), &true.into()));
        assert_eq!(info["structured"], true);
        let map = good("nbdinfo", &["--map=base:allocation", "--totals", uri]).unwrap();
        // Zeros of this disk are its content: no file system says that they are free.
        let zeros: u64 = map
            .lines()
            .find(|line| line.ends_with("zero"))
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!((20 << 20..40 << 20).contains(&zeros), "{map}");
        assert!(good("nbdinfo", &["--list", &uri.replace("/disk?", "/?")]).unwrap().contains("disk"));
    }
    // The pattern is that of one byte: "tuesday" begins there in the newer layer.
    let read = |byte: u8| format!("read -P {byte} {} 1", (3 << 20) + 1000);
    if let Some((good_read, said)) = says("qemu-io", &["-r", "-f", "raw", "-c", &read(b't'), uri]) {
        assert!(good_read && !said.contains("failed"), "{said}");
        let (_, said) = says("qemu-io", &["-r", "-f", "raw", "-c", &read(b'x'), uri]).unwrap();
        assert!(said.contains("Pattern verification failed"), "{said}");
        let (writes, said) = says("qemu-io", &["-f", "raw", "-c", "write 0 512", uri]).unwrap();
        assert!(!writes, "{said}");
    }
    assert_eq!(served.end(), Some(0));
    assert!(!socket.exists());
}

/// A client of the plainest kind: no structured replies.
struct Plain(TcpStream);

impl Plain {
    fn new(served: &Served) -> Self {
        let address = served.uri.strip_prefix("nbd://").unwrap().strip_suffix("/disk").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello, *b"NBDMAGICIHAVEOPT\0\x03");
        stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x04disk").unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).unwrap();
        assert_eq!(export[..8], (40u64 << 20).to_be_bytes());
        Self(stream)
    }

    fn send(&mut self, command: u16, offset: u64, len: u32, content: &[u8]) {
        let mut request = b"\x25\x60\x95\x13\0\0".to_vec();
        request.extend_from_slice(&command.to_be_bytes());
        request.extend_from_slice(b"a cookie");
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&len.to_be_bytes());
        self.0.write_all(&[&request, content].concat()).unwrap();
    }

    /// The error of a reply, and what was read.
    fn reply(&mut self, len: usize) -> (u32, Vec<u8>) {
        let mut head = [0; 16];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!((&head[..4], &head[8..]), (&b"\x67\x44\x66\x98"[..], &b"a cookie"[..]));
        let error = u32::from_be_bytes(head[4..8].try_into().unwrap());
        let mut bytes = vec![0; if error == 0 { len } else { 0 }];
        self.0.read_exact(&mut bytes).unwrap();
        (error, bytes)
    }
}

#[test]
fn writes_and_bad_requests_are_refused_and_the_connection_goes_on() {
    const EPERM: u32 = 1;
    const EINVAL: u32 = 22;
    let sample = Sample::new();
    let served = sample.serve("127.0.0.1:0");
    let disk = std::fs::read(sample.path("export.raw")).unwrap();
    let mut client = Plain::new(&served);
    let mut second = Plain::new(&served);
    client.send(1, 4096, 8192, &[1; 8192]);
    assert_eq!(client.reply(0).0, EPERM);
    for (command, offset, len, error) in [
        (4, 0, 4096, EPERM),
        (6, 0, 4096, EPERM),
        (3, 0, 0, 0),
        (5, 0, 40 << 20, 0),
        (0, (40 << 20) - 1, 2, EINVAL),
        (0, u64::MAX, u32::MAX, EINVAL),
        (0, 0, 0, EINVAL),
        (0, 0, (32 << 20) + 1, EINVAL),
        (5, 1 << 40, 1, EINVAL),
        (7, 0, 512, EINVAL),
        (99, 0, 512, EINVAL),
    ] {
        client.send(command, offset, len, &[]);
        assert_eq!(client.reply(0).0, error, "command {command} of {len} at {offset}");
    }
    let most = 30 << 20;
    client.send(0, 1, u32::try_from(most).unwrap(), &[]);
    second.send(0, 3 << 20, 4096, &[]);
    let (error, bytes) = client.reply(most);
    assert!(error == 0 && bytes == disk[1..=most]);
    assert!(second.reply(4096).1 == disk[3 << 20..][..4096]);
    client.0.write_all(b"and now something that is no request").unwrap();
    let ended = client.0.read(&mut [0; 16]);
    assert!(ended.is_err() || ended.is_ok_and(|len| len == 0));
    second.send(2, 0, 0, &[]);
    assert_eq!(second.0.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(served.end(), Some(0));
}

#[test]
fn a_damaged_block_gives_an_error_each_time_and_the_rest_of_the_disk_is_read() {
    const EIO: u32 = 5;
    let sample = Sample::new();
    let disk = std::fs::read(sample.path("export.raw")).unwrap();
    // The noise of the base lies from 2 MiB to 11 MiB in the order of the disk, so what is in the middle of the file is of a block there.
    let base = std::fs::File::options().read(true).write(true).open(sample.path("base.slide")).unwrap();
    let middle = base.metadata().unwrap().len() / 2;
    let mut byte = [0];
    base.read_exact_at(&mut byte, middle).unwrap();
    base.write_all_at(&[!byte[0]], middle).unwrap();
    let served = sample.serve("127.0.0.1:0");
    let mut client = Plain::new(&served);
    let mut refused = Vec::new();
    for _ in 0..2 {
        for mib in 0..40 {
            client.send(0, mib << 20, 64 << 10, &[]);
            let at = usize::try_from(mib << 20).unwrap();
            match client.reply(64 << 10) {
                (0, bytes) => assert!(bytes == disk[at..][..64 << 10], "{mib} MiB"),
                (error, _) => {
                    assert_eq!(error, EIO);
                    refused.push(mib);
                }
            }
        }
    }
    assert!(refused.len() == 2 && refused[0] == refused[1] && (3..11).contains(&refused[0]), "{refused:?}");
    drop(client);
    if let Some((good, said)) =
        says("qemu-img", &["convert", "-f", "raw", "-O", "raw", &served.uri, text(&sample.path("out"))])
    {
        assert!(!good && said.contains("Input/output error"), "{said}");
    }
    assert_eq!(served.end(), Some(0));
}

#[test]
fn an_image_is_compared_flattened_and_given_another_parent() {
    let sample = Sample::new();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slidecast"));
        command.arg("image").args(args).current_dir(sample.dir.path());
        let output = command.env_remove("XDG_CONFIG_HOME").env("HOME", sample.dir.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let differs = |from: &str, to: &str| {
        let (code, said) = run(&["diff", from, to, "--json"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let diff = differs("base.slide", "child.slide");
    assert_eq!(diff["changed_bytes"], 4096 + (1 << 20));
    assert_eq!(diff["areas"].as_array().unwrap().len(), 2);
    assert!(run(&["diff", "base.slide", "child.slide"]).1.contains("areas:"));
    assert_eq!(run(&["flatten", "child.slide", "-o", "flat.slide"]).0, Some(0));
    assert_eq!(run(&["rebase", "child.slide", "--parent", "flat.slide", "-o", "rebased.slide"]).0, Some(0));
    for name in ["flat.slide", "rebased.slide"] {
        assert_eq!(differs("child.slide", name)["sent_blocks"], 0);
        assert_eq!(run(&["export", name, "out"]).0, Some(0));
        assert!(std::fs::read(sample.path("out")).unwrap() == std::fs::read(sample.path("export.raw")).unwrap());
    }
    let (code, said) = run(&["flatten", "child.slide", "-o", "base.slide"]);
    assert!(code == Some(2) && said.contains("base.slide"), "{said}");
}
