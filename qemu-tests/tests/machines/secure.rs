//! Secure Boot with keys of one's own: firmware that knows them starts what was signed with them, and nothing else.
//!
//! The firmware's variables and the key are those that Debian's `ovmf` ships for tests.

use std::path::{Path, PathBuf};

use slidecast_lab::machine::{Boot, BootFiles, Firmware, Options};
use slidecast_lab::{Lab, tool};

use crate::Takes::One;
use crate::Test;
use crate::fixtures::{BOOT, Fixtures, all_done, finish};

pub(crate) const TESTS: &[Test] =
    &[("secure::a_signed_stick_starts_under_secure_boot_and_an_unsigned_one_does_not", One, signed)];

const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";

fn signed() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let _dhcp = lab.dhcp(&[]).unwrap();
    let key = lab.path("signing.key");
    let plain = ["rsa", "-passin", "pass:snakeoil", "-in", KEY, "-out"].map(Path::new);
    tool::run("openssl", plain.into_iter().chain([key.as_path()])).unwrap();
    let public = slidecast_lab::programs::public_key(&fixtures.key).unwrap();
    let sign = ["--sign", &key.display().to_string(), CERTIFICATE];
    let signed = BootFiles::make(&lab.path("signed"), "common", &public, &sign).unwrap();
    let options = |boot: Boot, name: &str| {
        let firmware = Firmware::SecureUefi { variables: PathBuf::from(VARIABLES) };
        Options { firmware, ..Options::new(boot, vec![fixtures.disk(&lab, name)]).memory(768) }
    };
    let mut unsigned = lab.machine(options(fixtures.boot.stick(), "unsigned")).unwrap();
    unsigned.wait_for("Access Denied", BOOT).unwrap();
    assert!(!unsigned.console().contains("slidecast: boot"), "{}", unsigned.console());
    unsigned.cut_power();
    let deploy = fixtures.deploy(&lab, 1, &["--then", "poweroff"]);
    let mut machines = [lab.machine(options(signed.stick(), "signed")).unwrap()];
    all_done(deploy, 1);
    finish(fixtures, &mut machines);
}
