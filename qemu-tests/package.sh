#!/usr/bin/env bash
# Installs a package into a minimal Debian, starts the server there, upgrades it, removes and purges it: qemu-tests/package.sh OLD.deb NEW.deb
#
# The system is a fresh one of mmdebstrap in a mount, process and network namespace of its own, which goes at the end. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
. qemu-tests/need.sh

# Inside the namespaces: the root is a copy of the system.
inside() {
    local root=$1 old=$2 new=$3 pin
    ip link set lo up
    mount -t tmpfs -o size=2g tmpfs "$root"
    tar -xf "$base" -C "$root"
    mkdir -p "$root/proc" "$root/dev"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    cp "$old" "$root/old.deb"
    cp "$new" "$root/new.deb"
    run() { chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
    step() { echo "package: $*"; }

    step 'a package installs without anything but what it depends on'
    run dpkg --install /old.deb >/dev/null
    [ "$(run stat -c '%U %a' /var/lib/slidecast)" = 'slidecast 750' ] || die 'the state folder is not for the user alone'
    run test -L /etc/systemd/system/multi-user.target.wants/slidecast.service || die 'the service is not enabled'
    for file in usr/share/man/man1/slidecast-serve.1.gz usr/share/bash-completion/completions/slidecast \
        usr/share/zsh/vendor-completions/_slidecast usr/share/fish/vendor_completions.d/slidecast.fish usr/bin/slidecast-agent; do
        [ -s "$root/$file" ] || die "$file is missing"
    done

    step 'the server starts with its configuration as its user, and is ready'
    serve_here
    pin=$(sed -n 's/.*fingerprint: //p' "$root/log")
    [ -s "$root/var/lib/slidecast/first-sign-in" ] || die 'there is no link for the first sign-in'
    run env HOME=/var/lib/slidecast setpriv --reuid=slidecast --regid=slidecast --init-groups slidecast token new --role viewer --state /var/lib/slidecast >"$root/token"
    run slidecast remote images --server https://127.0.0.1:7540 --token-file /token --fingerprint "$pin" >/dev/null

    step 'an upgrade keeps state and changes of the configuration'
    echo '# ours' >>"$root/etc/slidecast/config.toml"
    run dpkg --install /new.deb >/dev/null
    end_server
    serve_here
    run slidecast remote machines --server https://127.0.0.1:7540 --token-file /token --fingerprint "$pin" >/dev/null
    grep -q '^# ours' "$root/etc/slidecast/config.toml" || die 'the configuration was overwritten'
    end_server

    step 'removal keeps state, purge removes it and leaves images alone'
    echo x >"$root/var/lib/slidecast/images/a.slide"
    run dpkg --remove slidecast >/dev/null
    [ ! -e "$root/usr/bin/slidecast" ] || die 'removal left the program behind'
    [ -e "$root/var/lib/slidecast/slidecast.db" ] || die 'removal took the database'
    run dpkg --purge slidecast 2>/dev/null
    [ ! -e "$root/etc/slidecast" ] || die 'purge left the configuration behind'
    [ ! -e "$root/var/lib/slidecast/slidecast.db" ] || die 'purge left the database behind'
    [ -e "$root/var/lib/slidecast/images/a.slide" ] || die 'purge removed an image'
    [ -z "$(run find / -xdev -path /proc -prune -o -name '*slidecast*' ! -path '/var/lib/slidecast*' -print)" ] || die 'purge left files'
    echo 'test result: ok. 4 passed; 0 failed; 0 ignored'
}

# There is no service manager in a chroot: the unit's own command line is run, and told where to say that it is ready.
serve_here() {
    local command
    command=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/slidecast.service")
    : >"$root/log"
    chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/slidecast setpriv --reuid=slidecast --regid=slidecast --init-groups sh -c "exec $command" >>"$root/log" 2>&1 &
    for _ in $(seq 300); do
        if grep -q 'serving https://0.0.0.0:7540' "$root/log"; then return 0; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    cat "$root/log"
    die 'the server did not start'
}

end_server() {
    kill -TERM $!
    wait $! || true
}

if [ "${1:-}" = --inside ]; then
    inside "$2" "$3" "$4"
    exit
fi
[ $# = 2 ] || die 'expected two packages: the old one and the new one'
[ "$(id -u)" = 0 ] || die 'this needs root'
need_tools mmdebstrap unshare ip
cache=${SLIDECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slidecast}
export base=$cache/package-root.tar
if [ ! -e "$base" ]; then
    mkdir -p "$cache"
    mmdebstrap --quiet --variant=minbase --include=adduser,init-system-helpers "${SUITE:-bookworm}" "$cache/half-package-root.tar"
    mv "$cache/half-package-root.tar" "$base"
fi
root=$(mktemp -d)
trap 'rmdir "$root"' EXIT
unshare --mount --net --pid --fork --kill-child "$BASH" "$0" --inside "$root" "$(realpath "$1")" "$(realpath "$2")"
