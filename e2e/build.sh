#!/usr/bin/env bash
# Builds etcd and the Kubernetes programs, including kubectl, from their Go modules, once for each
# version. Prints the directory that contains them.
set -euo pipefail
cd "$(dirname "$0")"
. ./built-once.sh
need_go cluster/go.mod etcd/go.mod

build() {
  local release minor version ldflags
  release=$(sed -n 's/.*k8s.io\/kubernetes v\([0-9.]*\)$/\1/p' cluster/go.mod | head -n 1)
  minor=${release#1.}
  version=k8s.io/component-base/version
  ldflags="-s -w -X $version.gitVersion=v$release -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*} -X $version.gitTreeState=clean"
  echo "e2e: building etcd and Kubernetes v$release; about five minutes on two cores, once"
  (cd etcd && go build -ldflags "-s -w" -o "$1/etcd" .)
  (cd cluster && go build -ldflags "$ldflags" -o "$1/kubernetes" .)
  ln -s kubernetes "$1/kubectl"
}

built_once build cluster/{go.mod,go.sum,main.go} etcd/{go.mod,go.sum,main.go} build.sh
