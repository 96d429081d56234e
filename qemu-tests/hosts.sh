#!/usr/bin/env bash
# Runs the scripts of this repository on another distribution: qemu-tests/hosts.sh SUITE [COMMAND...]
#
# SUITE is what mmdebstrap can install: bookworm, trixie, noble. A minimal system is installed into the cache folder once;
# every run starts with it as it was made, so that the scripts have to install what they need. Each COMMAND is run there
# in a copy of this checkout [default: ./mkimage.sh, ./check.sh static unit lab, and ./demo.sh --lab]. The kernel, the network
# and /dev are this machine's; so is Rust, as the distributions' own is too old. Needs root and overlayfs.
#
# This checkout and its target folder are the lower layer of an overlay: nothing that runs there changes them, and what
# they have built already is not built again.
set -euo pipefail
case ${1:-} in '' | -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
here=$PWD
. qemu-tests/need.sh

enter() {
    local root=$1 command=$2 folder
    # Everything below is in a mount namespace of its own, which goes with the last process in it.
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/system,workdir=$work/system.work" "$root"
    for folder in proc sys dev run tmp var/tmp var/cache/slidecast; do mkdir -p "$root/$folder"; done
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    # An overlay is no place for loop devices.
    mount --bind "$work/tmp" "$root/tmp"
    mount --bind "$work/tmp" "$root/var/tmp"
    mount --bind "$kept" "$root/var/cache/slidecast"
    lay "$root" checkout "$here"
    lay "$root" rustup "${RUSTUP_HOME:-$HOME/.rustup}"
    lay "$root" cargo "${CARGO_HOME:-$HOME/.cargo}"
    case ${CARGO_TARGET_DIR:-} in '' | "$here"/*) ;; *) lay "$root" target "$CARGO_TARGET_DIR" ;; esac
    cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
    export SLIDECAST_CACHE=/var/cache/slidecast LC_ALL=C.UTF-8 PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    exec chroot "$root" "$BASH" -c "cd '$here' && $command"
}

# lay ROOT NAME FOLDER: the folder under its own name in there, with a layer of its own on top.
lay() {
    [ -d "$3" ] || return 0
    mkdir -p "$1$3" "$work/$2" "$work/$2.work"
    mount -t overlay overlay -o "lowerdir=$3,upperdir=$work/$2,workdir=$work/$2.work" "$1$3"
}

# install SUITE: the minimal system, in $cache/SUITE.
install_system() {
    local suite=$1 words=(--variant=minbase '--include=apt,ca-certificates')
    [ ! -d "$cache/$suite" ] || return 0
    case $suite in noble | jammy) words+=("--components=main,universe" "--keyring=$(ubuntu_keyring)") ;; esac
    echo "installing a minimal $suite into $cache/$suite (once)"
    rm -rf "$cache/$suite.half"
    mmdebstrap --quiet "${words[@]}" "$suite" "$cache/$suite.half"
    mv "$cache/$suite.half" "$cache/$suite"
}

# A folder with Ubuntu's keys: this system's, or those of Debian 13's package, which apt knows to be Debian's.
ubuntu_keyring() {
    local keys=$cache/ubuntu-keyring
    if [ -e /usr/share/keyrings/ubuntu-archive-keyring.gpg ]; then
        echo /usr/share/keyrings
        return
    fi
    if [ ! -d "$keys" ]; then
        install_system trixie >&2
        local get=$cache/get
        rm -rf "$get" && mkdir -p "$get/system" "$get/system.work" "$get/root"
        # shellcheck disable=SC2016
        base=$cache/trixie get=$get unshare --mount "$BASH" -ec '
            mount -t overlay overlay -o "lowerdir=$base,upperdir=$get/system,workdir=$get/system.work" "$get/root"
            cp /etc/resolv.conf "$get/root/etc/resolv.conf" 2>/dev/null || true
            chroot "$get/root" sh -ec "apt-get -qq update; cd /tmp; apt-get -qq download ubuntu-keyring"' >&2
        dpkg-deb -x "$get"/system/tmp/ubuntu-keyring_*.deb "$get/keys"
        mv "$get/keys/usr/share/keyrings" "$keys"
        rm -rf "$get"
    fi
    echo "$keys"
}

if [ "$1" = --inside ]; then
    base=$2 work=$3 kept=$4
    enter "$work/root" "$5"
fi

[ "$(id -u)" = 0 ] || die 'must be root: it mounts and changes its root folder'
need_tools mmdebstrap unshare mount
suite=$1
shift
[ $# -gt 0 ] || set -- './mkimage.sh --key none --out /tmp/out' './check.sh static unit lab' './demo.sh --lab'
cache=${SLIDECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slidecast}/hosts
mkdir -p "$cache/$suite.cache"
install_system "$suite"
base=$cache/$suite kept=$cache/$suite.cache
work=$(mktemp -d -p "$cache")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir "$work"/{root,system,system.work,tmp}
chmod 1777 "$work/tmp"

failed=0
for command; do
    started=$SECONDS status=0
    echo "== $suite: $command"
    # A process namespace too: when this script ends, whatever runs in there does.
    unshare --mount --pid --fork --kill-child "$BASH" "$0" --inside "$base" "$work" "$kept" "$command" </dev/null || status=$?
    echo "== $suite: $command: exit $status after $((SECONDS - started)) s"
    [ "$status" = 0 ] || failed=$((failed + 1))
done
echo "$(($# - failed)) passed, $failed failed"
[ "$failed" = 0 ]
