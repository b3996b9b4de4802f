#!/usr/bin/env bash
# Times `migrate` and `convert` of the plain guest in each format against `qemu-img` with its best flags, verification off and
# on, in alternating pairs. Figures go to target/bench; docs/benchmarks.md says how to read them. PAIRS=10 is the least that
# counts; ONLY=zlib runs the comparisons with that in their name, VERIFY=off those without verification; CACHE=cold drops the
# page cache before each run instead of filling it. Sharing is timed on file systems in files, whose mounting needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-deps.sh
tests/fixtures/build.sh >/dev/null
cargo bench --locked --bench pairs -- "$(tests/fixtures/build.sh --path)/plain" \
    --pairs "${PAIRS:-10}" --cache "${CACHE:-warm}" ${ONLY:+--only "$ONLY"} ${VERIFY:+--verify "$VERIFY"} --out target/bench
