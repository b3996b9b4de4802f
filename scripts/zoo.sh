#!/usr/bin/env bash
# What is too slow or too delicate for `make test`:
#
#   volumes of LVM, MD and LUKS, every type and layout, made by the tools themselves in a small emulated machine, every byte compared
#   with what that machine's kernel read;
#   guests of many layouts, their files compared with what the kernel and guestfish show, their facts with virt-inspector's; each is
#   booted before it is migrated and afterwards;
#   UDF volumes, which the emulated machine fills anew each time, read as its kernel reads them.
#
# Disks and guests are made once and kept, which takes some half an hour. The tests take two to three hours on two processors. One of
# the guests needs Linux 6.10.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh zoo
HYPER2KVM_VOLUME_DIR=$(tests/fixtures/volumes.sh)
HYPER2KVM_FIXTURE_DIR=$(tests/fixtures/build.sh)
HYPER2KVM_ZOO_DIR=$(tests/fixtures/zoo.sh)
export HYPER2KVM_VOLUME_DIR HYPER2KVM_FIXTURE_DIR HYPER2KVM_ZOO_DIR
cargo test --locked --test integration -- --ignored volumes:: zoo:: udf::
