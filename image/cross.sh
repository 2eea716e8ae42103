#!/usr/bin/env bash
# Prints a linker for another Linux target, for static programs: `image/cross.sh aarch64-unknown-linux-gnu`.
# Debian's cross compiler has a C library without Debian's later fixes. So this takes the package
# libc6-dev of that architecture, in the same version as this host's, and keeps it in the cache.
set -euo pipefail
target=$1
machine=${target%%-*}
compiler=$machine-linux-gnu-gcc
case $machine in
  aarch64) architecture=arm64 ;;
  x86_64) architecture=amd64 ;;
  *)
    echo "cross: unknown target $target" >&2
    exit 64
    ;;
esac
need() {
  command -v "$1" >/dev/null || {
    echo "cross: $1 is missing, which $target needs; on Debian, run .ci/install release" >&2
    exit 69
  }
}
need "$compiler"
need apt-get
need dpkg-query
rustc=$(rustc --print target-libdir --target "$target")
if [ ! -d "$rustc" ]; then
  echo "cross: Rust's standard library for $target is missing; run rustup target add $target" >&2
  exit 69
fi

version=$(dpkg-query --showformat '${Version}' --show libc6-dev)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-ci/libc6-dev-$architecture-$version
if [ ! -d "$cache" ]; then
  mkdir -p "${cache%/*}"
  exec {lock}>"$cache.lock"
  flock "$lock"
fi
if [ ! -d "$cache" ]; then
  work=$(mktemp -d "${cache%/*}/building.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists,cache/archives}/partial "$work/package"
  # Its own lists, so that this host's architectures do not change.
  apt() {
    apt-get -qq -o "APT::Architecture=$architecture" -o "APT::Architectures::=$architecture" \
      -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o Dir::State::status=/dev/null "$@"
  }
  apt update >&2
  (cd "$work/package" && apt download "libc6-dev:$architecture=$version" 2>/dev/null) || {
    echo "cross: Debian has no libc6-dev $version for $architecture; upgrade this host's libc6-dev" >&2
    exit 69
  }
  dpkg -x "$work"/package/*.deb "$work/root"
  # rustc recognizes a compiler by the end of its name.
  cat >"$work/root/linker-gcc" <<LINKER
#!/bin/sh
library=\$(dirname "\$(realpath "\$0")")/usr/lib/$machine-linux-gnu
exec $compiler "-B\$library" "-L\$library" "\$@"
LINKER
  chmod +x "$work/root/linker-gcc"
  mv -T "$work/root" "$cache"
fi
echo "$cache/linker-gcc"
