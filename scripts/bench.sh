#!/usr/bin/env bash
# Times `migrate` of the plain guest's OVA against `qemu-img convert -O qcow2` of its VMDK, verification off and on, in
# alternating pairs. Figures go to target/bench; docs/benchmarks.md says how to read them. PAIRS=10 is the least that counts;
# CACHE=cold drops the page cache before each run instead of filling it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh
tests/fixtures/build.sh >/dev/null
cargo bench --locked --bench pairs -- "$(tests/fixtures/build.sh --path)/plain" \
    --pairs "${PAIRS:-10}" --cache "${CACHE:-warm}" --out target/bench
