//! `slidecast boot-server` and `deploy --boot`, with the real dnsmasq: what each kind of firmware is offered, what it can
//! fetch, and that nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slidecast_lab::{Exit, Lab, Node, NodeOptions, Process, tool};

use crate::fixtures::{Fixtures, LONG, SOON, says, start_agents};
use crate::harness::{Needs, Test};
use crate::serve::Server;

pub(crate) const TESTS: &[Test] = &[
    ("boot::an_isolated_net_gets_addresses_and_the_boot_file_of_each_firmware", Needs::NetworkBoot, isolated),
    ("boot::beside_a_dhcp_server_only_the_boot_file_is_ours", Needs::NetworkBoot, beside),
    ("boot::a_proxy_is_silent_to_an_architecture_without_files_and_says_so_once", Needs::NetworkBoot, unserved),
    ("boot::files_are_fetched_over_tftp_and_http_and_told", Needs::NetworkBoot, fetched),
    ("boot::the_uki_goes_over_tftp_where_that_was_asked_for", Needs::NetworkBoot, uki_over_tftp),
    ("boot::on_a_net_of_our_own_a_router_is_advertised_that_is_none", Needs::NetworkBoot, router),
    ("boot::a_dnsmasq_that_dies_is_started_again", Needs::NetworkBoot, restarted),
    ("boot::a_killed_boot_server_leaves_nothing_behind", Needs::NetworkBoot, killed),
    ("boot::ctrl_c_ends_it_in_order", Needs::NetworkBoot, stopped),
    ("boot::what_is_wrong_is_one_line_and_nothing_starts", Needs::NetworkBoot, wrong),
    ("boot::a_deployment_boots_machines_with_its_server_and_key", Needs::NetworkBoot, deployment),
    ("boot::a_machine_that_is_done_is_sent_on_to_its_disk", Needs::NetworkBoot, sent_on),
    ("boot::a_standing_server_boots_machines_that_are_new_or_wanted_and_no_others", Needs::NetworkBoot, standing),
];

const LAB: &str = env!("CARGO_BIN_EXE_slidecast-lab");
const RANGE: &str = "10.77.0.100-10.77.0.120";
const HTTP: u16 = 7580;

/// The smallest PE file that has a `.cmdline` section: headers of one section and its text.
fn uki(words: &str) -> Vec<u8> {
    let mut file = vec![0; 0x400];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &1_u16.to_le_bytes());
    put(0x54, &112_u16.to_le_bytes());
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 36, &0x200_u32.to_le_bytes());
    put(0x58 + 56, &0x2000_u32.to_le_bytes());
    put(0xc8, b".cmdline");
    put(0xd0, &u32::try_from(words.len()).unwrap().to_le_bytes());
    put(0xd4, &0x1000_u32.to_le_bytes());
    put(0xd8, &0x200_u32.to_le_bytes());
    put(0xdc, &0x200_u32.to_le_bytes());
    put(0x200, words.as_bytes());
    file
}

/// A folder as `mkimage.sh` leaves it, with stand-ins for kernel and initramfs.
fn boot_files(lab: &Lab) -> PathBuf {
    let dir = lab.path("out");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("vmlinuz"), vec![7; 3 << 20]).unwrap();
    fs::write(dir.join("initramfs.img"), vec![8; 1 << 20]).unwrap();
    fs::write(dir.join("slidecast.efi"), uki("console=ttyS0 slidecast.key=old quiet")).unwrap();
    dir
}

fn lab() -> (Lab, Node) {
    let lab = Lab::new(1).unwrap();
    let node = lab.node(0, &NodeOptions::file(1 << 20)).unwrap();
    (lab, node)
}

/// A boot server on the server's card that is ready.
fn boot_server(lab: &Lab, args: &[&str]) -> Process {
    let dir = boot_files(lab).display().to_string();
    let all = [&["boot-server", "--interface", "eth0", "--dir", &dir], args].concat();
    let mut server = lab.server("boot-server", all).unwrap();
    server.wait_for("network boot on eth0", SOON).unwrap();
    server
}

/// Runs a program on the node, which must succeed, and gives what it printed.
fn on_node(lab: &Lab, node: &Node, program: &str, args: &[&str]) -> String {
    let mut process = lab.on_node(node, "asker", program, args.to_vec()).unwrap();
    assert_eq!(process.wait_exit(SOON).unwrap(), Exit::Code(0), "{args:?}: {}", process.tail());
    process.out()
}

/// The answers to a node that asks for boot, with these flags.
fn ask(lab: &Lab, node: &Node, flags: &str) -> String {
    let args: Vec<&str> = ["pxe", "eth0"].into_iter().chain(flags.split_whitespace()).collect();
    on_node(lab, node, LAB, &args)
}

fn isolated() {
    let (lab, node) = lab();
    let server = boot_server(&lab, &["--dhcp", RANGE]);
    for (flags, file, class) in [
        ("--arch 0", "undionly.kpxe", ""),
        ("--arch 7", "snponly.efi", ""),
        ("--arch 9", "snponly.efi", ""),
        ("--arch 0 --ipxe", "http://10.77.0.1:7580/boot.ipxe", ""),
        ("--arch 7 --ipxe", "http://10.77.0.1:7580/boot.ipxe", ""),
        ("--arch 16 --class HTTPClient", "http://10.77.0.1:7580/slidecast.efi", "HTTPClient"),
        ("--arch 11", "", ""),
    ] {
        let offer = ask(&lab, &node, flags);
        assert_eq!(offer.lines().count(), 1, "{flags}: {offer}");
        assert!(offer.ends_with(&format!(" file={file:?} class={class:?}\n")), "{flags}: {offer}");
        let last = offer.split("address=10.77.0.").nth(1).and_then(|rest| rest.split(' ').next());
        let last: u8 = last.unwrap_or_else(|| panic!("{flags}: {offer}")).parse().unwrap();
        assert!((100..=120).contains(&last), "{flags}: {offer}");
    }
    assert!(!server.out().contains("asked for boot"), "an offer that nobody took is no news: {}", server.out());
}

fn beside() {
    let (lab, node) = lab();
    let site = lab.node(0, &NodeOptions::file(1 << 20)).unwrap();
    let leases = lab.path("leases").display().to_string();
    let args = "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --user=root --no-ping \
                --log-facility=- --dhcp-range=10.77.0.130,10.77.0.140,255.255.255.0,1h --dhcp-leasefile=";
    let args = format!("{args}{leases}");
    let mut dhcp = lab.on_node(&site, "site-dhcp", "dnsmasq", args.split_whitespace()).unwrap();
    dhcp.wait_for("started", SOON).unwrap();
    let mut server = boot_server(&lab, &[]);
    let (ours, theirs) = (format!("server={} ", lab.server_address(0)), format!("server={} ", site.address));
    for (flags, file, class) in [
        ("--arch 0 --ipxe", "http://10.77.0.1:7580/boot.ipxe", "PXEClient"),
        ("--arch 7 --ipxe", "http://10.77.0.1:7580/boot.ipxe", "PXEClient"),
        ("--arch 16 --class HTTPClient", "http://10.77.0.1:7580/slidecast.efi", "HTTPClient"),
    ] {
        let offers = ask(&lab, &node, flags);
        let find =
            |who: &str| offers.lines().find(|line| line.contains(who)).unwrap_or_else(|| panic!("{flags}: {offers}"));
        assert!(
            find(&theirs).contains("address=10.77.0.13") || find(&theirs).contains("address=10.77.0.140"),
            "{offers}"
        );
        assert!(find(&theirs).ends_with("file=\"\" class=\"\""), "{offers}");
        let expected = format!("{ours}address=0.0.0.0 file={file:?} class={class:?}");
        assert_eq!(find(&ours), expected, "{flags}");
    }
    let script = "http://10.77.0.1:7580/boot.ipxe";
    for (who, file) in [("0", "undionly.kpxe"), ("0 --ipxe", script), ("7", "snponly.efi"), ("9", "snponly.efi")] {
        let flags = format!("--arch {who} --server {}", lab.server_address(0));
        let answer = ask(&lab, &node, &flags);
        assert!(answer.ends_with(&format!(" file={file:?} class=\"PXEClient\"\n")), "{flags}: {answer}");
    }
    let told = |server: &Process| says(server, &["02:51:1d:e0:00:07", "asked for boot (UEFI)"]);
    server.wait_until("telling who asked", SOON, told).unwrap();
}

fn unserved() {
    let (lab, node) = lab();
    let mut server = boot_server(&lab, &[]);
    let told = |server: &Process, what: &str| server.out().lines().filter(|line| line.contains(what)).count();
    let to_us = format!(" --server {}", lab.server_address(0));
    for (arch, more) in
        [("11", ""), ("11", " --ipxe"), ("11", to_us.as_str()), ("6", ""), ("19", " --class HTTPClient")]
    {
        assert_eq!(ask(&lab, &node, &format!("--arch {arch}{more}")), "", "{arch}{more} was answered");
    }
    // What comes later in dnsmasq's log has been read, so everything before it was.
    assert!(ask(&lab, &node, "--arch 7").contains("class=\"PXEClient\""), "others are answered as before");
    server.wait_until("telling who asked", SOON, |server| says(server, &["asked for boot (UEFI)"])).unwrap();
    for arch in ["architecture 11, 64-bit ARM UEFI)", "architecture 6, 32-bit x86 UEFI)", "architecture 19, "] {
        assert_eq!(told(&server, arch), 1, "{arch}: {}", server.out());
    }
    assert_eq!(told(&server, "gets no answer"), 3, "{}", server.out());
}

fn curl(lab: &Lab, node: &Node, url: &str, to: &Path) -> String {
    let to = to.display().to_string();
    on_node(
        lab,
        node,
        "curl",
        &["--silent", "--path-as-is", "--max-time", "15", "--output", &to, "-w", "%{http_code}", url],
    )
}

fn fetched() {
    let (lab, node) = lab();
    let mut server = boot_server(&lab, &["--dhcp", RANGE]);
    let (out, got, host) = (lab.path("out"), lab.path("got"), lab.server_address(0).to_owned());
    curl(&lab, &node, &format!("tftp://{host}/undionly.kpxe"), &got);
    assert!(fs::read(&got).unwrap() == fs::read("/usr/lib/ipxe/undionly.kpxe").unwrap(), "TFTP brings other bytes");
    for name in ["vmlinuz", "initramfs.img", "slidecast.efi"] {
        assert_eq!(curl(&lab, &node, &format!("http://{host}:{HTTP}/{name}"), &got), "200");
        assert!(fs::read(&got).unwrap() == fs::read(out.join(name)).unwrap(), "{name} has other bytes");
    }
    assert_eq!(curl(&lab, &node, &format!("http://{host}:{HTTP}/boot.ipxe"), &got), "200");
    let script = fs::read_to_string(&got).unwrap();
    let kernel = "\nkernel http://10.77.0.1:7580/vmlinuz console=ttyS0 slidecast.key=old quiet initrd=initramfs.img \
                  BOOTIF=01-${netX/mac:hexhyp} ||";
    assert!(script.starts_with("#!ipxe\n") && script.contains(kernel), "{script}");
    for path in ["cmdline", "../out/vmlinuz", "/etc/passwd", "%2e%2e/etc/passwd", ""] {
        assert_eq!(curl(&lab, &node, &format!("http://{host}:{HTTP}/{path}"), &got), "404", "{path}");
    }
    let mac = tool::run("ip", ["-n", &format!("{}-{}", lab.name(), node.name), "link", "show", "eth0"]).unwrap();
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let line = |what: &str| format!("{mac} {} fetched {what}\n", node.address);
    for what in ["vmlinuz (3 MiB over HTTP)", "initramfs.img (1 MiB over HTTP)"] {
        server.wait_for(&line(what), SOON).unwrap();
    }
    server
        .wait_until("telling of TFTP", SOON, |server| says(server, &[&mac, "fetched undionly.kpxe", "over TFTP"]))
        .unwrap();
}

fn uki_over_tftp() {
    let (lab, node) = lab();
    let _server = boot_server(&lab, &["--dhcp", RANGE, "--uefi", "uki"]);
    assert!(ask(&lab, &node, "--arch 7").contains("file=\"slidecast.efi\""));
    let got = lab.path("got");
    curl(&lab, &node, &format!("tftp://{}/slidecast.efi", lab.server_address(0)), &got);
    assert!(fs::read(&got).unwrap() == fs::read(lab.path("out/slidecast.efi")).unwrap(), "TFTP brings other bytes");
}

fn router() {
    let (lab, node) = lab();
    let _server = boot_server(&lab, &["--dhcp", RANGE]);
    let advertisement = on_node(&lab, &node, LAB, &["solicit", "eth0"]);
    let numbers = advertisement.trim().trim_matches(['[', ']']).split(", ").map(|number| number.parse::<u8>().unwrap());
    let bytes: Vec<u8> = numbers.collect();
    // Type 134; flags and lifetime zero; the sender's hardware address is the only option.
    assert_eq!((bytes[0], bytes[5], &bytes[6..8], bytes.len()), (134, 0, &[0, 0][..], 24), "{bytes:?}");
    assert_eq!(bytes[16..18], [1, 1]);
}

/// The processes called `name` in the server's namespace.
fn named(lab: &Lab, name: &str) -> Vec<i32> {
    let pids = tool::run("ip", ["netns", "pids", &format!("{}-server", lab.name())]).unwrap();
    let pids = pids.split_whitespace().map(|pid| pid.parse::<i32>().unwrap());
    let comm = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.filter(|pid| comm(pid).trim() == name).collect()
}

fn restarted() {
    let (lab, node) = lab();
    let mut server = boot_server(&lab, &["--dhcp", RANGE]);
    let first = named(&lab, "dnsmasq");
    assert_eq!(first.len(), 1);
    kill(Pid::from_raw(first[0]), Signal::SIGKILL).unwrap();
    server.wait_until("telling of it", SOON, |server| says(server, &["dnsmasq ended", "started again"])).unwrap();
    let again = |_: &Process| named(&lab, "dnsmasq").iter().any(|pid| *pid != first[0]);
    server.wait_until("starting it again", SOON, again).unwrap();
    // The new one may not have its port yet when it is first asked.
    server.wait_until("answering again", LONG, |_| ask(&lab, &node, "--arch 0").contains("undionly.kpxe")).unwrap();
}

/// The private folders of boot servers that are still there, by the process id in dnsmasq's own arguments.
fn folder(lab: &Lab) -> PathBuf {
    let pid = named(lab, "dnsmasq")[0];
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let config = words.split('\0').find_map(|word| word.strip_prefix("--conf-file=")).unwrap().to_owned();
    Path::new(&config).parent().unwrap().to_owned()
}

fn killed() {
    let (lab, _node) = lab();
    let mut server = boot_server(&lab, &["--dhcp", RANGE]);
    let folder = folder(&lab);
    server.kill();
    let mut waiting = lab.on_server("waiting", "sleep", ["1000"]).unwrap();
    waiting.wait_until("dnsmasq to end", SOON, |_| named(&lab, "dnsmasq").is_empty()).unwrap();
    waiting.wait_until("the folder to go", SOON, |_| !folder.exists()).unwrap();
    waiting.wait_until("the guard to end", SOON, |_| named(&lab, "sh").is_empty()).unwrap();
}

fn stopped() {
    let (lab, _node) = lab();
    let mut server = boot_server(&lab, &[]);
    let folder = folder(&lab);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(SOON).unwrap(), Exit::Code(0), "{}", server.tail());
    assert_eq!((named(&lab, "dnsmasq"), named(&lab, "sh")), (vec![], vec![]));
    assert!(!folder.exists());
    assert_eq!(server.err(), "");
}

fn wrong() {
    let (lab, _node) = lab();
    let dir = boot_files(&lab).display().to_string();
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        let mut server = lab.server("refused", [&["boot-server"], args].concat()).unwrap();
        assert_eq!(server.wait_exit(SOON).unwrap(), Exit::Code(code), "{args:?}: {}", server.tail());
        let err = server.err();
        assert!(err.starts_with("slidecast: ") && err.lines().count() == 1, "{args:?}: {err}");
        assert!(words.iter().all(|word| err.contains(word)), "{args:?}: {err}");
    };
    let on = |interface: &'static str| ["--interface", interface, "--dir", &dir];
    refused(&on("eth9"), 2, &["\"eth9\"", "eth0"]);
    refused(&["--dir", &dir], 2, &["--interface"]);
    refused(&[&on("eth0")[..], &["--dhcp", "10.77.0.100"]].concat(), 2, &["--dhcp", "10.0.0.100-10.0.0.200"]);
    refused(&[&on("eth0")[..], &["--dhcp", "10.1.0.5-10.1.0.9"]].concat(), 2, &["10.1.0.5-10.1.0.9", "10.77.0.0/24"]);
    refused(
        &["--interface", "eth0", "--dir", "/nonexistent"],
        1,
        &["/nonexistent/vmlinuz", "mkimage.sh", "No such file"],
    );
    let part = lab.path("part");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("vmlinuz"), "k").unwrap();
    let missing = part.join("initramfs.img").display().to_string();
    refused(&["--interface", "eth0", "--dir", &part.display().to_string()], 1, &[&missing, "mkimage.sh"]);
    tool::run("ip", ["-n", &format!("{}-server", lab.name()), "link", "add", "bare", "type", "bridge"]).unwrap();
    refused(&on("bare"), 1, &["bare has no IPv4 address"]);

    for (port, what) in [(67, "DHCP"), (69, "TFTP"), (4011, "PXE")] {
        let mut squatter =
            lab.on_server("squatter", "socat", ["-u".to_owned(), format!("UDP4-RECV:{port}"), "-".to_owned()]).unwrap();
        squatter.wait_until("binding", SOON, |squatter| bound(squatter, port)).unwrap();
        refused(&on("eth0"), 1, &[&format!("UDP port {port} is in use on eth0"), what]);
        squatter.kill();
    }
    let mut squatter = lab.on_server("squatter", "socat", [format!("TCP4-LISTEN:{HTTP}"), "-".to_owned()]).unwrap();
    squatter.wait_for_tcp(HTTP, SOON).unwrap();
    refused(&on("eth0"), 1, &["TCP port 7580 is in use", "--http-port"]);
    squatter.kill();
    assert!(named(&lab, "dnsmasq").is_empty());
}

/// Whether a UDP port is bound in the process's namespace (proc_pid_net(5)).
fn bound(process: &Process, port: u16) -> bool {
    let table = fs::read_to_string(format!("/proc/{}/net/udp", process.pid())).unwrap_or_default();
    let end = format!(":{port:04X}");
    table.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&end)))
}

fn deployment() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let dir = boot_files(&lab).display().to_string();
    let args = ["--interface", "eth0", "--boot", "--boot-dir", &dir, "--progress", "json"];
    let mut deploy = lab.deploy(&fixtures.base, 1, &args).unwrap();
    deploy.process.wait_for("network boot on eth0", SOON).unwrap();
    let key = slidecast_lab::programs::public_key(&lab.key().unwrap()).unwrap();
    let words = format!("slidecast.server={}:7531 slidecast.key={}", lab.server_address(0), key);
    let got = lab.path("got");
    for name in ["boot.ipxe", "slidecast.efi"] {
        assert_eq!(curl(&lab, &nodes[0], &format!("http://{}:{HTTP}/{name}", lab.server_address(0)), &got), "200");
        let bytes = fs::read(&got).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(&format!("console=ttyS0 quiet {words}")), "{name}: {text}");
    }
    deploy.process.wait_for("fetched slidecast.efi", SOON).unwrap();
    let line = deploy.process.out();
    let line = line.lines().find(|line| line.contains("fetched slidecast.efi")).unwrap();
    assert!(line.contains("\"event\":\"log\""), "{line}");
    let _agents = start_agents(&lab, &nodes);
    assert_eq!(deploy.wait(LONG).unwrap().0, Exit::Code(0));
    fixtures.assert_holds_base(&nodes[0]);
    assert!(named(&lab, "dnsmasq").is_empty());
}

fn sent_on() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(2).unwrap();
    // The second one has a chain of its own, and takes longer than this test.
    let nodes = [lab.node(0, &fixtures.node()).unwrap(), lab.node(1, &fixtures.node().mbits(2)).unwrap()];
    let dir = boot_files(&lab).display().to_string();
    let args = ["--interface", "eth0", "--interface", "eth1", "--boot", "--boot-dir", &dir, "--progress", "json"];
    let mut deploy = lab.deploy(&fixtures.base, 2, &args).unwrap();
    deploy.process.wait_for("network boot on eth1", SOON).unwrap();
    let got = lab.path("got");
    let fetch = |node: &Node, name: &str| {
        let code = curl(&lab, node, &format!("http://{}:{HTTP}/{name}", lab.server_address(node.card)), &got);
        (code, fs::read_to_string(&got).unwrap_or_default())
    };
    assert!(fetch(&nodes[0], "boot.ipxe").1.contains("\nkernel "));
    let _agents = start_agents(&lab, &nodes);
    let done = |process: &Process| process.out().lines().any(|line| line.contains("\"state\":\"done\""));
    deploy.process.wait_until("being done with the first node", LONG, done).unwrap();
    let (code, script) = fetch(&nodes[0], "boot.ipxe");
    assert!(code == "200" && script.contains("\nexit 1\n") && !script.contains("kernel"), "{script}");
    assert_eq!(fetch(&nodes[0], "slidecast.efi").0, "404");
    assert!(fetch(&nodes[1], "boot.ipxe").1.contains("\nkernel "), "the other one is not done");
    deploy.process.wait_for(&format!("{} is through: sent on to its own disk", nodes[0].address), SOON).unwrap();
    assert!(deploy.process.poll_exit().is_none(), "the deployment ended before it was looked at");
}

fn standing() {
    let fixtures = Fixtures::get();
    let lab = Lab::new(1).unwrap();
    let nodes = lab.nodes(1, &fixtures.node()).unwrap();
    let dir = boot_files(&lab).display().to_string();
    let server = Server::start_with(&lab, &["--interface", "eth0", "--boot", "--boot-dir", &dir]);
    let got = lab.path("got");
    // Which machines have something to do is known a moment after that has changed.
    let until_it_boots = |what: &str| {
        let until = Instant::now() + SOON;
        loop {
            curl(&lab, &nodes[0], &format!("http://{}:{HTTP}/boot.ipxe", lab.server_address(0)), &got);
            let script = fs::read_to_string(&got).unwrap_or_default();
            if script.contains(what) {
                return script;
            }
            assert!(Instant::now() < until, "{what}: {script}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let key = slidecast_lab::programs::public_key(&lab.key().unwrap()).unwrap();
    let script = until_it_boots("kernel ");
    assert!(
        script.contains(&format!("slidecast.server={}:7531 slidecast.key={key}", lab.server_address(0))),
        "{script}"
    );
    let mut agents = start_agents(&lab, &nodes);
    let machine = server.machines(&nodes)[0];
    server.accept(machine);
    until_it_boots("boots from its disk");
    let path = server.deploy("base.slide", &[machine]);
    let over = server.wait(&path, |body| body["state"] == "over");
    assert_eq!(over["exit_code"], 0, "{over}");
    assert_eq!(agents[0].wait_exit(LONG).unwrap(), Exit::Code(0), "{}", agents[0].tail());
    until_it_boots("boots from its disk");
    let path = server.deploy("increment.slide", &[machine]);
    until_it_boots("kernel ");
    assert_eq!(server.ask("POST", &format!("{path}/stop"), None, "").0, 202);
    until_it_boots("boots from its disk");
}
