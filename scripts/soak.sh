#!/usr/bin/env bash
# soak.sh MINUTES: kills migrations and conversions at random moments, again and again, and checks what each left.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:?minutes}
tests/fixtures/build.sh
HYPER2KVM_FIXTURE_DIR=$(tests/fixtures/build.sh --path)
export HYPER2KVM_FIXTURE_DIR HYPER2KVM_KILLS=${HYPER2KVM_KILLS:-50}
end=$((SECONDS + minutes * 60))
rounds=0
while [ "$SECONDS" -lt "$end" ]; do
    cargo test --quiet --locked --release --test integration kill::
    rounds=$((rounds + 1))
    echo "soak: $rounds rounds of $HYPER2KVM_KILLS kills, $(((end - SECONDS) / 60)) minutes left"
done
