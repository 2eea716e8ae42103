#!/usr/bin/env bash
# Prints a directory with crane and cosign, which push and sign a release. Both come from Go modules,
# pinned by their go.sum, and are built once for each version.
set -euo pipefail
cd "$(dirname "$0")"
. ../../e2e/built-once.sh
need_go */go.mod

build() {
  local tool
  echo "release: building crane and cosign; about three minutes on two cores, once"
  for tool in crane cosign; do
    (cd "$tool" && go build -ldflags "-s -w" -o "$1/$tool" "$(go list tool)")
  done
}

built_once build */go.mod */go.sum build.sh
