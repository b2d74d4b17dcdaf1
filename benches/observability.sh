#!/usr/bin/env bash
# Instructions a task of the whole broker, plain and with all on that tells of it: metrics scraped every 5 s,
# logs as JSON, the audit log, and traces of 1 % of the tasks. Broker, client and worker are the programs;
# callgrind counts in the broker alone, after a warm-up. Under it a broker does some thousand tasks a second:
# what costs by the second, not by the task, weighs many times more here than it does in life.
# Needs valgrind, python3 (a collector that takes everything) and curl.
set -euo pipefail
cd "$(dirname "$0")/.."

secs=${1:-15}
in_flight=${2:-256}
bin=${CARGO_TARGET_DIR:-target}/release
dir=$(mktemp -d)
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT

[[ -n ${BUILT-} ]] || cargo build --release --quiet -p mcp-broker -p mcp-client --features mcp-client/cli

collector='
import http.server
class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()'
python3 -c "$collector" >"$dir/collector" &
started+=($!)
until [[ -s $dir/collector ]]; do sleep 0.1; done
otlp=http://127.0.0.1:$(<"$dir/collector")

# measure NAME FLAG...: instructions a task of a broker with these flags.
measure() {
    local name=$1 broker worker scraper="" tasks total admin
    shift
    valgrind --tool=callgrind --callgrind-out-file="$dir/$name.callgrind" \
        "$bin/mcp-broker" serve --dev --listen 127.0.0.1:0 --state "$dir/$name" "$@" \
        >"$dir/$name.out" 2>"$dir/$name.log" &
    broker=$!
    started+=("$broker")
    until grep -q "^listening on" "$dir/$name.out"; do
        kill -0 "$broker" 2>/dev/null || { cat "$dir/$name.log" >&2; exit 1; }
        sleep 0.2
    done
    "$bin/mcpctl" --state "$dir/$name" worker --action echo --echo --slots 1024 2>"$dir/worker.log" &
    worker=$!
    started+=("$worker")
    if admin=$(grep -oP '^admin on \K.*' "$dir/$name.out"); then
        while sleep 5; do curl -s "$admin/metrics" >/dev/null; done &
        scraper=$!
        started+=("$scraper")
    fi
    bench() { "$bin/mcpctl" --state "$dir/$name" -o json bench echo --in-flight "$in_flight" --payload 128 --secs "$1"; }
    bench 5 >/dev/null
    callgrind_control --zero "$broker" &>/dev/null
    tasks=$(bench "$secs" | python3 -c 'import json, sys; print(json.load(sys.stdin)["tasks"])')
    callgrind_control --dump "$broker" &>/dev/null
    kill "$worker" $scraper "$broker"
    wait "$worker" $scraper "$broker" || true
    total=$(awk '/^(summary|totals):/ { print $2; exit }' "$dir/$name.callgrind.1")
    echo "$name: $((total / tasks)) instructions a task, of $tasks"
}

for repeat in 1 2; do
    measure "plain-$repeat"
    cat >"$dir/observed.toml" <<TOML
admin = ":0"
[log]
format = "json"
[audit]
file = "$dir/audit-$repeat.jsonl"
[telemetry]
otlp_endpoint = "$otlp"
sample_ratio = 0.01
TOML
    measure "observed-$repeat" --config "$dir/observed.toml"
done
