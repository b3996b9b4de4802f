#!/usr/bin/env bash
# Times a disk on a web server at the other end of a long line against its peers, in one run: DELAY (25 ms one way), RATE (200
# Mbit/s), LOSS (0 %), RUNS (3 of each, in turn). curl shows what the line allows, qemu-img is the peer; the server's log shows the
# bytes that it sent. Prints each run, and the median of the ratios; needs root for the line's namespaces.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh remote
cargo build --release --locked --quiet
tests/fixtures/build.sh >/dev/null
guest=$(tests/fixtures/build.sh --path)/plain
ours=${HYPER2KVM:-$PWD/target/release/hyper2kvm}
lab=$(mktemp -d /var/tmp/hyper2kvm-bench.XXXXXX)
name=h2k$$
tests/parts/wan.py "$name" "${DELAY:-25}" "${RATE:-200}" "${LOSS:-0}" >"$lab/ready" &
line=$!
trap 'kill $line; [ ! -e "$lab/pid" ] || kill "$(cat "$lab/pid")"; wait $line || true; rm -rf "$lab"' EXIT
until grep -q READY "$lab/ready"; do sleep 0.1; done

cat >"$lab/nginx.conf" <<END
pid $lab/pid;
error_log $lab/error.log;
user root;
events {}
http {
    log_format bytes '\$bytes_sent \$uri';
    access_log $lab/sent bytes;
    client_body_temp_path $lab/t1; proxy_temp_path $lab/t2; fastcgi_temp_path $lab/t3; uwsgi_temp_path $lab/t4; scgi_temp_path $lab/t5;
    server { listen 10.99.0.2:8080; root $guest; keepalive_requests 1000000; }
}
END
ip netns exec "$name-b" nginx -c "$lab/nginx.conf"

# timed NAME COMMAND...: seconds, bytes that the server sent, requests.
timed() {
    local what=$1 before after start end
    shift
    rm -rf "$lab/out"*
    : >"$lab/sent"
    kill -USR1 "$(cat "$lab/pid")"
    start=$(date +%s.%N)
    ip netns exec "$name-a" "$@" >/dev/null 2>"$lab/said" || { cat "$lab/said" >&2; exit 1; }
    end=$(date +%s.%N)
    sleep 0.3
    awk -v what="$what" -v start="$start" -v end="$end" \
        '{ bytes += $1 } END { printf "%s %.2f s %d bytes %d requests\n", what, end - start, bytes, NR }' "$lab/sent" | tee -a "$lab/figures"
}

url=http://10.99.0.2:8080
for ((i = 0; i < ${RUNS:-3}; i++)); do
    timed curl curl -sSfo "$lab/out" "$url/guest-stream.vmdk"
    timed convert "$ours" convert --verify off "$url/guest-stream.vmdk" "$lab/out.qcow2"
    timed qemu-img qemu-img convert -O qcow2 "$url/guest-stream.vmdk" "$lab/out.qcow2"
    timed inspect "$ours" inspect "$url/guest-stream.vmdk"
    timed raw "$ours" convert --verify off --skip-free-space "$url/guest.raw" "$lab/out.qcow2"
done
echo "used in guest.raw: $(du -B1 "$guest/guest.raw" | cut -f1) bytes; guest-stream.vmdk: $(stat -c %s "$guest/guest-stream.vmdk") bytes"
ratio() { # OURS THEIRS
    paste <(awk -v n="$1" '$1 == n { print $2 }' "$lab/figures") <(awk -v n="$2" '$1 == n { print $2 }' "$lab/figures") |
        awk '{ print $1 / $2 }' | sort -n | awk -v name="$1 / $2" '{ r[NR] = $1 } END { print name ": median " r[int((NR + 1) / 2)] ", " r[1] " to " r[NR] }'
}
ratio convert curl
ratio convert qemu-img
