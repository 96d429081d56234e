#!/usr/bin/env bash
# Shows the main job on this machine: ./demo.sh [--nodes N], or ./demo.sh --lab [IMAGE-SOURCE] [--nodes N], or ./demo.sh --serve [--port P]
#
# Builds the programs and a sample disk with a Debian system. Then N virtual machines (3) with empty disks boot from the
# network, are written, restart from their own disks and show their login. With --lab there are no virtual machines: N
# nodes (4) in network namespaces behind two server cards get the sample disk (or IMAGE-SOURCE: a disk, a disk image or
# a .slide file), then an increment, and every disk is compared. With --serve a standing server with four such nodes runs until
# Ctrl-C, to be operated in a browser of this machine: the link is printed (root or sudo). Packages that are missing are installed; nothing else
# outside this folder and the cache folder is changed. A few minutes the first time.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;; esac
here=$(cd "$(dirname "$0")" && pwd)
args=() lab='' source='' serve=''
for arg; do
    case $arg in
        --lab) lab=yes; continue ;;
        --serve) serve=yes lab=yes source=none; continue ;;
        --nodes* | --port*) ;;
        *[!0-9]*) lab=yes source=yes ;;
    esac
    # Names of files are meant from where the caller is.
    [ ! -e "$arg" ] || arg=$(realpath "$arg")
    args+=("$arg")
done
cd "$here"
. qemu-tests/need.sh

need_rust
need_tools ip tc mount losetup unshare setpriv mkswap mke2fs debugfs mkfs.vfat mcopy sgdisk
[ -z "$serve" ] || need_tools socat
[ -n "$source" ] || need_tools "${SAMPLE_TOOLS[@]}"
[ -n "$lab" ] || (need_tools "${MACHINE_TOOLS[@]}") || die 'no virtual machines here: ./demo.sh --lab does without'
need_static_target

target_dir=${CARGO_TARGET_DIR:-$PWD/target}
quiet=()
[ -t 2 ] || quiet=(--quiet)
[ -x "$target_dir/release/slidecast" ] || echo 'building SlideCast (a few minutes the first time)'
cargo build "${quiet[@]}" --release -p slidecast-server -p slidecast-lab
cargo build "${quiet[@]}" --release --target "$(static_target)" -p slidecast-agent

export SLIDECAST=$target_dir/release/slidecast
SLIDECAST_AGENT=$target_dir/$(static_target)/release/slidecast-agent
export SLIDECAST_AGENT
export SLIDECAST_CACHE=${SLIDECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slidecast}
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null && [ -z "$source" ]; then
    # A user namespace of the lab's kind has too few user ids to install a system in.
    "$target_dir/release/slidecast-lab" sample >/dev/null
fi
[ -z "$serve" ] || exec "$target_dir/release/slidecast-lab" serve "${args[@]}"
[ -n "$lab" ] || exec "$target_dir/release/slidecast-lab" machines "${args[@]}"
exec "$target_dir/release/slidecast-lab" demo "${args[@]}"
