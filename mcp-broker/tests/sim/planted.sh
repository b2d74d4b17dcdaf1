#!/usr/bin/env bash
# Proves that the simulation bites: plants each fault of planted/*.patch in a copy of the tree, and
# tells the first seed that finds it. Fails when one is not found, or no longer can be planted.
#
#   mcp-broker/tests/sim/planted.sh [FAULT...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(git -C "$here" rev-parse --show-toplevel)
# Apart from what is built of the tree itself, which would be taken for built from the copy.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/planted}" SIM_SEEDS="${SIM_SEEDS:-200}" RUST_BACKTRACE=0

# Without the program's command line there is less to build.
run=(cargo test --quiet -p mcp-broker --no-default-features --test sim)

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git -C "$root" ls-files -z --cached --others --exclude-standard | tar -C "$root" --null -T - -c | tar -C "$copy" -x -m
cd "$copy"

if [ $# -gt 0 ]; then
    faults=("$@")
else
    faults=()
    for patch in "$here"/planted/*.patch; do
        faults+=("$(basename "$patch" .patch)")
    done
fi

# A fault can also make seeds go round in circles, which is noticed after a minute.
missed=0
echo "| fault | seed | what is said |"
echo "|---|---|---|"
for fault in "${faults[@]}"; do
    patch -p1 --quiet --forward --fuzz=0 <"$here/planted/$fault.patch"
    if ! "${run[@]}" --no-run >build.log 2>&1; then
        cat build.log >&2
        exit 1
    fi
    timeout 180 "${run[@]}" promised -- --nocapture >run.log 2>&1 || true
    seed=$(grep -oE '^SIM_SEED=[0-9]+' run.log | cut -d= -f2 | sort -n | head -1 || true)
    if [ -n "$seed" ]; then
        SIM_SEED=$seed "${run[@]}" promised -- --nocapture >run.log 2>&1 || true
        said=$(grep -A1 'panicked at' run.log | sed -n 2p | cut -c1-100 | tr '|`' '  ')
        echo "| $fault | $seed | \`$said\` |"
    else
        echo "| $fault | none of $SIM_SEEDS | |"
        missed=$((missed + 1))
    fi
    # Not by reversing it, which may find another place that looks the same.
    sed -n 's|^+++ b/||p' "$here/planted/$fault.patch" | while read -r file; do
        cp "$root/$file" "$file"
    done
done
exit $((missed > 0))
