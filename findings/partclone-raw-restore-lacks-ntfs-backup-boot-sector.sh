#!/bin/sh
# partclone 0.3.23 and ntfs-3g 1:2022.10.3 (Debian 12).
# partclone.ntfs -c and then partclone.restore -W on a whole NTFS partition give a file of the right length whose last sector
# is zeros instead of the source's. That sector is where NTFS keeps its backup boot sector: it lies behind the volume's last
# cluster, so that a copy by the cluster bitmap does not reach it. All the rest is equal.
set -eu
export LC_ALL=C
for tool in apt-get dpkg; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for want in "ntfs-3g 1:2022.10.3" "libntfs-3g89 1:2022.10.3" "partclone 0.3.23"; do
    name=${want% *}
    found=$(version "$name" "${want#* }")
    [ -n "$found" ] || { echo "no $want here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export LD_LIBRARY_PATH="$dir/root/lib/x86_64-linux-gnu:$dir/root/usr/lib/x86_64-linux-gnu"
export PATH="$dir/root/bin:$dir/root/usr/bin:$dir/root/sbin:$dir/root/usr/sbin:$PATH"

truncate -s 32M volume
mkntfs -q -F -p 0 volume >/dev/null 2>&1
partclone.ntfs -c -s volume -o clone -L log >/dev/null 2>&1
partclone.restore -W -s clone -o restored -L log >/dev/null 2>&1
[ "$(wc -c <volume)" = "$(wc -c <restored)" ]
last=$((32 * 1024 * 1024 - 512))
[ "$(tail -c 512 volume | head -c 7 | tail -c 4)" = NTFS ]
echo "last sector of the source: a boot sector of NTFS"
[ "$(tail -c 512 restored | tr -d '\000' | wc -c)" = 0 ]
echo "last sector of the restored file: zeros"
cmp -n $last volume restored
echo 'as described: equal but for the backup boot sector'
