#!/usr/bin/env bash
# The whole story on one real guest: an OVA from VMware that does not boot on KVM, migrated in one pass, that does.
# On a fresh Debian 12 with Rust and make it installs what it needs. Fails when anything is not as told.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=target/demo
binary=target/release/hyper2kvm
# What the guest prints when it is up, with an address on its network card.
up='BOOTMARK .*ip=\[[^]]+=[0-9.]+/[0-9]+\]'

main() {
    title "1/5  Packages, and a release build"
    timed scripts/install-deps.sh
    timed cargo build --release --locked

    title "2/5  A guest as an ESXi host leaves it: Debian 12, root=/dev/sda1, no virtio in its initramfs, ens192"
    local guests
    timed tests/fixtures/build.sh
    guests=$(tests/fixtures/build.sh --path)/plain
    echo "the OVA: $guests/guest.ova, $(human "$guests/guest.ova"); its disk: 3 GiB"

    rm -rf "$out"
    mkdir -p "$out"

    title "3/5  Before: the guest's disk on virtio"
    if timed "$binary" test "$guests/guest.raw" --format raw --console "$out/before.log"; then
        fail "the guest boots on virtio before it was migrated, so there is nothing to show"
    fi
    grep -a -q 'Gave up waiting for root' "$out/before.log" || fail "the guest failed in another way than expected: $out/before.log"
    local before_time=$took before_says
    before_says=$(grep -a -o 'Gave up waiting for root[a-z ]*' "$out/before.log" | head -n 1)
    echo "as expected, it does not boot: \"$before_says\""

    title "4/5  Migrate: read the OVA once, fix, convert, verify"
    timed "$binary" migrate "$guests/guest.ova" -o "$out"
    local migrate_time=$took disk
    disk=$(echo "$out"/*.qcow2)
    qemu-img check -q "$disk" || fail "qemu-img finds errors in $disk"

    title "5/5  After: the result on virtio"
    timed "$binary" test "$disk" --expect "$up" --console "$out/after.log" || fail "the migrated guest does not boot: $out/after.log"
    local after_time=$took

    title "Before and after"
    row "" before after
    row "disk" "$(human "$guests/guest.ova") OVA" "$(human "$disk") qcow2"
    row "root" /dev/sda1 "$(mark cmdline | grep -o 'root=[^ ]*' | cut -d= -f2-)"
    row "boots on virtio" "no, after $before_time s" "yes, in $after_time s"
    row "says" "$before_says" "up on $(mark root)"
    row "disk driver" - "$(mark blk | grep -o 'vda:[^ ]*')"
    row "network" - "$(mark ip)"
    row "failed units" - "$(mark failed | grep . || echo none)"
    echo
    echo "migrated in $migrate_time s, verified; everything is in $out:"
    ls -l "$out"
}

# A fact of the migrated guest's BOOTMARK line.
mark() {
    grep -a -o "BOOTMARK .*" "$out/after.log" | head -n 1 | sed -n "s/.* $1=\[\([^]]*\)\].*/\1/p"
}

human() {
    numfmt --to=iec-i --suffix=B --format=%.1f "$(stat -c %s "$1")"
}

# Runs a command, shows it, and leaves the seconds in $took.
timed() {
    echo "\$ $*"
    local start status=0
    start=$(date +%s%N)
    "$@" || status=$?
    took=$(awk -v ns=$(($(date +%s%N) - start)) 'BEGIN { printf "%.1f", ns / 1e9 }')
    echo "[$took s]"
    return "$status"
}

row() {
    printf '  %-16s %-45s %s\n' "$@"
}

title() {
    printf '\n== %s\n' "$1"
}

fail() {
    echo "demo: $1" >&2
    exit 1
}

main
