#!/usr/bin/env bash
# Checks that a node leaves nothing behind, however it ends: by itself, by Ctrl-C, by SIGTERM, and
# by SIGKILL. After SIGKILL, the next run removes the rest. Needs what `just e2e` needs, already
# built.
set -euo pipefail
cd "$(dirname "$0")/.."
e2e=${CARGO_TARGET_DIR:-target}/debug/e2e
prefix=podbeat-e2e-
limit=60

out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Everything that a run creates on the machine, one per line.
remains() {
  pgrep --full --list-full "$prefix|containerd-shim-runc-v2|kubernetes (kube|kubelet)" | grep -v -e "$0" -e grep | sed 's/^/process /' || true
  grep --only-matching "[^ ]*$prefix[^ ]*" /proc/mounts | sed 's/^/mount /' || true
  find /sys/fs/cgroup -maxdepth 2 -name "$prefix*" -printf 'control group %p\n'
  find "${TMPDIR:-/tmp}" -maxdepth 1 -name "$prefix*" -not -name "${prefix}api-*" -printf 'files %p\n'
  ip netns list 2>/dev/null | grep -x node | sed 's/^/network namespace /' || true
  grep --with-filename . /proc/sys/vm/overcommit_memory /proc/sys/vm/panic_on_oom /proc/sys/kernel/panic \
    /proc/sys/kernel/panic_on_oops /proc/sys/kernel/keys/root_max* | sed 's/^/setting /'
  ip -brief link | awk '/^(control|cni0|veth)/ { print "link " $1 }'
}

before=$(remains)
new() { remains | grep -v -x -F -e "${before:-nothing}" || true; }

passed=0
failed=0
verdict() {
  if [ -z "$2" ]; then
    passed=$((passed + 1))
    echo "PASS $1: nothing is left"
  else
    failed=$((failed + 1))
    printf 'FAIL %s left:\n%s\n' "$1" "$2"
  fi
}

# Starts a run that continues until it is ended. Sets its process id in $run; its output is in $out.
begin() {
  : >"$out"
  "$e2e" token-rotation >"$out" 2>&1 &
  run=$!
  for _ in $(seq $((limit * 10))); do
    if grep -q "node ready" "$out"; then
      # Also wait for containers: pods are starting.
      for _ in $(seq $((limit * 10))); do
        pgrep --full containerd-shim-runc-v2 >/dev/null && return
        sleep 0.1
      done
    fi
    kill -0 "$run" 2>/dev/null || break
    sleep 0.1
  done
  cat "$out"
  echo "the node did not start" >&2
  exit 1
}

gone() {
  for _ in $(seq $((limit * 10))); do
    [ -z "$(new)" ] && return
    sleep 0.1
  done
}

for signal in INT TERM; do
  begin
  kill -"$signal" "$run"
  code=0
  wait "$run" || code=$?
  left=$(new)
  expected=$([ "$signal" = INT ] && echo 130 || echo 143)
  [ "$code" = "$expected" ] || left+=$'\n'"exit code $code instead of $expected"
  verdict "SIG$signal in the middle of a life" "$left"
done

begin
kill -KILL "$run"
wait "$run" 2>/dev/null || true
# Only files, control groups and the machine's settings need the next run. The kernel removes
# everything else.
lives() { new | grep -v -e '^files' -e '^control group' -e '^setting' || true; }
for _ in $(seq $((limit * 10))); do
  [ -z "$(lives)" ] && break
  sleep 0.1
done
verdict "SIGKILL (of processes, mounts and links)" "$(lives)"

"$e2e" complete/plain >"$out" 2>&1 || { cat "$out"; failed=$((failed + 1)); }
gone
verdict "a run to its end behind the one that was killed" "$(new)"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
