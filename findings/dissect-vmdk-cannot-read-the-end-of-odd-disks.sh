#!/bin/sh
# dissect.hypervisor 3.21 (PyPI), with disks of qemu-img 7.2 (Debian 12).
# dissect reads a VMDK in pieces of 8 KiB. Where the disk is no whole number of those, as one of whole cylinders of 255 heads and
# 63 sectors, the last piece is asked for beyond the last extent: IndexError, and what the disk holds there is not had by a read
# that ends at its size either. Its readers of VHD, VDI and qcow2 read the same disk to its end.
set -eu
export LC_ALL=C
for tool in python3 qemu-img; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip -q install dissect.hypervisor==3.21 dissect.util==3.24 dissect.cstruct==4.7

cat >read.py <<'P'
import sys
from pathlib import Path
from dissect.hypervisor.disk.qcow2 import QCow2
from dissect.hypervisor.disk.vdi import VDI
from dissect.hypervisor.disk.vmdk import VMDK
name, kind = sys.argv[1], sys.argv[2]
disk = VMDK(Path(name + ".vmdk")) if kind == "vmdk" else {"vdi": VDI, "qcow2": QCow2}[kind](open(f"{name}.{kind}", "rb"))
disk = disk if hasattr(disk, "read") else disk.open()
disk.seek(disk.size - 512)
try:
    end = "right" if disk.read(512) == open(name, "rb").read()[-512:] else "wrong"
except Exception as error:
    end = type(error).__name__
print(name, kind, end)
P
for disk in even:16384 cylinders:16065; do
    name=${disk%:*} sectors=${disk#*:}
    truncate -s $((512 * (sectors - 1))) "$name"
    printf '%-512s' end >>"$name"
    for kind in qcow2 vdi vmdk; do
        qemu-img convert -f raw -O $kind "$name" "$name.$kind"
        qemu-img compare -q -f raw -F $kind "$name" "$name.$kind"
        venv/bin/python read.py "$name" $kind
    done
done >said
cat said
cat >expected <<'E2'
even qcow2 right
even vdi right
even vmdk right
cylinders qcow2 right
cylinders vdi right
cylinders vmdk IndexError
E2
cmp expected said
