#!/bin/sh
# libqcow-python 20260703 (PyPI), with images of qemu-img 7.2 (Debian 12).
# Compressed clusters of a qcow2 lie one behind the other, at any byte. libqcow gives zeros, and no error, for those whose offset
# in the file is odd: about half of those of an image that qemu-img -c made. Clusters at even offsets, and the same disk without
# compression, are read right. Whoever converts or searches compressed images through the library loses that content.
set -eu
export LC_ALL=C
for tool in python3 qemu-img; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install libqcow-python==20260703

cat >make.py <<'P'
import random
numbers = random.Random(1)
with open("raw", "wb") as raw:
    for cluster in range(64):
        raw.write(numbers.randbytes(1000 + cluster).ljust(65536, b"x"))
P
cat >read.py <<'P'
import struct, sys, pyqcow
raw, file = open("raw", "rb").read(), open(sys.argv[1], "rb").read()
disk = pyqcow.file()
disk.open(sys.argv[1])
read = disk.read(disk.get_media_size())
word = lambda at: struct.unpack(">Q", file[at:at + 8])[0]
table = word(word(40)) & 0x00FFFFFFFFFFFE00
said = {}
for cluster in range(64):
    entry, part = word(table + 8 * cluster), slice(65536 * cluster, 65536 * (cluster + 1))
    # Bit 62: compressed; bits 0 to 53 are then the offset for clusters of 64 KiB.
    where = ["even", "odd"][entry & 1] if entry >> 62 & 1 else "plain"
    how = "right" if read[part] == raw[part] else "zeros" if read[part] == bytes(65536) else "other"
    said.setdefault(where, set()).add(how)
print(sys.argv[1], *(f"{where}: {' '.join(sorted(said[where]))}" for where in sorted(said)), sep="; ")
P
venv/bin/python make.py
qemu-img convert -f raw -O qcow2 raw plain.qcow2
qemu-img convert -c -f raw -O qcow2 raw packed.qcow2
for image in plain packed; do
    qemu-img compare -q -f raw -F qcow2 raw $image.qcow2
    venv/bin/python read.py $image.qcow2
done >said
cat said
printf 'plain.qcow2; plain: right\npacked.qcow2; even: right; odd: zeros\n' | cmp - said
