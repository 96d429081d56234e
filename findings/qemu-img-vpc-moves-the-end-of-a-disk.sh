#!/bin/sh
# qemu-utils 1:7.2 (Debian 12), gdisk 1.0.9.
# A raw disk of exactly 64 MiB that goes through `qemu-img convert -O vpc` (VHD) and back is 16 KiB longer: the format's
# cylinders, heads and sectors cannot express 131072 sectors, and qemu-img rounds the size up to the next geometry that it
# can. vdi, vhdx and vmdk keep the size. A GPT in that disk then has its backup header no longer in the last sector, which
# gdisk calls a problem: whoever images a disk from a VHD gets a table to be fitted. `-o force_size=on` keeps the size.
set -eu
export LC_ALL=C
for tool in apt-get dpkg; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for want in "qemu-utils 1:7.2+" "gdisk 1.0.9" "libaio1 0.3" "liburing2 2.3"; do
    name=${want% *}
    found=$(version "$name" "${want#* }")
    [ -n "$found" ] || { echo "no $want here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export LD_LIBRARY_PATH="$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu"
export PATH="$dir/root/usr/bin:$dir/root/sbin:$dir/root/usr/sbin:$PATH"
qemu-img --version | head -n 1
size() { wc -c <"$1"; }

truncate -s 64M disk.raw
sgdisk -n1:2048:+20M disk.raw >/dev/null
[ "$(sgdisk -v disk.raw | grep -c 'No problems found')" = 1 ]
for format in vdi vhdx vmdk vpc; do
    qemu-img convert -f raw -O $format disk.raw disk.$format
    qemu-img convert -f $format -O raw disk.$format back.$format
    echo "$format: $(size back.$format) bytes come back of $(size disk.raw)"
done
for format in vdi vhdx vmdk; do cmp disk.raw back.$format; done
[ "$(size back.vpc)" = 67125248 ]
sgdisk -v back.vpc >said 2>&1 || true
grep "doesn't reside" said
qemu-img convert -f raw -O vpc -o force_size=on disk.raw forced.vpc
qemu-img convert -f vpc -O raw forced.vpc forced.raw
cmp disk.raw forced.raw
echo 'as described: only VHD made by default moves the end of the disk'
