#!/bin/sh
# dissect.volume 3.18 (PyPI), with a table of util-linux 2.38 (Debian 12).
# The last sector that a GPT names for a partition belongs to it (UEFI 2.10, 5.3.3). dissect.volume gives partitions of a GPT one
# sector less than they have, those of an MBR all of it. That sector holds the second boot sector of NTFS and the superblock of
# md 0.90 and 1.0: whoever copies or reads a partition through the library does not have it.
set -eu
export LC_ALL=C
for tool in python3 sfdisk; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install dissect.volume==3.18 dissect.util==3.24 dissect.cstruct==4.7

cat >list.py <<'P'
import sys
from dissect.volume.disk import Disk
disk = Disk(open(sys.argv[1], "rb"))
print(sys.argv[1], [(part.offset // 512, part.size // 512) for part in disk.partitions])
P
for label in dos gpt; do
    truncate -s 100M $label
    printf 'label: %s\nstart=2048,size=20480\nstart=22528,size=4096\n' $label | sfdisk -q $label
    venv/bin/python list.py $label
done >said
cat said
printf 'dos [(2048, 20480), (22528, 4096)]\ngpt [(2048, 20479), (22528, 4095)]\n' | cmp - said
echo 'as described: one sector less than the table says, of GPT only'
