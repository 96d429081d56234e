# shellcheck shell=bash
# What check.sh and demo.sh need of a machine, and how they get it. To be sourced.

# shellcheck disable=SC2034
{
    # For a sample disk that boots.
    SAMPLE_TOOLS=(mmdebstrap syslinux /usr/lib/syslinux/mbr/gptmbr.bin /usr/lib/systemd/boot/efi/linuxx64.efi.stub)
    # For boot files.
    IMAGE_TOOLS=(cpio zstd xz depmod objcopy mkfs.vfat mmd xorriso /usr/lib/ISOLINUX/isolinux.bin
        /usr/lib/syslinux/modules/bios/ldlinux.c32 /usr/lib/systemd/boot/efi/linuxx64.efi.stub)
    # For virtual machines, their firmware, network boot and boot files.
    # QEMU's own boot ROMs: Debian 12 and Ubuntu 24.04 have them with iPXE, Debian 13 with QEMU.
    MACHINE_TOOLS=(qemu-system-x86_64 /usr/share/OVMF/OVMF_CODE_4M.fd
        '/usr/lib/ipxe/qemu/pxe-virtio.rom|/usr/share/qemu/pxe-virtio.rom'
        dnsmasq /usr/lib/ipxe/undionly.kpxe /usr/lib/ipxe/snponly.efi "${IMAGE_TOOLS[@]}")
}

# Says one line and ends.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The Debian or Ubuntu packages that have a command or a file; of several places of a file, the first is asked for.
package_of() {
    case ${1%%|*} in
        cc) echo gcc ;;
        /usr/include/stdio.h) echo libc6-dev ;;
        c++) echo g++ ;;
        ip | tc) echo iproute2 ;;
        mount | losetup | unshare | setpriv | mkswap) echo mount util-linux ;;
        mke2fs | debugfs | dumpe2fs | e2fsck) echo e2fsprogs ;;
        nft) echo nftables ;;
        mkfs.vfat) echo dosfstools ;;
        mkntfs | ntfscp) echo ntfs-3g ;;
        lvm) echo lvm2 ;;
        mkfs.btrfs | btrfs) echo btrfs-progs ;;
        mkfs.xfs | xfs_db) echo xfsprogs ;;
        mkfs.exfat) echo exfatprogs ;;
        mkfs.f2fs | sload.f2fs) echo f2fs-tools ;;
        mount.exfat-fuse) echo exfat-fuse ;;
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
        # Debian 12 has it beside the emulator, later releases and Ubuntu 24.04 beside qemu-img.
        qemu-storage-daemon) if [ "$(release)" = debian-12 ]; then echo qemu-system-common; else echo qemu-utils; fi ;;
        qemu-img | qemu-io) echo qemu-utils ;;
        img2simg) echo android-sdk-libsparse-utils ;;
        bmaptool) echo bmap-tools ;;
        nbdinfo | nbdcopy) echo libnbd-bin ;;
        partclone.*) echo partclone ;;
        qemu-system-x86_64) echo qemu-system-x86 ;;
        */pxe-virtio.rom) echo ipxe-qemu ;;
        */OVMF_CODE_4M.fd) echo ovmf ;;
        */gptmbr.bin) echo syslinux-common ;;
        syslinux) echo syslinux ;;
        mmdebstrap) echo mmdebstrap debian-archive-keyring ;;
        *) echo "$1" ;;
    esac
}

# This system and its version, as in debian-12 or ubuntu-24.04.
release() {
    (
        ID='' VERSION_ID=''
        # shellcheck disable=SC1091
        [ ! -r /etc/os-release ] || . /etc/os-release
        echo "$ID-$VERSION_ID"
    )
}

# Whether a command or a file is here; of a file there may be several places, with | between them.
have_tool() {
    local place places
    IFS='|' read -ra places <<<"$1"
    for place in "${places[@]}"; do
        if command -v "$place" >/dev/null || [ -e "$place" ]; then return 0; fi
    done
    return 1
}

# Which of the arguments are missing, one a line.
missing_of() {
    local tool
    for tool; do have_tool "$tool" || echo "$tool"; done
}

# as_root COMMAND...: by sudo where we are not root. Without either it fails.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else command -v sudo >/dev/null && sudo "$@"; fi
}

# need_tools COMMAND|FILE...: installs what is missing.
need_tools() {
    local tool found missing=() packages=()
    export PATH="$PATH:/usr/sbin:/sbin"
    mapfile -t missing < <(missing_of "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    for tool in "${missing[@]}"; do
        read -ra found < <(package_of "$tool")
        packages+=("${found[@]}")
    done
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (no apt-get here: install them with this system's own tool)"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        die "missing: ${missing[*]} (as root: apt-get install ${packages[*]})"
    fi
    printf 'installing: %s\n' "${packages[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get -qq update >&2 || true
    as_root apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null ||
        die "apt-get install ${packages[*]} failed"
    # A package that has moved a file would be installed again at each run, and what needs the file be left out silently.
    mapfile -t missing < <(missing_of "${missing[@]}")
    [ ${#missing[@]} = 0 ] || die "still missing after apt-get install ${packages[*]}: ${missing[*]} (another package has it on $(release))"
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
    # Without what it recommends, gcc comes without a C library to link with.
    need_tools cc /usr/include/stdio.h
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
