#!/usr/bin/env bash
# Checks that interrupting `podbeat-bench` leaves nothing behind: no subject, no child of the shell,
# no directory. Needs the output of bench/prepare.sh. Prints the counts at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
runner=${CARGO_TARGET_DIR:-target}/bench-run/podbeat-bench
out=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$out"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
passed=0 failed=0

# An ended process that nobody waits for has no executable any more.
alive() {
  local process
  for process in "$@"; do readlink "/proc/$process/exe" >/dev/null 2>&1 && return 0; done
  return 1
}

interrupted() { # SIGNAL CODE
  local code=0 leader= members=
  mkdir "$out/$1"
  TMPDIR=$out/$1 "$runner" --lives --subjects shell >"$out/log" 2>&1 &
  local process=$!
  # The script, its watch, curl and jq.
  for _ in $(seq 300); do
    leader=$(pgrep -P "$process" || true)
    members=$([ -z "$leader" ] || pgrep -g "$leader" || true)
    [ "$(wc -w <<<"$members")" -ge 4 ] && break
    sleep 0.1
  done
  kill "-$1" "$process"
  wait "$process" || code=$?
  if [ "$(wc -w <<<"$members")" -lt 4 ] || [ "$code" != "$2" ]; then
    echo "its processes were $members, and its exit code was $code; its output:" >&2
    cat "$out/log" >&2
    return 1
  fi
  for _ in $(seq 100); do
    # shellcheck disable=SC2086
    if ! alive $members && [ -z "$(ls "$out/$1")" ]; then return 0; fi
    sleep 0.1
  done
  echo "some of the processes $members are still alive, or directories remain: $(ls "$out/$1")" >&2
  return 1
}

for pair in "TERM 143" "INT 130"; do
  # shellcheck disable=SC2086
  if interrupted $pair; then
    passed=$((passed + 1))
    echo "ok: SIG${pair% *} ends the comparison and every process that it compares"
  else
    failed=$((failed + 1))
    echo "FAILED: SIG${pair% *} ends the comparison and every process that it compares" >&2
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
