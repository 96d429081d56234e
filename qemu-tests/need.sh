# shellcheck shell=bash
# What check.sh and demo.sh need of a machine, and how they get it. To be sourced.

# QEMU's own boot ROMs: Debian 12 and Ubuntu 24.04 have them with iPXE, Debian 13 with QEMU.
qemu_rom=/usr/lib/ipxe/qemu/pxe-virtio.rom
[ -e "$qemu_rom" ] || [ ! -e /usr/share/qemu/pxe-virtio.rom ] || qemu_rom=/usr/share/qemu/pxe-virtio.rom

# shellcheck disable=SC2034
{
    # For a sample disk that boots.
    SAMPLE_TOOLS=(mmdebstrap syslinux /usr/lib/syslinux/mbr/gptmbr.bin /usr/lib/systemd/boot/efi/linuxx64.efi.stub)
    # For virtual machines, their firmware, network boot and boot files.
    MACHINE_TOOLS=(qemu-system-x86_64 /usr/share/OVMF/OVMF_CODE_4M.fd "$qemu_rom"
        dnsmasq /usr/lib/ipxe/undionly.kpxe /usr/lib/ipxe/snponly.efi
        cpio zstd xz depmod objcopy xorriso /usr/lib/ISOLINUX/isolinux.bin /usr/lib/systemd/boot/efi/linuxx64.efi.stub)
}

# Says one line and ends.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The Debian or Ubuntu package that has a command.
package_of() {
    case $1 in
        cc) echo gcc ;;
        c++) echo g++ ;;
        ip | tc) echo iproute2 ;;
        mount | losetup | unshare | setpriv | mkswap) echo mount util-linux ;;
        mke2fs | debugfs | dumpe2fs | e2fsck) echo e2fsprogs ;;
        nft) echo nftables ;;
        mkfs.vfat) echo dosfstools ;;
        mkntfs | ntfscp) echo ntfs-3g ;;
        mcopy | mmd) echo mtools ;;
        dnsmasq) echo dnsmasq-base ;;
        */undionly.kpxe | */snponly.efi) echo ipxe ;;
        depmod | modprobe) echo kmod ;;
        objcopy) echo binutils ;;
        xz) echo xz-utils ;;
        sbsign) echo sbsigntool ;;
        # The one that runs without any library.
        busybox) echo busybox-static ;;
        */isolinux.bin | */isohdpfx.bin) echo isolinux ;;
        */ldlinux.c32) echo syslinux-common ;;
        */linuxx64.efi.stub) echo systemd-boot-efi ;;
        sgdisk) echo gdisk ;;
        sfdisk) echo fdisk ;;
        musl-gcc) echo musl-tools ;;
        fusermount3) echo fuse3 ;;
        qemu-storage-daemon) echo qemu-system-common ;;
        qemu-system-x86_64) echo qemu-system-x86 ;;
        */pxe-virtio.rom) echo ipxe-qemu ;;
        */OVMF_CODE_4M.fd) echo ovmf ;;
        */gptmbr.bin) echo syslinux-common ;;
        syslinux) echo syslinux ;;
        mmdebstrap) echo mmdebstrap debian-archive-keyring ;;
        *) echo "$1" ;;
    esac
}

# need_tools COMMAND|FILE...: installs what is missing.
need_tools() {
    local tool found missing=() packages=() sudo=()
    export PATH="$PATH:/usr/sbin:/sbin"
    for tool; do
        command -v "$tool" >/dev/null || [ -e "$tool" ] || {
            missing+=("$tool")
            read -ra found < <(package_of "$tool")
            packages+=("${found[@]}")
        }
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (no apt-get here: install them with this system's own tool)"
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    if [ ${#sudo[@]} -gt 0 ] && ! command -v sudo >/dev/null; then
        die "missing: ${missing[*]} (as root: apt-get install ${packages[*]})"
    fi
    printf 'installing: %s\n' "${packages[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    "${sudo[@]}" apt-get -qq update >&2 || true
    "${sudo[@]}" apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null ||
        die "apt-get install ${packages[*]} failed"
}

# The first two numbers of a version as one that can be compared.
version_number() {
    local major minor
    IFS=.- read -r major minor _ <<<"$1"
    echo $((major * 1000 + minor))
}

# A Rust that is new enough for this workspace.
need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    [ -n "${CARGO_HOME:-${HOME:-}}" ] && PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    command -v cargo >/dev/null || die "Rust $wanted or newer is needed: install it with rustup (https://rustup.rs)"
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(version_number "$have")" -ge "$(version_number "$wanted")" ] ||
        die "Rust $wanted or newer is needed, this is $have (a distribution's is often too old): install rustup (https://rustup.rs)"
    need_tools cc
}

# The target of static programs, and its standard library.
static_target() {
    echo "$(uname -m)-unknown-linux-musl"
}

need_static_target() {
    local target
    target=$(static_target)
    need_tools musl-gcc file
    [ -d "$(rustc --print target-libdir --target "$target")" ] && return
    command -v rustup >/dev/null || die "the Rust target $target is needed: this system's package for it, or rustup target add $target"
    rustup --quiet target add "$target" || die "rustup target add $target failed"
}

# cargo-fuzz, for what is in fuzz/: kept with what is built here.
need_cargo_fuzz() {
    local tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
    export PATH="$PATH:$tools/bin"
    command -v cargo-fuzz >/dev/null ||
        cargo install --quiet --locked --version 0.13.1 --root "$tools" cargo-fuzz >&2 || die "cargo install cargo-fuzz failed"
}
