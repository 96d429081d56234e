//! The two halves of a server's key: neither is taken for the other, and the secret one is never shown.

use std::fs;
use std::path::Path;
use std::process::Command;

use slidecast_lab::{Lab, programs};

use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("keys::the_boot_files_are_not_made_with_a_secret_key_which_is_not_shown", Needs::Network, boot_files),
    ("keys::agent_and_server_refuse_the_other_half", Needs::Network, programs_refuse),
];

/// Exit code and all that was said.
fn said(program: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn boot_files() {
    let lab = Lab::new(1).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mkimage.sh");
    let (new, old, out) = (lab.key().unwrap(), lab.path("old.key"), lab.path("out"));
    let line = fs::read_to_string(&new).unwrap();
    let digits = line.trim().rsplit(':').next().unwrap();
    fs::write(&old, format!("{digits}\n")).unwrap();
    fs::write(lab.path("old.key.pub"), format!("{}\n", programs::public_key(&new).unwrap())).unwrap();
    let words = format!("slidecast.key={}", line.trim());
    let (new, old) = (new.display().to_string(), old.display().to_string());
    let refused =
        [&["--key", &new][..], &["--key", &old], &["--key", line.trim()], &["--key", "none", "--cmdline", &words]];
    for args in refused {
        let (code, text) = said(&script, &[args, &["--out", &out.display().to_string()]].concat());
        assert!(code != Some(0) && text.contains("this is a secret key"), "{args:?}: {text}");
        assert!(!text.contains(digits), "{args:?} shows it");
    }
    assert!(!out.exists());
}

fn programs_refuse() {
    let lab = Lab::new(1).unwrap();
    let key = lab.key().unwrap().display().to_string();
    let line = fs::read_to_string(&key).unwrap();
    let (code, text) = said(&programs::agent().unwrap(), &["--server-key", &key, "--once"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("this is a secret key") && !text.contains(line.trim().rsplit(':').next().unwrap()), "{text}");
    let image = crate::fixtures::Fixtures::get().base.display().to_string();
    let public = format!("{key}.pub");
    let (code, text) =
        said(&programs::server().unwrap(), &["deploy", &image, "--wait-for", "1", "--key-file", &public]);
    assert_ne!(code, Some(0), "{text}");
    assert!(text.contains("is the public part of a key"), "{text}");
}
