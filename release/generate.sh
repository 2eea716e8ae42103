#!/usr/bin/env bash
# Generates the files that contain the version or the registry, and checks all names.
set -euo pipefail
cd "$(dirname "$0")/.."
# Only the workspace's own crates have another version.
cargo update --quiet --workspace --offline
kubernetes=$(bash e2e/build.sh) tools=$(bash e2e/tools/build.sh)
HELM=$tools/helm HELM_DOCS=$tools/helm-docs KUBECTL=$kubernetes/kubectl bash deploy/render.sh deploy
cargo run --quiet --locked --package podbeat-release -- names
