#!/usr/bin/env bash
# Makes the commit and the tag of a version: `release/release.sh VERSION`. Pushes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
if [ -n "$(git status --porcelain)" ]; then
  echo "release: the checkout has changes; commit or remove them first" >&2
  exit 65
fi
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then
  echo "release: the tag v$version exists" >&2
  exit 65
fi
cargo run --quiet --locked --package podbeat-release -- version "$version"
bash release/generate.sh
git commit --quiet --all --message "podbeat $version"
git tag --annotate "v$version" --message "podbeat $version"
echo "To publish it: git push origin HEAD v$version"
