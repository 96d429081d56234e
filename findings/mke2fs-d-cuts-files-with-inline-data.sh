#!/bin/sh
# e2fsprogs 1.47.0 (Debian 12).
# `mke2fs -d DIR` fills a new ext4 with files; images of systems are built that way. With -O inline_data every file that ends in a
# hole is cut where its last block with data ends, a file of 1 MiB to 1 KiB here: mke2fs ends with 0, and e2fsck finds nothing wrong
# with what is a shorter file now. Without inline_data the length is right.
set -eu
export LC_ALL=C
for tool in apt-get dpkg; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for name in e2fsprogs libext2fs2; do
    found=$(version $name 1.47.0)
    [ -n "$found" ] || { echo "no $name 1.47.0 here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export LD_LIBRARY_PATH="$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu"
export PATH="$dir/root/sbin:$dir/root/usr/sbin:$PATH"

mkdir files
truncate -s 1M files/hole
printf abc | dd of=files/hole conv=notrunc status=none
for features in extents inline_data; do
    truncate -s 60M $features
    mke2fs -q -t ext4 -b 1024 -O $features -d files $features
    e2fsck -fn $features >/dev/null 2>&1 || { echo "$features: damaged"; exit 1; }
    debugfs -R 'dump hole out' $features 2>/dev/null
    echo "$features $(stat -c %s out)"
done >said
cat said
printf 'extents 1048576\ninline_data 1024\n' | cmp - said
echo 'as described: cut without a word, and clean for e2fsck'
