#!/bin/sh
# dissect.extfs 3.15 (PyPI), with a file system of e2fsprogs 1.47 (Debian 12 has 1.47.0).
# ext4 with inline_data keeps a small directory within its inode: four bytes of the parent's number, then entries. dissect.extfs
# reads the entries from the first byte on: it lists one empty name in place of the files, without an error, and what is in the
# directory is found by no path. The same directory without inline_data is read whole.
set -eu
export LC_ALL=C
for tool in python3 mke2fs debugfs e2fsck; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install dissect.extfs==3.15 dissect.util==3.24 dissect.cstruct==4.7

mkdir -p files/small
echo text >files/small/name
cat >list.py <<'P'
import sys
from dissect.extfs import ExtFS
print(sys.argv[1], list(ExtFS(open(sys.argv[1], "rb")).get("/small").listdir()))
P
for features in extents inline_data; do
    truncate -s 60M $features
    mke2fs -q -t ext4 -O $features -d files $features
    e2fsck -fn $features >/dev/null 2>&1
    debugfs -R 'cat small/name' $features 2>/dev/null | grep -qx text
    venv/bin/python list.py $features
done >said
cat said
printf "extents ['.', '..', 'name']\ninline_data ['']\n" | cmp - said
echo 'as described: debugfs reads the file, and the library shows an empty name'
