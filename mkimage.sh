#!/usr/bin/env bash
# Makes the boot files: ./mkimage.sh --key server.key.pub [OPTION...]. docs/BOOT.md says what to do with them.
#
#   --key FILE|HEX|none|insecure   the server's public key, for agents to pin; none: slidecast.key= on the kernel command
#                          line brings it; insecure: agents obey any server [default: that of this user's state folder]
#   --modules SET          drivers: virtio, common (wired PCs and servers) or all [default: common]
#   --cmdline WORDS        further words of the kernel command line, say 'slidecast.attended=1'
#   --kernel FILE --kernel-modules DIR   another kernel, and its lib/modules/VERSION [default: the current one of this Debian or Ubuntu]
#   --add DIR              what is to lie in the initramfs as well: lib/firmware, or bin/busybox for slidecast.shell=1
#   --agent FILE           the static agent [default: built here]
#   --sign KEY CERT        signs the UKI for Secure Boot (PEM files)
#   --out DIR              where the files go [default: out]
#
# Into DIR: vmlinuz, initramfs.img, slidecast.efi (UKI), slidecast.iso (stick or CD, BIOS and UEFI), boot.ipxe and
# manifest.txt. Same input, same bytes, but for signatures. Only tools that are missing are installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/qemu-tests/need.sh"
. "$here/initramfs/kernel.sh"
umask 022
# FAT knows no time before 1980.
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}
set=common out=out key='' extra='' kernel='' modules='' add='' agent='' sign=()
while [ $# -gt 0 ]; do
    case $1 in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;; esac
    [ $# -ge 2 ] || die "$1 is no option, or lacks its value: see --help"
    case $1 in
        --sign) [ $# -ge 3 ] || die '--sign needs KEY and CERT'; sign=("$2" "$3"); shift ;;
        --key) key=$2 ;; --modules) set=$2 ;; --cmdline) extra=$2 ;; --kernel) kernel=$2 ;; --kernel-modules) modules=$2 ;;
        --add) add=$2 ;; --agent) agent=$2 ;; --out) out=$2 ;;
        *) die "$1 is no option: see --help" ;;
    esac
    shift 2
done

step() { printf '%-10s %s\n' "$1" "$2"; }
[ "$(uname -m)" = x86_64 ] || die 'boot files are made for x86-64, on x86-64'
[ -f "$here/initramfs/modules.$set" ] || die "no module set is called $set (virtio, common, all)"
given=(${agent:+"$agent"} ${add:+"$add"} "${sign[@]}")
[ -z "$kernel$modules" ] || given+=("${kernel:---kernel FILE}" "${modules:---kernel-modules DIR}"/{kernel,modules.order,modules.builtin})
for file in "${given[@]}"; do [ -r "$file" ] || die "$file cannot be read"; done
own=${XDG_STATE_HOME:-$HOME/.local/state}/slidecast/server.key.pub
[ -n "$key" ] || [ ! -r "$own" ] || key=$own
[ -n "$key" ] || die 'no server key: give --key FILE.pub (slidecast key new -o FILE makes one)'
# A secret key is refused and never shown. Key files of older versions do not say which half they hold, the other one beside does.
secret() { die "--key${1:+ $1}: this is a secret key, which never leaves its server: give the public one${1:+, $1.pub}"; }
named=''
if [ -f "$key" ]; then
    named=$key key=$(head -c 256 "$named" | tr -d '[:space:]\0')
    case $key in
        slidecast-secret-key-v1:*) secret "$named" ;;
        slidecast-public-key-v1:*) ;;
        *) [ ! -f "$named.pub" ] || [ "$(sed 's/^slidecast-public-key-v1://' "$named.pub")" = "$key" ] || secret "$named" ;;
    esac
fi
case "$key $extra" in *slidecast-secret-key-v1:*) secret '' ;; esac
key=${key#slidecast-public-key-v1:}
# A name that is mistyped is shown; what may be a part of a key is not.
[ -n "$named" ] || [[ $key =~ [0-9a-f]{16} ]] || named=$key
[[ $key =~ ^([0-9a-f]{64}|none|insecure)$ ]] || die "--key${named:+ $named}: no such file, nor a public key of 64 hexadecimal digits"
[ "$key" != insecure ] || extra="slidecast.key=insecure $extra"
read -r cmdline <<<"console=tty0 console=ttyS0,115200 quiet panic=60 $extra"

isolinux=/usr/lib/ISOLINUX ldlinux=/usr/lib/syslinux/modules/bios/ldlinux.c32 stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
need_tools "${IMAGE_TOOLS[@]}" ${sign[0]:+sbsign}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "$agent" ]; then
    step agent 'building it, static'
    need_rust && need_static_target
    cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target "$(static_target)" -p slidecast-agent
    agent=${CARGO_TARGET_DIR:-$here/target}/$(static_target)/release/slidecast-agent
fi
step agent "$("$agent" --version)"
if [ -z "$kernel" ]; then
    fetch_kernel "${SLIDECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slidecast}/kernel" "$work/package"
fi
modules=$(realpath "$modules") version=${modules##*/}
step kernel "$version"

# depmod's tables are made anew, of all modules and then of the chosen ones: an unpacked package has none.
all=$work/all/lib/modules/$version tree=$work/tree/lib/modules/$version
mkdir -p "$all" "$tree" "$work"/tree/{dev,proc,sys,run,tmp,etc/slidecast}
ln -s "$modules/kernel" "$all/kernel"
# Debian's depmod does not read .gz.
[ -z "$(find -L "$all/kernel" -name '*.ko.gz' -print -quit)" ] || { rm "$all/kernel"; cp -rL "$modules/kernel" "$all"; gzip -qdr "$all/kernel"; }
cp "$modules"/modules.{order,builtin*} "$all"; depmod -b "$work/all" "$version"
sed 's/ *#.*//;/^$/d' "$here/initramfs/modules.$set" | while read -r name; do
    case $name in */) find -L "$all/kernel/$name" -name '*.ko*' -printf '%f\n' 2>/dev/null | sed 's/\.ko.*//' ;; *) echo "$name" ;; esac
done | while read -r name; do
    modprobe -C /dev/null -d "$work/all" -S "$version" --show-depends "$name" 2>/dev/null || echo "absent $name"
done | sort -u >"$work/found"
(cd "$all" && awk -v from="$all/" '$1 == "insmod" { print substr($2, length(from) + 1) }' "$work/found" | xargs cp -L --parents -t "$tree")
find "$tree" \( -name '*.ko.xz' -exec xz -d {} + -o -name '*.ko.zst' -exec zstd -qd --rm {} + \)
cp "$modules"/modules.{order,builtin*} "$tree"; depmod -b "$work/tree" "$version"
find "$tree" -maxdepth 1 -type f ! -name 'modules.dep' ! -name 'modules.alias' ! -name 'modules.softdep' ! -name 'modules.builtin' -delete
absent=$(sed -n 's/^absent //p' "$work/found" | paste -sd ' ')
step modules "$set: $(find "$tree" -name '*.ko' | wc -l)${absent:+; not in this kernel: $absent}"

step key "$key"
install -m 755 "$agent" "$work/tree/init"
[ ${#key} != 64 ] || echo "slidecast-public-key-v1:$key" >"$work/tree/etc/slidecast/server.pub"
[ -z "$add" ] || cp -rL "$add/." "$work/tree"
# Packages of newer distributions have it below usr; the kernel of the initramfs looks in /lib/firmware.
if [ -d "$work/tree/usr/lib/firmware" ]; then
    mkdir -p "$work/tree/lib/firmware"
    cp -r "$work/tree/usr/lib/firmware/." "$work/tree/lib/firmware"
    rm -r "$work/tree/usr/lib/firmware"
fi
# Ubuntu's kernel can be read by root alone; what is made here is for other programs to serve.
mkdir -p "$out" && install -m 644 "$kernel" "$out/vmlinuz"
find "$work/tree" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$work/tree" && find . -mindepth 1 | sort | cpio --quiet -o -H newc -R 0:0 --reproducible) | zstd -q -19 -T0 >"$out/initramfs.img"

# The sections of a UKI lie behind those of the stub.
printf 'ID=slidecast\nNAME=SlideCast\nVERSION_ID=%s\n' "$version" >"$work/osrel"
printf %s "$cmdline" >"$work/cmdline"
at=$(objdump -h "$stub" | awk '$1 ~ /^[0-9]+$/ { print "0x" $3 " + 0x" $4 }' | while read -r end; do echo $((end)); done | sort -n | tail -1)
sections=()
for section in ".osrel=$work/osrel" ".cmdline=$work/cmdline" ".linux=$out/vmlinuz" ".initrd=$out/initramfs.img"; do
    at=$(((at + 4095) / 4096 * 4096))
    sections+=(--add-section "$section" --change-section-vma "${section%%=*}=$at")
    at=$((at + $(stat -c %s "${section#*=}")))
done
uki=$out/slidecast.efi
objcopy "${sections[@]}" "$stub" "$uki"
# Time of day and check sum of the header: fields that nobody reads, and that differ each time.
for at in 8 88; do printf '\0\0\0\0' | dd of="$uki" bs=1 seek=$(($(od -An -tu4 -j60 -N4 "$uki") + at)) conv=notrunc status=none; done
[ ${#sign[@]} = 0 ] || sbsign --key "${sign[0]}" --cert "${sign[1]}" --output "$uki" "$uki" 2>"$work/said" || die "sbsign: $(<"$work/said")"
step UKI "${sign[1]:+signed, }$cmdline"
# BIOS starts isolinux, UEFI the UKI in a FAT partition behind the ISO file system.
mkdir -p "$work/iso/isolinux"
cp "$out/vmlinuz" "$out/initramfs.img" "$work/iso"
cp $isolinux/isolinux.bin $ldlinux "$work/iso/isolinux"
sed "s|@CMDLINE@|$cmdline|" "$here/initramfs/isolinux.cfg" >"$work/iso/isolinux/isolinux.cfg"
find "$work/iso" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
truncate -s $((($(stat -c %s "$uki") / 1048576 + 2) * 1048576)) "$work/esp"
mkfs.vfat -F 16 -n SLIDECAST --invariant "$work/esp" >/dev/null
mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
mcopy -i "$work/esp" "$uki" ::/EFI/BOOT/BOOTX64.EFI
xorriso -as mkisofs -quiet -V SLIDECAST -J -R -o "$out/slidecast.iso" -isohybrid-mbr $isolinux/isohdpfx.bin \
    -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
    --mbr-force-bootable -partition_offset 16 -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B "$work/esp" \
    -appended_part_as_gpt -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot "$work/iso" 2>"$work/said" ||
    die "xorriso: $(<"$work/said")"
# Names are taken beside the script. BOOTIF tells the agent which card the machine booted from.
cat >"$out/boot.ipxe" <<END
#!ipxe
kernel vmlinuz initrd=initramfs.img BOOTIF=01-\${netX/mac:hexhyp} $cmdline || goto failed
initrd initramfs.img || goto failed
boot
:failed
echo SlideCast: the boot files cannot be fetched; trying again in 10 s
sleep 10
chain boot.ipxe
END
for file in vmlinuz initramfs.img slidecast.efi slidecast.iso boot.ipxe; do
    printf '%s %9d %s\n' "$(sha256sum <"$out/$file" | cut -d' ' -f1)" "$(stat -c %s "$out/$file")" "$file"
done | tee "$out/manifest.txt" | cut -c66-
