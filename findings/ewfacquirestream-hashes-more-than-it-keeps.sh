#!/bin/sh
# ewf-tools 20140813 (Debian 12).
# ewfacquirestream takes a stream into an E01 image, in sectors of 512 bytes. If the stream ends within a sector, those last bytes
# go into the MD5 that is kept in the image, but not into the image: the media size is rounded down, the program ends with
# SUCCESS, and ewfverify refuses what has just been made. With whole sectors everything agrees. Who takes an image from a pipe
# has to fill up the last sector first.
set -eu
export LC_ALL=C
for tool in apt-get dpkg cmp; do command -v $tool >/dev/null || { echo "needs $tool"; exit 1; }; done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version() { apt-cache madison "$1" | cut -d'|' -f2 | tr -d ' ' | grep "^$2" | head -n 1; }
for want in "ewf-tools 20140813" "libewf2 20140813" "libbfio1 "; do
    name=${want% *}
    found=$(version "$name" "${want#* }")
    [ -n "$found" ] || { echo "no $want here"; exit 1; }
    apt-get download -qq "$name=$found" 2>/dev/null
done
for deb in *.deb; do dpkg -x "$deb" root; done
export LD_LIBRARY_PATH="$dir/root/usr/lib/x86_64-linux-gnu"
export PATH="$dir/root/usr/bin:$PATH"

head -c 1000123 /dev/urandom >stream.odd
head -c 999936 stream.odd >stream.even
for name in odd even; do
    ewfacquirestream -q -t $name -f encase6 <stream.$name >$name.said 2>&1 || { echo "$name: not taken"; exit 1; }
    grep -q SUCCESS $name.said
    ewfinfo $name.E01 | grep -q '(999936 bytes)' || { echo "$name: another media size"; exit 1; }
    ewfverify -q $name.E01 >$name.verified 2>&1 || :
done
stored() { sed -n 's/^MD5 hash stored in file:[[:space:]]*//p' "$1.verified"; }
[ "$(stored odd)" = "$(md5sum <stream.odd | cut -d' ' -f1)" ] || { echo 'the stored hash is not that of the whole stream'; exit 1; }
grep -q SUCCESS even.verified || { echo 'whole sectors do not verify either'; exit 1; }
grep FAILURE odd.verified || { echo 'ewfverify accepts it'; exit 1; }
echo 'as described: 187 bytes are in the hash and not in the image'
