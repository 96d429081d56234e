#!/usr/bin/env bash
# Passes the tests: ./check.sh [TIER...]. People and CI run this same script; it installs what is missing.
#
#   fmt      formatting of Rust, and shellcheck of the scripts
#   clippy   lints of all targets, warnings are errors
#   doc      the documentation builds, without a broken link; the examples run
#   unit     unit, property and documentation tests of the workspace
#   sim      the machines in virtual time: 2,000 seeds with faults, 1,000 nodes of which some die, and bugs on purpose
#            that must be caught;
#            ./check.sh sim --seeds N runs N seeds and no bugs
#   static   the agent as one static program of at most 4 MiB
#   lab      system tests: the real programs in network namespaces (root, sudo or user namespaces)
#   qemu     system tests in virtual machines: from power-on to a disk that boots
#   bench    the figures, beside peers measured in the same run: ./check.sh bench [NAME...]
#   chaos    faults of every kind, at every position of a chain, in every phase, with the real programs: some ten minutes;
#            ./check.sh chaos [--rounds N] [--seed S] [--case NAME]...
#            ./check.sh culprit [--jobs N]: one node of six damages all that it sends, what that costs the others
#   forged-bugs  bugs on purpose that forged peers must find in the real programs
#   fuzz     every reader of bytes from outside, a minute each, the property tests with many more cases, and a standing server
#            that is killed 200 times;
#            ./check.sh fuzz TARGET [--seconds N] [ARGUMENT OF libFuzzer]... runs one
#   store    images in real S3 servers (moto, SeaweedFS and rclone, from their packages for Python): a minute or two
#   web      the pages of a standing server in Chromium, with axe-core and a real deployment: two minutes, and installs Chromium and
#            Playwright; screenshots stay in target/web/
#   package  the Debian package of ./package.sh in a clean system: installed, started, upgraded, removed, purged (root)
#   hosts    mkimage.sh, the tiers static, unit and lab, and demo.sh --lab on Debian 13 and Ubuntu 24.04, in chroots (root):
#            ./check.sh hosts [SUITE [COMMAND...]], see qemu-tests/hosts.sh
#
# Without arguments: all but bench, chaos, culprit, forged-bugs, fuzz, store, web, package and hosts. The last line is the total.
set -euo pipefail
cd "$(dirname "$0")"
. qemu-tests/need.sh

passed=0 failed=0 skipped=0
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
logs=$target_dir/check
LAB_TOOLS=(ip tc mount losetup unshare setpriv mkswap mke2fs debugfs mkfs.vfat mcopy sgdisk sfdisk mkntfs ntfscp socat iperf3)
# For volumes and file systems that unit tests make.
VOLUME_TOOLS=(lvm mdadm btrfs)
# For file systems that the lab has no use for.
FS_TOOLS=(mkfs.xfs xfs_db mkfs.exfat mount.exfat-fuse mkfs.f2fs sload.f2fs)
# For the inputs that fuzzing starts from.
FUZZ_TOOLS=(mke2fs mkfs.vfat mkntfs mkswap mkfs.xfs mkfs.btrfs mkfs.exfat mkfs.f2fs sgdisk)
# For network boot.
BOOT_TOOLS=(dnsmasq /usr/lib/ipxe/undionly.kpxe /usr/lib/ipxe/snponly.efi curl)
# For the log of everything that reaches a disk.
LOG_TOOLS=(fusermount3 qemu-storage-daemon)
# For faults of the network and of disks.
FAULT_TOOLS=(nft fusermount3 qemu-storage-daemon)
# For what is made of the command line.
SHELL_TOOLS=(zsh fish mandoc)
# For disks in other formats.
FORMAT_TOOLS=(qemu-img qemu-io img2simg gzip xz zstd bzip2 lz4 lzip bmaptool partclone.restore)
# For what reads network block devices.
NBD_TOOLS=(nbdinfo nbdcopy)

fmt() {
    need_rust
    need_tools git shellcheck
    cargo fmt --all --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
    git ls-files --cached --others --exclude-standard '*.sh' .ci/run | xargs shellcheck --external-sources --source-path=SCRIPTDIR
}

clippy() {
    need_rust
    # The system tests are no ordinary target: `cargo test` alone must not start namespaces.
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    cargo clippy --quiet --workspace --test system --test machines -- -D warnings
}

doc() {
    need_rust
    RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --quiet --workspace --no-deps --document-private-items
    cargo run --quiet -p slidecast-proto --example link
    cargo run --quiet -p slidecast-image --example layers
}

unit() {
    need_rust
    need_tools "${LAB_TOOLS[@]}" "${FORMAT_TOOLS[@]}" "${NBD_TOOLS[@]}" "${VOLUME_TOOLS[@]}" "${FS_TOOLS[@]}" "${SHELL_TOOLS[@]}"
    cargo test --quiet --workspace --no-fail-fast
}

static_agent() {
    echo "$target_dir/$(static_target)/release/slidecast-agent"
}

build_static() {
    need_rust
    need_static_target
    cargo build --quiet --release --target "$(static_target)" -p slidecast-agent
}

sim() {
    need_rust
    cargo run --quiet --profile sim -p slidecast-sim -- seeds "$@"
    [ $# = 0 ] || return 0
    # Fails if deaths cost more than they may.
    cargo run --quiet --profile sim -p slidecast-sim -- growth --nodes 1000
    # Another folder: nothing that is built with the bugs in it may be taken for what is shipped.
    RUSTFLAGS='--cfg slidecast_bugs' cargo run --quiet --profile sim --target-dir "$target_dir/bugs" -p slidecast-sim -- bugs
}

static() {
    build_static
    local agent bytes kind
    agent=$(static_agent)
    bytes=$(stat -c %s "$agent")
    kind=$(file -b "$agent")
    printf 'agent: %s bytes; %s\n' "$bytes" "$kind"
    [ "$bytes" -le $((4 * 1024 * 1024)) ] || { echo "over 4 MiB"; return 1; }
    case $kind in *statically\ linked* | *static-pie\ linked*) ;; *) echo "not static"; return 1 ;; esac
    if grep -aqe slidecast-seeded-bugs -e SLIDECAST_BUG "$agent"; then echo "it has bugs on purpose in it"; return 1; fi
    "$agent" --version
}

lab() {
    need_tools "${LAB_TOOLS[@]}" "${BOOT_TOOLS[@]}" "${LOG_TOOLS[@]}" "${FAULT_TOOLS[@]}" "${IMAGE_TOOLS[@]}"
    build_static
    cargo build --quiet --workspace --bins
    SLIDECAST_AGENT=$(static_agent) cargo test --quiet --workspace --test system
}

qemu() {
    need_tools "${LAB_TOOLS[@]}" "${BOOT_TOOLS[@]}"
    # A machine on which QEMU cannot be installed may leave this tier out; CI may not.
    (need_tools "${SAMPLE_TOOLS[@]}" "${MACHINE_TOOLS[@]}" openssl sbsign busybox) || [ "${CI:-}" != true ] || return 1
    build_static
    cargo build --quiet --workspace --bins
    SLIDECAST_AGENT=$(static_agent) cargo test --quiet --workspace --test machines
}

web() {
    local venv=$target_dir/tools/web
    need_tools "${LAB_TOOLS[@]}" chromium python3
    python3 -c 'import ensurepip' 2>/dev/null || as_root apt-get -qq install -y python3-venv >/dev/null
    build_static
    cargo build --quiet --workspace --bins
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    # axe-core is in the second one.
    "$venv/bin/pip" --quiet install playwright axe-playwright-python
    SLIDECAST_AGENT=$(static_agent) "$target_dir/debug/slidecast-lab" web --python "$venv/bin/python" qemu-tests/web/pages.py "$target_dir/web"
}

package() {
    local old new
    old=$(./package.sh --out "$target_dir/package" --version 0.0.1)
    new=$(./package.sh --out "$target_dir/package")
    qemu-tests/package.sh "$old" "$new"
}

store() {
    need_rust
    need_tools python3 qemu-img
    python3 -c 'import ensurepip' 2>/dev/null || as_root apt-get -qq install -y python3-venv >/dev/null
    cargo build --quiet -p slidecast-server
    SLIDECAST=$target_dir/debug/slidecast qemu-tests/store.sh "$target_dir/tools/store"
}

fuzz_target() {
    local target=$1 seconds=60
    shift
    if [ "${1:-}" = --seconds ]; then seconds=$2; shift 2; fi
    printf '%s:\n' "$target"
    # The code under test is safe Rust: without a sanitizer the stable compiler will do, and twice as many inputs are tried.
    cargo fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -max_len=65536 -timeout=20 \
        -print_final_stats=1 "$@" 2>&1 | grep -v '^#.* \(REDUCE\|NEW\) \|NEW_FUNC'
}

fuzz_ready() {
    need_rust
    need_tools c++ "${FUZZ_TOOLS[@]}"
    need_cargo_fuzz
    # The seeds need what only a build for fuzzing has.
    RUSTFLAGS='--cfg fuzzing' cargo run --quiet --manifest-path fuzz/Cargo.toml --example seeds -- fuzz/corpus
}

fuzz() {
    local target
    fuzz_ready
    for target in $(cargo fuzz list); do fuzz_target "$target"; done
    PROPTEST_CASES=${PROPTEST_CASES:-20000} SLIDECAST_SWEEP=1200 cargo test --quiet --release --workspace --lib --no-fail-fast
    SLIDECAST_KILLS=200 cargo test --quiet -p slidecast-server --test deploy -- killed_at_any_moment
}

bench() {
    need_tools "${LAB_TOOLS[@]}" mbuffer mmdebstrap zstd strace
    case " $* " in '  ' | *' boot'*) need_tools "${BOOT_TOOLS[@]}" "${MACHINE_TOOLS[@]}" ;; esac
    echo 'building (a few minutes the first time)'
    build_static
    cargo build --quiet --release -p slidecast-server -p slidecast-benches
    SLIDECAST=$target_dir/release/slidecast SLIDECAST_AGENT=$(static_agent) "$target_dir/release/slidecast-benches" "$@"
}

chaos() {
    need_tools "${LAB_TOOLS[@]}" "${FAULT_TOOLS[@]}"
    echo 'building (a few minutes the first time)'
    build_static
    cargo build --quiet --workspace --bins
    SLIDECAST_AGENT=$(static_agent) "$target_dir/debug/slidecast-lab" chaos "$@"
}

hosts() {
    if [ $# -gt 0 ]; then qemu-tests/hosts.sh "$@"; return; fi
    local suite status=0
    for suite in trixie noble; do qemu-tests/hosts.sh "$suite" || status=1; done
    return $status
}

culprit() {
    need_tools "${LAB_TOOLS[@]}" "${FAULT_TOOLS[@]}"
    build_static
    cargo build --quiet --workspace --bins
    SLIDECAST_AGENT=$(static_agent) "$target_dir/debug/slidecast-lab" culprit "$@"
}

# Without a bug nothing may be found; with each, something must be.
forged_bugs() {
    need_tools "${LAB_TOOLS[@]}"
    local bugs=$target_dir/bugs bug log good=true
    log=$(mktemp)
    cargo build --quiet --workspace --bins
    RUSTFLAGS='--cfg slidecast_bugs' cargo build --quiet --target-dir "$bugs" -p slidecast-server -p slidecast-agent
    for bug in none AckUnchecked AgainUnchecked AcksSwapped; do
        if SLIDECAST_BUG=$bug SLIDECAST=$bugs/debug/slidecast SLIDECAST_AGENT=$bugs/debug/slidecast-agent \
            "$target_dir/debug/slidecast-lab" forge --runs "${FORGED_RUNS:-2000}" --until-failure >"$log" 2>&1; then
            [ "$bug" = none ] || { echo "$bug NOT CAUGHT: $(tail -1 "$log")"; good=false; }
        elif [ "$bug" = none ]; then
            cat "$log"
            good=false
        else
            echo "$bug caught: $(head -1 "$log" | cut -c -200)"
        fi
    done
    rm -f "$log"
    $good
}

# Adds up the test runner's closing lines; a tier without any counts as one test.
count() {
    local log=$1 status=$2 ok bad ignored
    read -r ok bad ignored < <(awk '
        match($0, /test result: [^ ]+ [0-9]+ passed; [0-9]+ failed; [0-9]+ ignored/) {
            split(substr($0, RSTART, RLENGTH), word, " ")
            ok += word[4]; bad += word[6]; ignored += word[8]; seen = 1
        }
        END { if (seen) print ok + 0, bad + 0, ignored + 0; else print "- 0 0" }' "$log")
    if [ "$ok" = - ]; then
        ok=$((status == 0)) bad=0
    fi
    # What did not even build is a failure too.
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + ignored))
}

run_tier() {
    local tier=$1 log=$logs/$1.log status=0 started=$SECONDS clear=''
    # Whoever watches sees what takes its time.
    if [ -t 1 ]; then
        clear=$'\r\e[K'
        printf '%-7s ...     its log so far: %s' "$tier" "$log"
    fi
    # In a process of its own, so that the first failing command ends the tier.
    "$BASH" "$0" --inside "$tier" >"$log" 2>&1 || status=$?
    count "$log" "$status"
    if [ "$status" = 0 ]; then
        printf '%s%-7s ok      %4d s\n' "$clear" "$tier" $((SECONDS - started))
        # A tier that was left out says what it lacks.
        grep '^machines: ' "$log" || true
    else
        printf '%s%-7s FAILED  %4d s\n' "$clear" "$tier" $((SECONDS - started))
        cat "$log"
    fi
}

tiers=(fmt clippy doc unit sim static lab qemu)
case ${1:-} in
    --inside) "$2"; exit ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit ;;
    bench) shift; bench "$@"; exit ;;
    chaos) shift; chaos "$@"; exit ;;
    fuzz) if [ $# -gt 1 ]; then shift; fuzz_ready; fuzz_target "$@"; exit; fi ;;
    hosts) shift; hosts "$@"; exit ;;
    culprit) shift; culprit "$@"; exit ;;
    forged-bugs) forged_bugs; exit ;;
    sim) if [ $# -gt 1 ]; then shift; sim "$@"; exit; fi ;;
esac
[ $# = 0 ] || tiers=("$@")
for tier in "${tiers[@]}"; do
    case $tier in
        fmt | clippy | doc | unit | sim | static | lab | qemu | fuzz | store | web | package) ;;
        *) die "no tier is called $tier (fmt clippy doc unit sim static lab qemu bench chaos fuzz store web package hosts)" ;;
    esac
done
need_rust
mkdir -p "$logs"
for tier in "${tiers[@]}"; do run_tier "$tier"; done

total="$passed passed, $failed failed"
[ "$skipped" = 0 ] || total="$total, $skipped skipped"
echo "$total"
[ "$failed" = 0 ]
