#!/usr/bin/env bash
# Formatting, leftovers and clippy over everything that is committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
[ ! -e fuzz/Cargo.toml ] || cargo fmt --manifest-path fuzz/Cargo.toml --check

# Notes to oneself and debugging aids do not land. The pattern is split so that it does not match itself.
leftovers='\b(TO''DO|FIX''ME|X''XX)\b|\b(dbg|todo)''!'
if git grep -nIE "$leftovers" -- '*.rs' '*.sh' '*.md' '*.yml' Makefile; then
    echo "lint: leftovers above" >&2
    exit 1
fi

for script in $(git ls-files '*.sh' .ci/run); do
    bash -n "$script"
    if [ ! -x "$script" ]; then
        echo "lint: $script is not executable" >&2
        exit 1
    fi
done

cargo clippy --workspace --all-targets --locked -- -D warnings
