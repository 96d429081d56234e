#!/usr/bin/env bash
# Shows the main job on this machine: ./demo.sh [IMAGE-SOURCE] [--nodes N]
#
# Builds the programs, makes a sample disk (a Debian system; or takes IMAGE-SOURCE: a disk, a disk image or a .slide
# file), deploys it to N nodes (4) behind two server cards, then an increment, and compares every disk. Nothing
# outside this folder and the cache folder is changed; a few minutes the first time, under a minute after that.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;; esac
here=$(cd "$(dirname "$0")" && pwd)
args=()
for arg; do
    # Names of files are meant from where the caller is.
    [ ! -e "$arg" ] || arg=$(realpath "$arg")
    args+=("$arg")
done
cd "$here"
. qemu-tests/need.sh

need_rust
need_tools ip tc mount losetup unshare setpriv mkswap mke2fs debugfs mkfs.vfat mcopy sgdisk
[ -n "${1:-}" ] && [ "${1#--}" = "$1" ] || need_tools "${SAMPLE_TOOLS[@]}"
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
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null && [ -z "${1:-}" ]; then
    # A user namespace of the lab's kind has too few user ids to install a system in.
    "$target_dir/release/slidecast-lab" sample >/dev/null
fi
exec "$target_dir/release/slidecast-lab" demo "${args[@]}"
