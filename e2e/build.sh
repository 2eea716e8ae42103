#!/usr/bin/env bash
# Builds etcd and the Kubernetes programs from their Go modules, once for each version, and prints the directory that
# holds them. The cache lies outside the checkout: ${PODBEAT_E2E_CACHE:-~/.cache/podbeat-e2e}.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v go >/dev/null; then
  echo "e2e: the Go toolchain is missing: install Go 1.26 or later (Debian: golang-go; or the archive of the Go project)" >&2
  exit 69
fi
go_version=$(go env GOVERSION)
need=$(sed -n 's/^go //p' cluster/go.mod)
if [ "$(printf '%s\n%s\n' "$need" "${go_version#go}" | sort -V | head -n 1)" != "$need" ]; then
  echo "e2e: Go $need or later is needed, this is $go_version: install a newer Go" >&2
  exit 69
fi

cache=${PODBEAT_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-e2e}
key=$( { echo "$go_version"; cat cluster/{go.mod,go.sum,main.go} etcd/{go.mod,go.sum,main.go} build.sh; } | sha256sum | cut -c1-16)
out=$cache/$key
if [ -x "$out/etcd" ] && [ -x "$out/kubernetes" ]; then
  echo "$out"
  exit 0
fi

# Built beside its place and renamed into it, so that a build that was cut off is never taken for a whole one.
mkdir -p "$cache"
building=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$building"' EXIT

release=$(sed -n 's/.*k8s.io\/kubernetes v\([0-9.]*\)$/\1/p' cluster/go.mod | head -n 1)
minor=${release#1.}
version=k8s.io/component-base/version
ldflags="-s -w -X $version.gitVersion=v$release -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*} -X $version.gitTreeState=clean"
export CGO_ENABLED=0 GOFLAGS="-trimpath -mod=readonly -buildvcs=false"
echo "e2e: building etcd and Kubernetes v$release; about five minutes on two cores, once" >&2
(cd etcd && go build -ldflags "-s -w" -o "$building/etcd" .)
(cd cluster && go build -ldflags "$ldflags" -o "$building/kubernetes" .)
rm -rf "$out"
mv "$building" "$out"
trap - EXIT
echo "$out"
