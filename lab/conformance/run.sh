#!/usr/bin/env bash
# Checks the stand-in of the task-run service, and the bodies that podbeat sends, with independent
# clients: libica and schemathesis. It needs target/debug/podbeat-lab and target/debug/demo, which
# `just conformance` builds. The clients' environment is outside the checkout, and is created once
# for each requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=lab/conformance
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-conformance
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=$cache/python$version-$(sha256sum "$here/requirements.txt" | cut -c 1-16)
# The last file that is created: without it, an interrupted installation is repeated.
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  mkdir -p "$cache"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
  "$venv/bin/pip" check --quiet --disable-pip-version-check
  touch "$venv/complete"
fi
PATH=$venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" "$here/conformance.py" "$@"
