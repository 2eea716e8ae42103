#!/usr/bin/env bash
# Checks that the budgets detect flaws: each planted flaw, a leak and an allocation, must exceed its
# budget, and the same agent without a flaw must not. Also checks that interrupting the measurement
# leaves nothing behind. Needs target/debug/podbeat-budget, which `just budget-test` builds. Prints
# the counts at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

symbols=$(bash image/static.sh --symbols podbeat-planted)
budget=(
  "${CARGO_TARGET_DIR:-target}/debug/podbeat-budget" --binary "$symbols" --symbols "$symbols" --image /dev/null
)
out=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$out"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
passed=0 failed=0

judged() { # WHAT, then whether it is so, as a command
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
    echo "ok: $what"
  else
    failed=$((failed + 1))
    echo "FAILED: $what" >&2
  fi
}

# Measures KIND with BUDGET, and stores the output and the exit code.
measure() {
  local code=0
  "${budget[@]}" --planted "$1" --only "$2" --quick >"$out/$1-$2" 2>&1 || code=$?
  echo "$code" >"$out/$1-$2.code"
}

found_out() { [ "$(cat "$out/$1-$2.code")" = 1 ] && grep -q "^$2 .* OVER BUDGET$" "$out/$1-$2"; }
let_through() { [ "$(cat "$out/$1-$2.code")" = 0 ] && grep -q "^$2 .* within budget" "$out/$1-$2"; }

# Concurrently, because they mostly wait. None of them measures time.
for pair in "leak growth" "nothing growth" "allocation allocations" "nothing allocations"; do
  # shellcheck disable=SC2086
  measure $pair &
done
wait
for file in "$out"/*.code; do
  grep -h -E '^(growth|allocations) ' "${file%.code}" || cat "${file%.code}"
done
judged "a planted leak exceeds the budget of growth" found_out leak growth
judged "without it, growth is within its budget" let_through nothing growth
judged "a planted allocation exceeds the budget of allocations" found_out allocation allocations
judged "without it, allocations are within their budget" let_through nothing allocations

# Sends each signal in the middle of the measurement with the most processes.
interrupted() { # SIGNAL CODE
  local code=0 subjects left
  "${budget[@]}" --planted nothing --only crowd >"$out/$1" 2>&1 &
  local runner=$!
  for _ in $(seq 600); do
    subjects=$(pgrep -P "$runner" || true)
    [ "$(wc -w <<<"$subjects")" -ge 20 ] && break
    sleep 0.1
  done
  kill "-$1" "$runner"
  wait "$runner" || code=$?
  [ "$(wc -w <<<"$subjects")" -ge 20 ] && [ "$code" = "$2" ] || return 1
  # An ended process that nobody waits for has no executable any more.
  for _ in $(seq 100); do
    left=0
    for subject in $subjects; do
      readlink "/proc/$subject/exe" >/dev/null 2>&1 && left=$((left + 1))
    done
    [ "$left" = 0 ] && return 0
    sleep 0.1
  done
  return 1
}
judged "SIGTERM ends the measurement and every process that it measures" interrupted TERM 143
judged "SIGINT ends the measurement and every process that it measures" interrupted INT 130

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
