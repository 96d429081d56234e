#!/bin/sh
# partclone 0.3.23 (Debian 12).
# ext4 can keep its free space by clusters of several blocks (mke2fs -O bigalloc). partclone.extfs counts free blocks right there,
# but reads the bitmaps as if a bit stood for a block: the image holds blocks that are free, lacks some that are used, and both
# the program and the restore report success. What is restored has no journal any more, and e2fsck refuses to go on. Without
# bigalloc the same volume comes back whole.
set -eu
export LC_ALL=C
for tool in apt-get dpkg mke2fs e2fsck cmp; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for want in "partclone 0.3.23" "libfuse2 " "nilfs-tools " "libntfs-3g89 "; do
    name=${want% *}
    found=$(version "$name" "${want#* }")
    [ -n "$found" ] || { echo "no $want here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export LD_LIBRARY_PATH="$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu"
export PATH="$dir/root/usr/sbin:$dir/root/sbin:$PATH"

mkdir files
head -c 100000 /dev/urandom >files/file
copy() { # NAME [OPTION of mke2fs]...
    name=$1; shift
    truncate -s 200M "$name"
    mke2fs -q -t ext4 -b 1024 "$@" -d files "$name"
    e2fsck -fn "$name" >/dev/null 2>&1 || { echo "$name: damaged from the start"; exit 1; }
    partclone.extfs -c -F -s "$name" -o "$name.image" -L log >/dev/null 2>&1 || { echo "$name: not cloned"; exit 1; }
    head -c 209715200 /dev/zero | tr '\0' '\252' >"$name.back"
    partclone.restore -s "$name.image" -O "$name.back" -C -L log >/dev/null 2>&1 || { echo "$name: not restored"; exit 1; }
    grep -q 'successfully restored' log
}
copy plain
e2fsck -fn plain.back >/dev/null 2>&1 || { echo 'without bigalloc it is damaged too'; exit 1; }
copy clusters -O bigalloc -C 65536
if e2fsck -fn clusters.back >said 2>&1; then echo 'with bigalloc it comes back whole'; exit 1; fi
grep 'journal superblock is corrupt' said | tail -n 1 | sed 's/.*: //'
# Blocks of the source that are not zero and were not written: 0xaa is what the target held before.
lost=$({ cmp -l clusters clusters.back || :; } | awk '$3 == 252 && $2 != 0 { print int(($1 - 1) / 1024) }' | uniq | wc -l)
[ "$lost" -gt 0 ] || { echo 'no block is lost'; exit 1; }
echo "as described: success is reported, and $lost blocks with data are not in the image"
