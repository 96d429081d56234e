//! The dnsmasq blocks of `docs/BOOT.md`, taken out of the page and run as they stand: an administrator copies them.

use std::fs;
use std::path::Path;

use slidecast_lab::{Exit, Lab, Node, NodeOptions, Process};

use crate::fixtures::SOON;
use crate::harness::{Needs, Test};

pub(crate) const TESTS: &[Test] = &[
    ("boot_doc::the_dnsmasq_block_boots_every_firmware_with_addresses_of_the_site", Needs::NetworkBoot, full),
    ("boot_doc::the_dnsmasq_proxy_block_boots_every_firmware_beside_another_server", Needs::NetworkBoot, proxy),
];

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/BOOT.md");
const LAB: &str = env!("CARGO_BIN_EXE_slidecast-lab");
const SCRIPT: &str = "http://10.77.0.1/slidecast/boot.ipxe";
const UKI: &str = "http://10.77.0.1/slidecast/slidecast.efi";

/// The block of the page that follows the line beginning with `title`, with this lab's addresses, card and folder.
fn block(title: &str, tftp: &Path) -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let rest = page.split_once(&format!("\n{title}")).unwrap_or_else(|| panic!("no {title} in {PAGE}")).1;
    let text = rest.split("```\n").nth(1).unwrap();
    for name in ["10.0.0.1", "/srv/tftp"] {
        assert!(text.contains(name), "{title}: {name} is not in the block any more:\n{text}");
    }
    text.replace("10.0.0.", "10.77.0.").replace("=eth1", "=eth0").replace("/srv/tftp", &tftp.display().to_string())
}

/// dnsmasq on the server with this configuration, running.
fn dnsmasq(lab: &Lab, block: &str, more: &str) -> Process {
    let (config, leases) = (lab.path("doc.conf"), lab.path("leases"));
    fs::write(&config, format!("{block}{more}user=root\nno-ping\ndhcp-leasefile={}\n", leases.display())).unwrap();
    let config = format!("--conf-file={}", config.display());
    let mut server =
        lab.on_server("dnsmasq", "dnsmasq", ["--keep-in-foreground", "--log-facility=-", &config]).unwrap();
    server.wait_for("started", SOON).unwrap();
    server
}

fn lab() -> (Lab, Node) {
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &NodeOptions::file(1 << 20)).unwrap();
    let tftp = lab.path("tftp");
    fs::create_dir(&tftp).unwrap();
    for name in ["undionly.kpxe", "snponly.efi"] {
        fs::copy(Path::new("/usr/lib/ipxe").join(name), tftp.join(name)).unwrap();
    }
    (lab, node)
}

fn ask(lab: &Lab, node: &Node, flags: &str) -> String {
    let args: Vec<&str> = ["pxe", "eth0"].into_iter().chain(flags.split_whitespace()).collect();
    let mut process = lab.on_node(node, "asker", LAB, args).unwrap();
    assert_eq!(process.wait_exit(SOON).unwrap(), Exit::Code(0), "{flags}: {}", process.tail());
    process.out()
}

/// The first stages come over TFTP as they lie in the folder.
fn stages_are_fetched(lab: &Lab, node: &Node) {
    let got = lab.path("got");
    for name in ["undionly.kpxe", "snponly.efi"] {
        let (url, to) = (format!("tftp://{}/{name}", lab.server_address(0)), got.display().to_string());
        let args = ["--silent", "--max-time", "15", "--output", &to, &url];
        let mut curl = lab.on_node(node, "curl", "curl", args).unwrap();
        assert_eq!(curl.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", curl.tail());
        assert!(fs::read(&got).unwrap() == fs::read(lab.path("tftp").join(name)).unwrap(), "{name} has other bytes");
    }
}

fn full() {
    let (lab, node) = lab();
    let block = block("**dnsmasq**, in its own configuration", &lab.path("tftp"));
    // What the site's own configuration has beside the block.
    let site = "port=0\ninterface=eth0\nbind-interfaces\ndhcp-range=10.77.0.100,10.77.0.120,255.255.255.0,1h\n";
    let server = dnsmasq(&lab, &block, site);
    for (flags, file, class) in [
        ("--arch 0", "undionly.kpxe", ""),
        ("--arch 7", "snponly.efi", ""),
        ("--arch 9", "snponly.efi", ""),
        ("--arch 0 --ipxe", SCRIPT, ""),
        ("--arch 7 --ipxe", SCRIPT, ""),
        ("--arch 16 --class HTTPClient", UKI, "HTTPClient"),
    ] {
        let offer = ask(&lab, &node, flags);
        assert!(offer.ends_with(&format!(" file={file:?} class={class:?}\n")), "{flags}: {offer}{}", server.tail());
    }
    stages_are_fetched(&lab, &node);
}

fn proxy() {
    let (lab, node) = lab();
    let server = dnsmasq(&lab, &block("**dnsmasq as a proxy**", &lab.path("tftp")), "");
    for (flags, file, class) in [
        ("--arch 0 --ipxe", SCRIPT, "PXEClient"),
        ("--arch 7 --ipxe", SCRIPT, "PXEClient"),
        ("--arch 16 --class HTTPClient", UKI, "HTTPClient"),
    ] {
        let offer = ask(&lab, &node, flags);
        let expected = format!(" address=0.0.0.0 file={file:?} class={class:?}\n");
        assert!(offer.ends_with(&expected), "{flags}: {offer}{}", server.tail());
    }
    for (who, file) in [("0", "undionly.kpxe"), ("0 --ipxe", SCRIPT), ("7", "snponly.efi"), ("9", "snponly.efi")] {
        // Firmware asks the proxy for the file only after it has been offered something by it.
        let offer = ask(&lab, &node, &format!("--arch {who}"));
        assert!(offer.ends_with("class=\"PXEClient\"\n"), "{who}: {offer}{}", server.tail());
        let answer = ask(&lab, &node, &format!("--arch {who} --server {}", lab.server_address(0)));
        assert!(answer.ends_with(&format!(" file={file:?} class=\"PXEClient\"\n")), "{who}: {answer}{}", server.tail());
    }
    for foreign in ["--arch 11", "--arch 6", "--arch 11 --ipxe", "--arch 19 --class HTTPClient"] {
        assert_eq!(ask(&lab, &node, foreign), "", "{foreign} is answered");
    }
    stages_are_fetched(&lab, &node);
}
