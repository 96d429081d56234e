#!/bin/sh
# dissect.xfs 3.13 (PyPI), with a file system of xfsprogs 6.1 (Debian 12 has 6.1.0).
# XFS may have directory blocks larger than its other blocks (mkfs.xfs -n size=...). Of a directory with more than one such block's
# worth of entries dissect.xfs lists a part, without an error: 4 KiB directory blocks over 1 KiB blocks give fewer than half of 300 names,
# 64 KiB over 4 KiB none of them. With directory blocks as large as the others all are there.
set -eu
export LC_ALL=C
for tool in python3 mkfs.xfs xfs_repair; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install dissect.xfs==3.13 dissect.util==3.24 dissect.cstruct==4.7

echo text >file
{
    printf '/stand/none\n0 0\nd--755 0 0\nmany d--755 0 0\n'
    for i in $(seq 300); do echo "a-name-of-some-length-$i ---644 0 0 file"; done
    # shellcheck disable=SC2016
    printf '$\n$\n'
} >prototype
cat >list.py <<'P'
import sys
from dissect.xfs import XFS
names = XFS(open("volume", "rb")).get("/many").listdir()
print(*sys.argv[1:], sum(name.startswith("a-name") for name in names))
P
for sizes in '4096 4096' '1024 4096' '4096 65536'; do
    rm -f volume
    truncate -s 400M volume
    mkfs.xfs -q -b size="${sizes% *}" -n size="${sizes#* }" -p prototype volume
    xfs_repair -n -f volume >/dev/null 2>&1
    # shellcheck disable=SC2086
    venv/bin/python list.py $sizes
done >said
cat said
awk '{ seen[NR] = $3 } END { exit !(seen[1] == 300 && seen[2] < 150 && seen[3] == 0) }' said
echo 'as described: names are missing, without an error, where directory blocks are larger'
