#!/usr/bin/env bash
# Starts `just up`'s node, runs the commands of README's section "No task-run service yet?" as they
# are written there, and `helm test`, and stops the node. `up.sh PROGRAMS`: the directory with podbeat and e2e-launch.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=$(realpath "$1")
log=$(mktemp)
"$programs/e2e-launch" --relay &
relay=$!
"$programs/e2e-launch" --up >"$log" 2>&1 &
node=$!
stop() {
  kill -INT "$node" 2>/dev/null || true
  wait "$node" 2>/dev/null || true
  kill "$relay" 2>/dev/null || true
}
trap 'stop; rm -f "$log"' EXIT

for _ in $(seq 300); do
  if grep -q '^podbeat-server runs until' "$log"; then break; fi
  kill -0 "$node" 2>/dev/null || { cat "$log"; echo "the node did not start" >&2; exit 1; }
  sleep 1
done
cat "$log"
commands=$(sed -n '/^\$ \. \/tmp\/podbeat-up\/env$/,/^```$/s/^\$ //p' README.md)
[ "$(wc -l <<<"$commands")" -ge 4 ] || { echo "README.md has no commands for just up" >&2; exit 1; }
echo "$commands"
PATH=$programs:$PATH bash -euo pipefail -c "$commands" | tee "$log.out"
grep -q Completed "$log.out" || { echo "the run is not Completed" >&2; exit 1; }
rm -f "$log.out"
/tmp/podbeat-up/helm test podbeat-server --namespace podbeat --logs --timeout 2m
echo "1 passed, 0 failed"
