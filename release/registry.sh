#!/usr/bin/env bash
# Sets the registry and the owner in every file that has them: `release/registry.sh HOST/OWNER`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --quiet --locked --package podbeat-release -- registry "$1"
bash release/generate.sh
