# Sourced by what builds programs from Go modules: they are built once for each version, into a cache that lies outside the
# checkout: ${PODBEAT_E2E_CACHE:-~/.cache/podbeat-e2e}.

# Checks that there is a Go toolchain as new as these go.mod files want, and sets $go_version.
need_go() {
  if ! command -v go >/dev/null; then
    echo "e2e: the Go toolchain is missing: install Go 1.26 or later (Debian: golang-go; or the archive of the Go project)" >&2
    exit 69
  fi
  go_version=$(go env GOVERSION)
  local need
  need=$(sed -s -n 's/^go //p' "$@" | sort -V | tail -n 1)
  if [ "$(printf '%s\n%s\n' "$need" "${go_version#go}" | sort -V | head -n 1)" != "$need" ]; then
    echo "e2e: Go $need or later is needed, this is $go_version: install a newer Go" >&2
    exit 69
  fi
}

# `built_once BUILD FILE…`: prints the directory that BUILD filled, given its path, when the files were as they are now.
built_once() {
  local build=$1 key out
  shift
  cache=${PODBEAT_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-e2e}
  key=$( { echo "$go_version"; cat "$@"; } | sha256sum | cut -c1-16)
  out=$cache/$key
  if [ ! -d "$out" ]; then
    mkdir -p "$cache"
    # One build at a time: a second one would compile the same.
    exec {lock}>"$out.lock"
    flock "$lock"
  fi
  if [ ! -d "$out" ]; then
    # Built beside its place and renamed into it, so that a build that was cut off is never taken for a whole one.
    building=$(mktemp -d "$cache/building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    export CGO_ENABLED=0 GOFLAGS="-trimpath -mod=readonly -buildvcs=false"
    "$build" "$building" >&2
    mv -T "$building" "$out"
  fi
  echo "$out"
}
