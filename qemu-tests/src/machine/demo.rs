//! The demo with virtual machines: from power-on with an empty disk to the login of the system that was put on it.

use std::time::{Duration, Instant};

use super::boot_files::BootFiles;
use super::options::{Boot, Options};
use super::{Disk, Machine};
use crate::disk::debian::{self, Flavour};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::process::Exit;
use crate::programs;
use crate::tool;

/// Whatever takes longer has gone wrong.
const LIMIT: Duration = Duration::from_secs(600);
/// Memory of a machine in MiB: iPXE, kernel and initramfs, and then the whole of Debian.
const MEMORY: u32 = 512;

/// The addresses that machines are given.
const RANGE: &str = "10.77.0.100-10.77.0.199";

/// Shows it with `count` machines; `say` gets every line.
///
/// # Errors
/// When anything is not as it should be: this is a test as well.
pub fn run(count: usize, say: &dyn Fn(&str)) -> Result<()> {
    let started = Instant::now();
    let server = programs::server()?.display().to_string();
    let sample = debian::make(Flavour::Minimal, &mut |step| say(&format!("sample disk: {step}")))?;
    let lab = Lab::new(1)?;
    let image = lab.path("debian.slide");
    tool::run(&server, ["image".as_ref(), "create".as_ref(), sample.first.as_path(), "-o".as_ref(), &image])?;
    say("image:       slidecast image create DISK -o debian.slide");
    let key = lab.key()?;
    let public = key.with_extension("key.pub");
    let files = BootFiles::make(&lab.path("out"), "virtio", &public.display().to_string(), &[])?;
    say("boot files:  ./mkimage.sh --key server.key.pub --modules virtio");
    say(&format!(
        "deployment:  slidecast deploy debian.slide --wait-for {count} --interface eth0 --boot={RANGE} --then reboot"
    ));
    say(&format!("machines:    {count} in QEMU, without KVM, with empty disks; power on\n"));
    let out = files.dir.display().to_string();
    let boot = format!("--boot={RANGE}");
    let args = ["--interface", "eth0", &boot, "--boot-dir", &out, "--then", "reboot"];
    let mut deploy = lab.deploy_shown("deploy", &image, count, &[&args[..], &["--timeout", "300s"]].concat())?;
    let power_on = Instant::now();
    let start = |n: usize| -> Result<Machine> {
        let disk = Disk::empty(&lab.path(&format!("machine{n}")), sample.layout.bytes())?;
        lab.machine(Options::new(Boot::DiskThenNetwork, vec![disk]).memory(MEMORY).restarting())
    };
    let mut machines: Vec<Machine> = (1..=count).map(start).collect::<Result<_>>()?;
    let (exit, report) = deploy.wait(LIMIT)?;
    if exit != Exit::Code(0) {
        let what = format!("the deployment ended with {exit:?}");
        return Err(LabError::Ended { what, tail: format!("{report:?}") });
    }
    say("\nAll done. The machines restart from their own disks:");
    for machine in &mut machines {
        machine.wait_for("login:", LIMIT)?;
        let line = machine.console().lines().rev().find(|line| line.contains("login:")).unwrap_or_default().to_owned();
        let seconds = power_on.elapsed().as_secs();
        say(&format!("  {} {} after {seconds} s: {}", machine.name(), machine.mac(0), line.trim()));
    }
    let images = report.egress_bytes as f64 / report.stored_bytes.max(1) as f64;
    say(&format!(
        "\n{count} machines were written and read back in {:.0} s; the server sent {images:.2} images. All of it is removed again ({:.0} s).",
        report.seconds,
        started.elapsed().as_secs_f64()
    ));
    say(NEXT);
    Ok(())
}

const NEXT: &str = "
With real machines:
  slidecast key new -o server.key                               # once
  ./mkimage.sh --key server.key.pub                             # boot files in out/: network, USB stick, UEFI
  slidecast image create /dev/DISK -o golden.slide              # of a machine as the others should be
  sudo slidecast deploy golden.slide --wait-for 20 --key-file server.key --interface IF --boot --then reboot
and let them boot from the network, or from a stick: dd if=out/slidecast.iso of=/dev/STICK bs=4M.
What a technician should know is in docs/BOOT.md. Without virtual machines: ./demo.sh --lab";
