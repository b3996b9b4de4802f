#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...]: runs each fuzz target for SECONDS, all of them by default, and fails on the first crash.
#
# libFuzzer with coverage feedback on stable Rust: these are the flags that `cargo fuzz --sanitizer=none` passes, so neither
# cargo-fuzz nor a nightly compiler is needed. (With both at hand, `cargo fuzz run TARGET` works too and adds AddressSanitizer.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:?seconds a target}
shift
targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do
        targets+=("$(basename "$file" .rs)")
    done
fi

# With --target, the flags apply to the fuzzed code only, not to build scripts and macros.
host=$(rustc -vV | sed -n 's/^host: //p')
# libFuzzer needs the counters' section kept, and 8-bit counters, program counters and comparisons to feed on.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" --bins

# What is worth more than an empty start.
scripts/fuzz-seeds.sh

run() {
    local target=$1 log status=0
    log=$(mktemp)
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    "fuzz/target/$host/release/$target" "fuzz/corpus/$target" \
        -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -malloc_limit_mb=512 -print_final_stats=1 >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 30 "$log"
        echo "fuzz $target: FAILED; the input is in fuzz/artifacts/$target" >&2
    else
        echo "fuzz $target: ok, $(awk '/number_of_executed_units/ { print $2 }' "$log") inputs in $seconds s"
    fi
    rm "$log"
    return "$status"
}

# One target a processor.
failed=0
slots=$(nproc)
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$slots" ]; do
        wait -n || failed=1
    done
    run "$target" &
done
while [ -n "$(jobs -p)" ]; do
    wait -n || failed=1
done
exit "$failed"
