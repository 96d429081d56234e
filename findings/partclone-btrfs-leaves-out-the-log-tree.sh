#!/bin/sh
# partclone 0.3.23 and btrfs-progs 6.2 (Debian 12), any kernel with btrfs.
# A btrfs that was snapshotted while it was mounted (by LVM, a virtual machine's disk) is consistent: the kernel mounts it, and
# what was fsynced since the last commit is there, in a log tree. That tree is in no extent tree, and partclone.btrfs takes what
# is in the extent tree for all that is used. It clones the snapshot, says "successfully", and the restored file system, on a
# disk that held anything before or on a blank one, cannot be mounted. `btrfs rescue zero-log` makes it mount, without the
# fsynced data.
set -eu
export LC_ALL=C
for tool in apt-get dpkg losetup mount; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
[ "$(id -u)" = 0 ] || { echo 'needs root, to mount'; exit 1; }
dir=$(mktemp -d)
loop=
free() {
    ! mountpoint -q "$dir/at" || umount "$dir/at"
    [ -z "$loop" ] || losetup -d "$loop"
    loop=
}
trap 'free; rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for want in "btrfs-progs 6.2" "partclone 0.3.23"; do
    name=${want% *}
    found=$(version "$name" "${want#* }")
    [ -n "$found" ] || { echo "no $want here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export PATH="$dir/root/bin:$dir/root/usr/bin:$dir/root/sbin:$dir/root/usr/sbin:$PATH"
mkdir at
mounts() {
    loop=$(losetup -f --show "$1")
    mount -t btrfs "$loop" at 2>/dev/null
}

truncate -s 200M volume
mkfs.btrfs -q volume >/dev/null
mounts volume || { echo 'this kernel mounts no btrfs'; exit 1; }
mount -o remount,commit=300 at
echo committed >at/old
sync -f at
dd if=/dev/urandom of=at/new bs=200k count=1 conv=fsync status=none
sum=$(cksum <at/new)
cp volume snapshot
free

cp snapshot copy
mounts copy
[ "$(cksum <at/new)" = "$sum" ]
free
echo 'snapshot: mounts, the fsynced file is there'
partclone.btrfs -c -s snapshot -o image -L log >said 2>&1
grep -o 'Partclone successfully cloned' said
truncate -s 200M restored
partclone.btrfs -r -s image -O restored -L log >said 2>&1
if mounts restored; then echo 'the restored file system mounts'; exit 1; fi
free
btrfs check restored 2>&1 | grep "Couldn't setup log root tree"
btrfs rescue zero-log restored >/dev/null 2>&1
mounts restored
[ -e at/old ] && [ ! -s at/new ]
echo 'as described: it mounts after zero-log only, without the fsynced data'
