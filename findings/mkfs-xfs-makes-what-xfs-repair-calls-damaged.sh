#!/bin/sh
# xfsprogs 6.1.0 (Debian 12).
# mkfs.xfs, given an internal log as large as an allocation group less one stripe unit, ends without a word and with a file
# system that xfs_repair finds fault with at once: the free blocks in front of the aligned log are counted in the group's
# header, but are in neither of its trees. With one stripe unit more for the group both agree. Whoever reads free space by
# the trees and compares the counts (we do) has to keep such a volume whole though nobody has ever mounted it.
set -eu
export LC_ALL=C
for tool in apt-get dpkg; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for want in "xfsprogs 6.1.0" "libinih1 " "liburcu8 "; do
    name=${want% *}
    found=$(version "$name" "${want#* }")
    [ -n "$found" ] || { echo "no $want here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export LD_LIBRARY_PATH="$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu"
export PATH="$dir/root/sbin:$dir/root/usr/sbin:$PATH"

make() {
    truncate -s 500M volume
    mkfs.xfs -q -f -d "agsize=$1,su=64k,sw=2" -l size=16384b volume 2>/dev/null
    xfs_repair -n -f volume >said 2>&1
}
if make 16400b; then echo 'xfs_repair finds nothing wrong'; exit 1; fi
grep 'agf_freeblks .*, counted' said
grep 'sb_fdblocks .*, counted' said
make 16416b
echo 'as described: damaged from the start, and whole with a larger group'
