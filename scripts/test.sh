#!/usr/bin/env bash
# Everything that must hold before a change lands, cheapest first. The last lines are those of the integration tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

main() {
    step "packages" scripts/install-deps.sh test
    step "lint" scripts/lint.sh
    step "fixtures" tests/fixtures/build.sh
    step "newer programs" tests/fixtures/newer.sh
    step "unit tests" cargo test --locked --package hyper2kvm --lib --bins
    step "documentation tests" cargo test --locked --package hyper2kvm --doc
    step "fuzz smoke" scripts/fuzz.sh "${FUZZ_SECONDS:-10}"
    step "integration tests" integration
}

# They mount and boot disks as root, and run the program under test as a plain user themselves.
integration() {
    local triple runner=()
    HYPER2KVM_FIXTURE_DIR=$(tests/fixtures/build.sh --path)
    export HYPER2KVM_FIXTURE_DIR
    if [ "$(id -u)" -ne 0 ]; then
        triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        runner=("CARGO_TARGET_${triple}_RUNNER=sudo -E")
    fi
    # The packages with all their targets, so that cargo builds the examples that their tests run.
    env "${runner[@]}" cargo test --locked --package hyper2kvm-fuse --package hyper2kvm-nbd
    env "${runner[@]}" cargo test --locked --test integration
}

step() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - start)) s"
}

main
