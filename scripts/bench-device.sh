#!/usr/bin/env bash
# Times the disk as a device against its peers in alternating pairs: NBD by fio (4 KiB random reads, depth 32) against nbdkit and
# qemu-nbd, FUSE by dd (1 MiB, direct) against nbdfuse and qemu-storage-daemon. PAIRS=10 is the least that counts; ONLY=raw runs
# the comparisons with that in their name. Prints each pair and the median of the ratios; needs root for nothing but packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh
cargo build --release --locked --quiet
tests/fixtures/build.sh >/dev/null
guest=$(tests/fixtures/build.sh --path)/plain
ours=$PWD/target/release/hyper2kvm
seconds=${SECONDS_EACH:-5}
lab=$(mktemp -d /var/tmp/hyper2kvm-bench.XXXXXX)
trap 'fusermount3 -uq "$lab/mount" || true; rm -rf "$lab"' EXIT
mkdir "$lab/mount"

# 4 KiB random reads a second of the server at $uri.
cat >"$lab/iops" <<END
fio --name=read --ioengine=nbd --uri="\$uri" --rw=randread --bs=4k --iodepth=32 --size=1g --time_based \
    --runtime=$seconds --ramp_time=1 --output-format=terse | awk -F ';' '/^3;/ { print \$8 }'
END
# MiB a second through a file.
cat >"$lab/stream" <<END
dd if="\$1" of=/dev/null bs=1M iflag=direct count=2048 2>&1 | awk '/copied/ { for (i = 1; i < NF; i++) if (\$i == "s,") print int(2048 / \$(i - 1)) }'
END

serve() { "$ours" serve --format "$1" "$2" --run "uri=\$uri sh $lab/iops"; }
nbdkit_raw() { nbdkit -r -U - file "$1" --run "uri=\$uri sh $lab/iops"; }
qemu_nbd() {
    qemu-nbd -r -t -f "$1" -k "$lab/qemu.sock" -e 8 --cache=writeback --aio=threads "$2" &
    local server=$!
    until [ -S "$lab/qemu.sock" ]; do sleep 0.05; done
    uri="nbd+unix:///?socket=$lab/qemu.sock" sh "$lab/iops"
    kill "$server"
    wait "$server" || true
    rm -f "$lab/qemu.sock"
}
through() { # MOUNTING COMMAND: streams disk.raw, and ends the mount.
    local file=$lab/mount/disk.raw server
    [ "$1" != qemu-storage-daemon ] || { file=$lab/qsd.raw; : >"$file"; }
    "$@" >/dev/null &
    server=$!
    until [ "$(stat -c %s "$file" 2>/dev/null || echo 0)" -gt 0 ]; do sleep 0.05; done
    sh "$lab/stream" "$file"
    kill "$server"
    wait "$server" || true
}
our_mount() { through "$ours" mount --format raw "$guest/guest.raw" "$lab/mount"; }
nbdfuse_mount() { through nbdfuse -r "$lab/mount/disk.raw" [ nbdkit --exit-with-parent -r file "$guest/guest.raw" ]; }
qsd_mount() {
    through qemu-storage-daemon --blockdev "driver=file,node-name=disk,read-only=on,filename=$guest/guest.raw" \
        --export "type=fuse,id=disk,node-name=disk,mountpoint=$lab/qsd.raw"
}

# pairs NAME OURS -- THEIRS
pairs() {
    local name=$1 ours_is=() theirs_is=() a b i
    shift
    [ -z "${ONLY:-}" ] || [[ $name == *"$ONLY"* ]] || return 0
    while [ "$1" != -- ]; do ours_is+=("$1"); shift; done
    shift
    theirs_is=("$@")
    for ((i = 0; i < ${PAIRS:-10}; i++)); do
        if ((i % 2)); then
            b=$("${theirs_is[@]}") a=$("${ours_is[@]}")
        else
            a=$("${ours_is[@]}") b=$("${theirs_is[@]}")
        fi
        echo "$name: $a against $b" >&2
        echo "$a $b"
    done | awk '{ print $1 / $2 }' | sort -n |
        awk -v name="$name" '{ r[NR] = $1 } END { print name ": median ratio " r[int((NR + 1) / 2)] " of " NR " pairs, " r[1] " to " r[NR] }'
}

# The page cache holds all of them, for both sides.
cat "$guest"/guest.raw "$guest"/guest-sparse.vmdk "$guest"/guest-stream.vmdk >/dev/null
pairs nbd-raw serve raw "$guest/guest.raw" -- nbdkit_raw "$guest/guest.raw"
pairs nbd-sparse serve vmdk "$guest/guest-sparse.vmdk" -- qemu_nbd vmdk "$guest/guest-sparse.vmdk"
pairs nbd-stream serve vmdk "$guest/guest-stream.vmdk" -- qemu_nbd vmdk "$guest/guest-stream.vmdk"
pairs fuse-nbdfuse our_mount -- nbdfuse_mount
pairs fuse-qsd our_mount -- qsd_mount
