#!/usr/bin/env bash
# Generates the files that contain the version or the registry, and checks all names.
set -euo pipefail
cd "$(dirname "$0")/.."
# Only the workspace's own crates have another version.
cargo update --quiet --workspace --offline
cargo metadata --quiet --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
kubernetes=$(bash e2e/build.sh) tools=$(bash e2e/tools/build.sh)
HELM=$tools/helm HELM_DOCS=$tools/helm-docs KUBECTL=$kubernetes/kubectl bash deploy/render.sh deploy
cargo run --quiet --locked --package podbeat-release -- names
