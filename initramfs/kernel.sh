# shellcheck shell=bash
# The kernel that boot files are made of, where none is given: the distribution's own packages, fetched with apt and
# unpacked, not installed. To be sourced, after qemu-tests/need.sh.

# The packages of the distribution's current kernel: Debian has it in one, Ubuntu keeps the modules in packages of their own.
kernel_packages() {
    local meta
    for meta in linux-image-amd64 linux-image-generic; do
        local direct image
        direct=$(apt-cache depends "$meta" 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-(image|modules|binary)-/ { print $2 }') || true
        image=$(grep -m 1 '^linux-image-' <<<"$direct") || continue
        {
            echo "$direct"
            apt-cache depends "$image" 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-(modules|binary)-/ { print $2 }'
        } | sort -u
        return
    done
    return 1
}

# fetch_package PACKAGE FOLDER: its file in that folder, fetched if it is not there yet.
fetch_package() {
    local package=$1 cache=$2 deb get
    deb=$cache/$(apt-cache show --no-all-versions "$package" | sed -n 's|^Filename: .*/||p')
    if [ ! -f "$deb" ]; then
        printf '%-10s fetching %s\n' kernel "$package" >&2
        mkdir -p "$cache"
        get=$(mktemp -d)
        (cd "$get" && apt-get -qq download "$package" >&2 2>"$get/said") || {
            local said
            said=$(<"$get/said")
            rm -r "$get"
            die "apt-get download $package: $said"
        }
        mv "$get/"*.deb "$deb"
        rm -r "$get"
    fi
    echo "$deb"
}

# one_of PATH...: the only one of these paths that is there.
one_of() {
    local path found=()
    for path; do [ ! -e "$path" ] || found+=("$path"); done
    [ ${#found[@]} = 1 ] && echo "${found[0]}"
}

# unpack_kernel FOLDER DEB...: unpacks the packages there, and sets `kernel` and `modules` to what is in them. Debian 12 and
# Ubuntu 24.04 pack lib/modules, Debian 13 usr/lib/modules.
# shellcheck disable=SC2034
unpack_kernel() {
    local to=$1 deb
    shift
    for deb; do dpkg-deb -x "$deb" "$to"; done
    kernel=$(one_of "$to"/boot/vmlinuz-*) || die "not exactly one kernel in $*: boot/vmlinuz-VERSION is looked for"
    modules=$(one_of "$to"/{,usr/}lib/modules/"${kernel##*/vmlinuz-}") ||
        die "no modules of ${kernel##*/} in $*: lib/modules/VERSION and usr/lib/modules/VERSION are looked for"
}

# fetch_kernel CACHE FOLDER: fetches the distribution's kernel and sets `kernel` and `modules`.
fetch_kernel() {
    local packages package debs=()
    command -v apt-cache >/dev/null || die 'no apt here: give --kernel and --kernel-modules'
    packages=$(kernel_packages) || {
        # A new system, or a container, has no lists yet.
        as_root apt-get -qq update >&2 || true
        packages=$(kernel_packages) || die 'apt knows neither linux-image-amd64 nor linux-image-generic here: give --kernel and --kernel-modules'
    }
    for package in $packages; do debs+=("$(fetch_package "$package" "$1")"); done
    unpack_kernel "$2" "${debs[@]}"
}
