#!/usr/bin/env bash
# Checks podbeat-server, and the bodies that podbeat sends, with independent
# clients: libica, schemathesis, and clients that openapi-generator makes from the contract. It needs
# target/debug/podbeat-server and target/debug/demo, which `just conformance` builds. The clients'
# environments are outside the checkout. They are created once for each of their files of versions,
# and a generated client once for each contract.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lab/conformance
contract=contract/task-runs.openapi.yaml
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-conformance
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! java -version >/dev/null 2>&1; then
  echo "cannot generate clients from the contract: java does not run; install Java 11 or later (Debian: apt-get install --no-install-recommends default-jre-headless)" >&2
  exit 69
fi
mkdir -p "$cache"
pip_options=(--quiet --disable-pip-version-check --no-deps)

# FILE…: the first digits of a hash of the files.
digest() { cat "$@" | sha256sum | cut -c 1-16; }

# The file `complete` is the last that is created: without it, an interrupted installation is
# repeated.
venv=$cache/python$version-$(digest "$here/requirements.txt")
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install "${pip_options[@]}" --requirement "$here/requirements.txt"
  "$venv/bin/pip" check --quiet --disable-pip-version-check
  touch "$venv/complete"
fi

# Each generated client, as VERSION, environment and directory.
sdks=()
for generator in "$here"/openapi-generator-*.txt; do
  name=${generator##*openapi-generator-}
  name=${name%.txt}
  dependencies=$here/ica-sdk-$name.txt
  sdk_venv=$cache/openapi-generator-$name-python$version-$(digest "$generator" "$dependencies")
  if [ ! -e "$sdk_venv/complete" ]; then
    rm -rf "$sdk_venv"
    python3 -m venv "$sdk_venv"
    "$sdk_venv/bin/pip" install "${pip_options[@]}" --require-hashes --requirement "$generator"
    "$sdk_venv/bin/pip" install "${pip_options[@]}" --requirement "$dependencies"
    touch "$sdk_venv/complete"
  fi
  sdk=$cache/ica-sdk-$name-$(digest "$generator" "$contract")
  if [ ! -e "$sdk/complete" ]; then
    rm -rf "$sdk"
    mkdir "$sdk"
    jar=$(find "$sdk_venv" -name openapi-generator.jar)
    if ! java -jar "$jar" generate -i "$contract" -g python --package-name ICA_SDK -o "$sdk" >"$sdk/log" 2>&1; then
      cat "$sdk/log" >&2
      echo "openapi-generator $name cannot generate a client from $contract (it needs Java 11 or later)" >&2
      exit 70
    fi
    touch "$sdk/complete"
  fi
  sdks+=("$name" "$sdk_venv" "$sdk")
done
PATH=$venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" "$here/conformance.py" "${sdks[@]}"
