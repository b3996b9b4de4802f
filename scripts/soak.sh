#!/usr/bin/env bash
# soak.sh MINUTES: kills migrations and conversions at random moments, again and again, and checks what each left.
# Then fio verifies what it writes to a served overlay for HYPER2KVM_STRESS_SECONDS (600), while other clients are killed.
# Before that, HYPER2KVM_SEQUENCES (10000) sequences of random changes to XFS, over its twenty shapes, and as many to the twenty-one
# of btrfs that can be written, some of which are also filled to the last byte: needs root. Shapes are changed on all processors at
# once. A sequence that fails says how it is run again.
# Between rounds, as many worlds of bad networks as two minutes take on two cores, with seeds that no round had before.
# A round is some 200 SIGKILLs: HYPER2KVM_KILLS (17) for each of twelve kinds of run. It also cuts the power with more seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:?minutes}
tests/fixtures/build.sh
HYPER2KVM_FIXTURE_DIR=$(tests/fixtures/build.sh --path)
export HYPER2KVM_FIXTURE_DIR HYPER2KVM_KILLS=${HYPER2KVM_KILLS:-17} HYPER2KVM_CRASH_SEEDS=${HYPER2KVM_CRASH_SEEDS:-20}
sequences=${HYPER2KVM_SEQUENCES:-10000}
HYPER2KVM_JOBS=$(nproc) XFS_SHAPES=all XFS_SEQUENCES=$(((sequences + 19) / 20)) \
    cargo test --quiet --locked --release --test integration -- --nocapture xfs::edits
HYPER2KVM_JOBS=$(nproc) BTRFS_SHAPES=all BTRFS_SEQUENCES=$(((sequences + 20) / 21)) \
    cargo test --quiet --locked --release --test integration -- --nocapture btrfs::write btrfs::full
end=$((SECONDS + minutes * 60))
rounds=0
worlds=${HYPER2KVM_WORLDS:-2000}
while [ "$SECONDS" -lt "$end" ]; do
    cargo test --quiet --locked --release --test integration kill::
    cargo test --quiet --locked --release --lib convert::tests::crash
    HYPER2KVM_SEEDS=$((rounds * worlds)).."$(((rounds + 1) * worlds))" \
        cargo test --quiet --locked --release --lib source::remote::tests::copy
    HYPER2KVM_STRESS_SECONDS=${HYPER2KVM_STRESS_SECONDS:-600} \
        cargo test --quiet --locked --release --test integration clients_die_at_random_moments
    rounds=$((rounds + 1))
    echo "soak: $rounds rounds of $((12 * HYPER2KVM_KILLS)) kills, $(((end - SECONDS) / 60)) minutes left"
done
