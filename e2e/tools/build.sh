#!/usr/bin/env bash
# Prints a directory with the tools of deploy/'s users, the tools that check it, and in crds/ the
# definitions of the kinds that it uses: of prometheus-operator, Argo Workflows and Kueue. All come
# from Go modules, pinned by their go.sum, and are built once for each version.
set -euo pipefail
cd "$(dirname "$0")"
. ../built-once.sh
need_go */go.mod

# `definitions MODULE FILE…`: copies these files of a module to $crds.
definitions() {
  local module=$1 directory
  shift
  directory=$(cd crds && go list -m -f '{{.Dir}}' "$module")
  (cd "$directory" && cp --no-preserve=mode "$@" "$crds")
}

build() {
  local tool
  echo "e2e: building helm, helm-docs and promtool; about three minutes on two cores, once"
  for tool in helm helm-docs promtool; do
    # Each module contains only one tool, so that the tools don't need compatible versions.
    (cd "$tool" && go build -ldflags "-s -w" -o "$1/$tool" "$(go list tool)")
  done
  crds=$1/crds
  mkdir "$crds"
  # Only the definitions are used. No code of these modules is built.
  (cd crds && go mod download)
  definitions github.com/prometheus-operator/prometheus-operator \
    example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml
  # The full definition knows every member. The usual one of Argo's installation accepts any.
  definitions github.com/argoproj/argo-workflows/v4 manifests/base/crds/full/argoproj.io_workflows.yaml
  definitions sigs.k8s.io/kueue config/components/crd/bases/kueue.x-k8s.io_{resourceflavors,clusterqueues,localqueues}.yaml
}

built_once build */go.mod */go.sum build.sh
