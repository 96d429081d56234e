//! The examples that `--help` shows. A test parses each of them.

pub(super) const EXAMPLES: &str = "\
Examples:
  slidecast image create /dev/nvme0n1 -o base.slide
  slidecast image create /dev/nvme0n1 -o monday.slide --parent base.slide
  slidecast deploy monday.slide --wait-for 4

Flags may also be set in a TOML file: --config FILE, or slidecast/config.toml in the
XDG configuration folder. A table is named after the sub-command, a key after the flag:
  [deploy]
  interface = [\"eth1\", \"eth2\"]
  verify = \"full\"

Exit codes: 0 done, 1 not done, 2 wrong usage, 3 (deploy) some node failed.";

pub(super) const CREATE_EXAMPLES: &str = "\
Examples:
  slidecast image create /dev/sda -o base.slide
  slidecast image create disk.raw -o tuesday.slide --parent monday.slide
  slidecast image create machine.qcow2 -o machine.slide --snapshot installed
  slidecast image create /home/partimag/room7 -o room7.slide
  slidecast image create sda2.pc.zst -o root.slide --table sda-pt.sf --partition 2
  slidecast image create /dev/sda -o small.slide --codec zstd:12 --block-size 4MiB";

pub(super) const IMAGE_EXAMPLES: &str = "\
Examples:
  slidecast image create /dev/sda -o base.slide
  slidecast image create /dev/sda -o monday.slide --parent base.slide
  slidecast image info monday.slide
  slidecast image verify monday.slide
  slidecast image export monday.slide disk.raw";

pub(super) const INFO_EXAMPLES: &str = "\
Examples:
  slidecast image info monday.slide
  slidecast image info monday.slide --json";

pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  slidecast image verify monday.slide && echo good

Exit codes: 0 every byte is as it was made, 1 something is not, or is missing, 2 wrong usage.";

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  slidecast image export tuesday.slide disk.raw
  slidecast image export tuesday.slide /dev/sdb";

pub(super) const KEY_EXAMPLES: &str = "\
Examples:
  slidecast key new -o server.key
  slidecast deploy base.slide --wait-for 4 --key-file server.key
  slidecast-agent --server-key server.key.pub";

pub(super) const DEPLOY_EXAMPLES: &str = "\
Examples:
  slidecast deploy base.slide --wait-for 4
  slidecast deploy base.slide --wait-for 20 --timeout 10m --interface eth1 --interface eth2
  slidecast deploy base.slide --wait-for 1 --target serial=S4EVNX0R --then reboot
  slidecast deploy base.slide --wait-for 8 --progress json --report report.json
  slidecast deploy base.slide --wait-for 30 --interface eth1 --boot --then reboot
  slidecast deploy base.slide --wait-for 20 --approve room7.txt --approve code

Selectors: a path (/dev/sda), or one or more of serial=S, wwn=W, model=GLOB, size=A..B and
transport=T, with a comma for \"and\". Without one, a node must have exactly one eligible disk.

Exit codes: 0 every node is done (or written, if no more was asked for), 1 nothing was started,
2 wrong usage, 3 some node failed, or stopped after nodes had been given their disks.";

pub(super) const BOOT_EXAMPLES: &str = "\
Examples:
  slidecast boot-server --interface eth1
  slidecast boot-server --interface eth1 --dhcp 10.0.0.100-10.0.0.200
  slidecast boot-server --interface eth1 --dir /srv/boot --uefi uki

Needs root, for the ports of DHCP and TFTP, and Debian's packages dnsmasq-base and ipxe.
It runs until it is stopped and prints what each machine asks for and fetches.

Exit codes: 0 stopped, 1 it could not start or dnsmasq does not stay up, 2 wrong usage.";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  slidecast serve --images /srv/images
  slidecast serve --images /srv/images --interface eth1 --state /var/lib/slidecast
  slidecast serve --images /srv/images --http 0.0.0.0:7540
  slidecast serve --images /srv/images --interface eth1 --boot --boot-dir /srv/boot
  slidecast serve --images /srv/images --http 0.0.0.0:443 --tls-cert site.crt --tls-key site.key
  slidecast serve --images s3://images/lab/ --cache /var/cache/slidecast --cache-size 200GiB

It runs until a signal ends it. Deployments that run go on when it is started again.

Exit codes: 0 ended by a signal, 1 it could not start, 2 wrong usage.";

pub(super) const TOKEN_EXAMPLES: &str = "\
Examples:
  slidecast token new --role operator --days 90
  slidecast token new --role operator --group room7
  slidecast token new --role admin --state /var/lib/slidecast";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  slidecast completions bash > /etc/bash_completion.d/slidecast
  slidecast completions zsh > /usr/local/share/zsh/site-functions/_slidecast
  slidecast completions fish > ~/.config/fish/completions/slidecast.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  slidecast man /usr/local/share/man/man1";

pub(super) const REMOTE_EXAMPLES: &str = "\
Examples:
  slidecast remote machines --server https://deploy.example --token-file token
  slidecast remote watch --server http://127.0.0.1:7540 --token-file token --json

Exit codes: 0 done, 1 the server can't be reached or refuses, 2 wrong usage.";

pub(super) const REMOTE_DEPLOY_EXAMPLES: &str = "\
Examples:
  slidecast remote deploy a.slide --machine 1 --server https://host.example --token-file t
  slidecast remote deploy a.slide --machine 4 --fresh --server http://[::1]:7540 --token-file t
  slidecast remote deploy a.slide --group room7 --server http://[::1]:7540 --token-file t

The deployment goes on if this command is ended. Exit codes: as those of deploy; 1 also if
the server can't be reached or refuses.";
