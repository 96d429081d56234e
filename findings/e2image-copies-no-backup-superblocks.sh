#!/bin/sh
# e2fsprogs 1.47.0 (Debian 12).
# `e2image -ra` (raw, with the data of files) is used to clone or move a whole ext4. Its copy mounts, passes e2fsck and is equal to
# the source but for one thing: none of the backup superblocks and backup group descriptors is in it, though the superblock says
# that they exist. Once the primary is lost, `e2fsck -b` finds nothing to go on with. A copy of all blocks in use has them.
set -eu
export LC_ALL=C
for tool in apt-get dpkg cmp; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
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

truncate -s 64M source
mke2fs -q -t ext4 -b 1024 source
head -c 3000000 /dev/urandom >file
debugfs -w -R 'write file file' source >/dev/null 2>&1
e2image -ra source copy >/dev/null 2>&1

e2fsck -fn copy >/dev/null 2>&1 || { echo 'e2fsck finds fault with the copy'; exit 1; }
backups=$(dumpe2fs copy 2>/dev/null | sed -n 's/.*Backup superblock at \([0-9]*\),.*/\1/p')
echo "the copy's superblock lists backups at" "$(echo "$backups" | tr "\n" " ")"
# Where they differ, in blocks of 1024 bytes: each backup, and the descriptors behind it.
{ cmp -l source copy || :; } | awk '{ print int(($1 - 1) / 1024) }' | sort -nu >differ
# e2fsck ends with 8 or more if it can't even begin; counts that a backup has of earlier times are no trouble here.
has() { e2fsck -fn -b "$2" -B 1024 "$1" >/dev/null 2>&1 || [ $? -lt 8 ]; }
for at in $backups; do
    has source "$at" || { echo "the source has no backup at $at"; exit 1; }
    if has copy "$at"; then echo "the copy has the backup at $at"; exit 1; fi
    printf '%s\n' "$at" $((at + 1)) >>expected
done
cmp expected differ || { echo 'other blocks differ than the backups'; exit 1; }
echo 'as described: clean, the file equal, and not one backup superblock in the copy'
