# Sourced by scripts that build programs from Go modules. The programs are built once for each
# version, into a cache outside the checkout: ${PODBEAT_E2E_CACHE:-~/.cache/podbeat-e2e}.

# Checks that the Go toolchain is as new as these go.mod files require, and sets $go_version.
need_go() {
  if ! command -v go >/dev/null; then
    echo "e2e: the Go toolchain is missing; install Go 1.26 or later (Debian: golang-go; or the archive of the Go project)" >&2
    exit 69
  fi
  go_version=$(go env GOVERSION)
  local need
  need=$(sed -s -n 's/^go //p' "$@" | sort -V | tail -n 1)
  if [ "$(printf '%s\n%s\n' "$need" "${go_version#go}" | sort -V | head -n 1)" != "$need" ]; then
    echo "e2e: Go $need or later is required, but this is $go_version; install a newer Go" >&2
    exit 69
  fi
}

# `built_once BUILD FILE…`: prints the directory that BUILD filled for the current content of the
# files. Runs BUILD with the directory's path if it doesn't exist yet.
built_once() {
  local build=$1 key out
  shift
  cache=${PODBEAT_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-e2e}
  key=$( { echo "$go_version"; cat "$@"; } | sha256sum | cut -c1-16)
  out=$cache/$key
  if [ ! -d "$out" ]; then
    mkdir -p "$cache"
    # One build at a time, because a second one would compile the same.
    exec {lock}>"$out.lock"
    flock "$lock"
  fi
  if [ ! -d "$out" ]; then
    # Built in another directory and then renamed, so that an interrupted build is never used.
    building=$(mktemp -d "$cache/building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    export CGO_ENABLED=0 GOFLAGS="-trimpath -mod=readonly -buildvcs=false"
    "$build" "$building" >&2
    mv -T "$building" "$out"
  fi
  echo "$out"
}
