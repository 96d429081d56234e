#!/bin/sh
# ntfs-3g 1:2022.10.3 and partclone 0.3.23 (Debian 12).
# `ntfsfix`, run on an NTFS volume without any fault, ends with "processed successfully" and leaves the volume marked for a
# check: partclone.ntfs, which cloned the volume before, now refuses it as shut down uncleanly. "Fix before imaging" in a
# capture script is what makes the capture fail. `ntfsfix -d` takes the mark off again and partclone clones.
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
clone() { partclone.ntfs -c -s volume -o "$1" -L log >said 2>&1; }

truncate -s 32M volume
mkntfs -q -F -p 0 volume >/dev/null 2>&1
clone first
echo 'fresh volume: cloned'
ntfsfix volume >fixed 2>&1
grep 'processed successfully' fixed
if clone second; then echo 'partclone cloned the volume after ntfsfix'; exit 1; fi
grep -o 'Volume .* is scheduled for a check' said
ntfsfix -d volume >/dev/null 2>&1
clone third
echo 'as described: refused after ntfsfix, cloned after ntfsfix -d'
