#!/usr/bin/env bash
# Instructions per task of the broker's core, and the functions that take them: the difference of two
# runs of `core-loop`, so that start and warm-up cancel out. Doesn't depend on how busy the machine
# is. Needs valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

few=5000
many=25000
target=${CARGO_TARGET_DIR:-target}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo build --release --quiet -p mcp-bench --bin core-loop
for tasks in $few $many; do
    for with in "" roles; do
        valgrind --tool=callgrind --toggle-collect='mcp_bench::CoreLoop::step*' \
            --callgrind-out-file="$out/$tasks$with" "$target/release/core-loop" "$tasks" $with \
            2>"$out/log" || { cat "$out/log" >&2; exit 1; }
    done
done

total() { awk '/^(summary|totals):/ { print $2; exit }' "$out/$1"; }
of() { echo $((($(total "$many$1") - $(total "$few$1")) / (many - few))); }
echo "instructions a task, core with 10 workers: $(of ""), under a policy of roles: $(of roles)"
echo
callgrind_annotate --threshold=90 "$out/$many" | sed -n '/^Ir/,$p' | cut -c1-140 | head -45
