#!/usr/bin/env bash
# Prints the path of axe-core, which checks the accessibility of a page. It is outside the checkout,
# and is fetched with npm once for each version.
set -euo pipefail
version=4.14.1
sha256=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-axe-core
if [ ! -e "$cache/$version.js" ]; then
  if ! command -v npm >/dev/null; then
    echo "cannot fetch axe-core: npm is missing; install it (Debian: apt-get install --no-install-recommends npm)" >&2
    exit 69
  fi
  mkdir -p "$cache"
  download=$(mktemp -d "$cache/download.XXXXXX")
  trap 'rm -rf "$download"' EXIT
  (cd "$download" && npm pack --silent "axe-core@$version" >/dev/null)
  echo "$sha256  $download/axe-core-$version.tgz" | sha256sum --check --quiet >&2
  tar -xzf "$download/axe-core-$version.tgz" -C "$download" package/axe.min.js
  # The last step, so that an interrupted one is repeated.
  mv "$download/package/axe.min.js" "$cache/$version.js"
fi
echo "$cache/$version.js"
