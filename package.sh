#!/usr/bin/env bash
# Makes a Debian package of the server: ./package.sh [--out DIR] [--version V]
#
# slidecast_VERSION_amd64.deb, in DIR (out): the program, the static agent, a systemd unit with its configuration file, manual pages,
# and completions for bash, zsh and fish. It is put together by dpkg-deb, which every Debian has. Same input, same bytes.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;; esac
here=$(cd "$(dirname "$0")" && pwd)
. "$here/qemu-tests/need.sh"
umask 022
export LC_ALL=C TZ=UTC
out=out version=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "$1 is no option, or lacks its value: see --help"
    case $1 in
        --out) out=$2 ;;
        --version) version=$2 ;;
        *) die "$1 is no option: see --help" ;;
    esac
    shift 2
done
mkdir -p "$out"
out=$(realpath "$out")
cd "$here"
[ "$(uname -m)" = x86_64 ] || die 'the package is made for amd64, on x86-64'
need_rust
need_static_target
need_tools dpkg-deb objdump gzip
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
: "${version:=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH

cargo build --quiet --release -p slidecast-server
cargo build --quiet --release --target "$(static_target)" -p slidecast-agent
program=$target_dir/release/slidecast

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
install -D -m 755 "$program" "$root/usr/bin/slidecast"
install -D -m 755 "$target_dir/$(static_target)/release/slidecast-agent" "$root/usr/bin/slidecast-agent"
install -D -m 644 packaging/slidecast.service "$root/usr/lib/systemd/system/slidecast.service"
install -D -m 644 packaging/config.toml "$root/etc/slidecast/config.toml"
"$program" man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1
completions() { mkdir -p "$(dirname "$root/$2")" && "$program" completions "$1" >"$root/$2"; }
completions bash usr/share/bash-completion/completions/slidecast
completions zsh usr/share/zsh/vendor-completions/_slidecast
completions fish usr/share/fish/vendor_completions.d/slidecast.fish
docs=$root/usr/share/doc/slidecast
install -d "$docs"
install -m 644 docs/SERVE.md docs/API.md docs/openapi.json docs/DEPLOY.md docs/BOOT.md "$docs"
gzip -9nc CHANGELOG.md >"$docs/changelog.gz"
cat LICENSE-MIT LICENSE-APACHE >"$docs/copyright"

# The newest symbols of the C library that the program asks for say which one it needs.
libc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
install -d "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: slidecast
Version: $version
Architecture: amd64
Maintainer: The SlideCast project <noreply@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= ${libc#GLIBC_}), libgcc-s1, adduser, init-system-helpers
Recommends: dnsmasq-base, ipxe
Section: admin
Priority: optional
Description: puts one disk image on many machines at once
 A server sends a deduplicated, compressed image of a disk to the first machine
 of a chain; each machine writes it to its disk and passes it on. This package
 has the server with its pages and API, and the agent that the machines run.
CONTROL
echo /etc/slidecast/config.toml >"$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 755 "packaging/$script" "$root/DEBIAN/$script"; done
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -print | sort | sed 's,^\./,,' | xargs md5sum >DEBIAN/md5sums)
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
package=$out/slidecast_${version}_amd64.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "$package"
