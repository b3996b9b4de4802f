#!/usr/bin/env bash
# Volumes of LVM, MD and LUKS, every type and layout, made by the tools themselves in a small emulated machine (once; they are kept),
# and every byte compared with what that machine's kernel read. Some ten minutes the first time, one after that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh zoo
HYPER2KVM_VOLUME_DIR=$(tests/fixtures/volumes.sh)
export HYPER2KVM_VOLUME_DIR
cargo test --locked --test integration -- --ignored volumes::
