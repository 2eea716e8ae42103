#!/usr/bin/env bash
# Prints a directory with the tools of deploy/'s users, the tools that check it, and in crds/ the
# definitions of the prometheus-operator kinds that it uses. All come from Go modules, pinned by
# their go.sum, and are built once for each version.
set -euo pipefail
cd "$(dirname "$0")"
. ../built-once.sh
need_go */go.mod

build() {
  local tool operator
  echo "e2e: building helm, helm-docs and promtool; about three minutes on two cores, once"
  for tool in helm helm-docs promtool; do
    # Each module contains only one tool, so that the tools don't need compatible versions.
    (cd "$tool" && go build -ldflags "-s -w" -o "$1/$tool" "$(go list tool)")
  done
  operator=$(cd crds && go mod download -json | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  mkdir "$1/crds"
  cp "$operator"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml "$1/crds"
}

built_once build */go.mod */go.sum build.sh
