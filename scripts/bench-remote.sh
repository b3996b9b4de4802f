#!/usr/bin/env bash
# Times a disk on servers at the other end of a long line against its peers, in one run: DELAY (25 ms one way), RATE (200 Mbit/s),
# LOSS (0 %), RUNS (3 of each, in turn), WHAT (http ssh nbd), PEERS (yes). curl shows what the line allows; qemu-img, nbdkit's ssh plugin with
# nbdcopy, and nbdcopy alone are the peers. Bytes of HTTP are those that the server says it sent, others those on the line. Prints
# each run, and the median of the ratios; needs root for the line's namespaces.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh remote
[ -n "${HYPER2KVM:-}" ] || cargo build --release --locked --quiet
tests/fixtures/build.sh >/dev/null
guest=$(tests/fixtures/build.sh --path)/plain
ours=${HYPER2KVM:-$PWD/target/release/hyper2kvm}
what=${WHAT:-http ssh nbd}
lab=$(mktemp -d /var/tmp/hyper2kvm-bench.XXXXXX)
name=h2k$$
tests/parts/wan.py "$name" "${DELAY:-25}" "${RATE:-200}" "${LOSS:-0}" >"$lab/ready" &
line=$!
finish() {
    local file
    for file in "$lab"/*.pid; do
        [ ! -s "$file" ] || kill "$(cat "$file")" || true
    done
    kill $line
    wait $line || true
    rm -rf "$lab"
}
trap finish EXIT
until grep -q READY "$lab/ready"; do sleep 0.1; done
near() { ip netns exec "$name-a" "$@"; }
far() { ip netns exec "$name-b" "$@"; }

cat >"$lab/nginx.conf" <<END
pid $lab/nginx.pid;
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
: >"$lab/sent"
far nginx -c "$lab/nginx.conf"

ssh-keygen -q -t ed25519 -N '' -f "$lab/host"
ssh-keygen -q -t ed25519 -N '' -f "$lab/key"
cp "$lab/key.pub" "$lab/authorized"
echo "10.99.0.2 $(cut -d' ' -f1,2 "$lab/host.pub")" >"$lab/known"
cat >"$lab/sshd.conf" <<END
ListenAddress 10.99.0.2:22
HostKey $lab/host
AuthorizedKeysFile $lab/authorized
PidFile $lab/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
UseDNS no
Subsystem sftp internal-sftp
END
mkdir -p /run/sshd
far /usr/sbin/sshd -f "$lab/sshd.conf"
far nbdkit -r -i 10.99.0.2 -P "$lab/nbdkit.pid" file "$guest/guest.raw"

received() { near cat /sys/class/net/wan0/statistics/rx_bytes; }

# timed NAME COMMAND...: seconds, bytes that came, requests.
timed() {
    local what=$1 before start end
    shift
    rm -rf "$lab/out"*
    : >"$lab/sent"
    kill -USR1 "$(cat "$lab/nginx.pid")"
    before=$(received)
    start=$(date +%s.%N)
    near "$@" >/dev/null 2>"$lab/said" || { cat "$lab/said" >&2; exit 1; }
    end=$(date +%s.%N)
    sleep 0.3
    awk -v what="$what" -v start="$start" -v end="$end" -v line="$(($(received) - before))" \
        '{ bytes += $1 } END { printf "%s %.2f s %d bytes %s requests\n", what, end - start, NR ? bytes : line, NR ? NR : "?" }' \
        "$lab/sent" | tee -a "$lab/figures"
}

# The same of another program, unless only ours are wanted: on a line that loses much, they take very long.
peer() { [ "${PEERS:-yes}" = no ] || timed "$@"; }

# The file through nbdkit's client of SSH, on this side of the line.
by_nbdkit() {
    nbdkit -r -U - ssh host=10.99.0.2 user=root identity="$lab/key" known-hosts="$lab/known" "$guest/guest-stream.vmdk" \
        --run "nbdcopy \"\$uri\" '$lab/out'"
}

url=http://10.99.0.2:8080
export lab guest
export -f by_nbdkit
for ((i = 0; i < ${RUNS:-3}; i++)); do
    if [[ $what == *http* ]]; then
        peer curl curl -sSfo "$lab/out" "$url/guest-stream.vmdk"
        timed convert "$ours" convert --verify off "$url/guest-stream.vmdk" "$lab/out.qcow2"
        peer qemu-img qemu-img convert -O qcow2 "$url/guest-stream.vmdk" "$lab/out.qcow2"
        timed inspect "$ours" inspect "$url/guest-stream.vmdk"
        timed raw "$ours" convert --verify off --skip-free-space "$url/guest.raw" "$lab/out.qcow2"
    fi
    if [[ $what == *ssh* ]]; then
        timed ssh-convert "$ours" convert --verify off --ssh-config /dev/null --ssh-known-hosts "$lab/known" --ssh-identity "$lab/key" \
            "ssh://root@10.99.0.2$guest/guest-stream.vmdk" "$lab/out.qcow2"
        peer ssh-nbdkit bash -c by_nbdkit
        peer scp scp -q -F /dev/null -o UserKnownHostsFile="$lab/known" -i "$lab/key" "root@10.99.0.2:$guest/guest-stream.vmdk" "$lab/out"
    fi
    if [[ $what == *nbd* ]]; then
        timed nbd-convert "$ours" convert --verify off --format raw nbd://10.99.0.2/ "$lab/out.qcow2"
        peer nbdcopy nbdcopy nbd://10.99.0.2/ "$lab/out"
        peer nbd-qemu-img qemu-img convert -f raw -O qcow2 nbd://10.99.0.2/ "$lab/out.qcow2"
    fi
done
echo "used in guest.raw: $(du -B1 "$guest/guest.raw" | cut -f1) bytes; guest-stream.vmdk: $(stat -c %s "$guest/guest-stream.vmdk") bytes"
ratio() { # OURS THEIRS
    paste <(awk -v n="$1" '$1 == n { print $2 }' "$lab/figures") <(awk -v n="$2" '$1 == n { print $2 }' "$lab/figures") |
        awk 'NF == 2 { print $1 / $2 }' | sort -n | awk -v name="$1 / $2" '{ r[NR] = $1 } END { if (NR) print name ": median " r[int((NR + 1) / 2)] ", " r[1] " to " r[NR] }'
}
ratio convert curl
ratio convert qemu-img
ratio ssh-convert ssh-nbdkit
ratio ssh-convert scp
ratio nbd-convert nbdcopy
ratio nbd-convert nbd-qemu-img
