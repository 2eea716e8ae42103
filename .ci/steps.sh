# Sourced by .ci/run and .ci/nightly. Runs and measures steps, and reports at the end, even if a
# step fails.
#
#   step NAME COMMAND…    runs a command and waits for it
#   beside NAME COMMAND…  starts a command in the background
#   joined NAME           waits for that command and prints its output
#
# The report is a table of steps and seconds, then the test counts that the steps printed. For each
# failed step it has the name, and the command that repeats only this step. The first failed step
# ends the run, unless keep_going=1.

. .ci/tools.sh
keep_going=${keep_going:-0}
out=$(mktemp -d)
log=$out/log
: >"$log"
begun=$SECONDS
names=() commands=() starts=() lengths=() results=()
declare -A background=()

# Shows a command as a user would type it.
typed() { printf '%s' "$1"; shift; [ $# -eq 0 ] || printf ' %q' "$@"; }

# NAME COMMAND START SECONDS RESULT: adds a row to the table.
record() {
  names+=("$1") commands+=("$2") starts+=("$3") lengths+=("$4") results+=("$5")
  printf -- '--- %s: %s after %s s\n' "$1" "$5" "$4"
  [ "$5" = passed ] || [ "$keep_going" = 1 ] || exit 1
}

step() {
  local name=$1 start=$((SECONDS - begun)) result=passed
  shift
  printf '\n==> %s: %s\n' "$name" "$(typed "$@")"
  "$@" 2>&1 | tee -a "$log" || result=failed
  record "$name" "$(typed "$@")" "$start" $((SECONDS - begun - start)) "$result"
}

beside() {
  local name=$1
  shift
  typed "$@" >"$out/$name.command"
  # In its own process group, so that all its processes can be stopped.
  set -m
  (
    start=$((SECONDS - begun)) result=passed
    "$@" >"$out/$name.log" 2>&1 || result=failed
    echo "$start $((SECONDS - begun - start)) $result" >"$out/$name.end"
  ) &
  set +m
  background[$name]=$!
}

joined() {
  local name=$1 waited=$SECONDS start=- seconds=- result=failed
  wait "${background[$name]}" || true
  # Not unset, because unset fails for a name with an apostrophe.
  background[$name]=
  waited=$((SECONDS - waited))
  printf '\n==> %s: %s (in the background)\n' "$name" "$(cat "$out/$name.command")"
  tee -a "$log" <"$out/$name.log"
  # The file is missing if the command was killed.
  if [ -e "$out/$name.end" ]; then read -r start seconds result <"$out/$name.end"; fi
  record "$name (in the background, waited for $waited s)" "$(cat "$out/$name.command")" "$start" "$seconds" "$result"
}

report() {
  local code=$? name index
  set +e
  for name in "${!background[@]}"; do
    [ -n "${background[$name]}" ] || continue
    kill -- "-${background[$name]}" 2>/dev/null
    names+=("$name (in the background)") starts+=(-) lengths+=(-) results+=(ended)
  done
  printf '\n%6s %8s  %-7s %s\n' start seconds result step
  for index in "${!names[@]}"; do
    printf '%6s %8s  %-7s %s\n' "${starts[index]}" "${lengths[index]}" "${results[index]}" "${names[index]}"
  done
  printf '%6s %8s  %-7s %s\n' 0 $((SECONDS - begun)) "" "all of it"
  # The sums of the counts that the test runners printed.
  awk '
    /^test result:/ { passed += $4; failed += $6 }
    /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
    END { printf "\n%d passed, %d failed\n", passed, failed }' "$log"
  for index in "${!names[@]}"; do
    [ "${results[index]}" = failed ] || continue
    printf '\nfailed: %s\nto repeat it alone: %s\n' "${names[index]}" "${commands[index]}"
    [ "$code" != 0 ] || code=1
  done
  rm -rf "$out"
  exit "$code"
}
trap report EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Keeps builds outside the checkout, for each toolchain and lock file, so that a fresh clone
# compiles only the workspace's own crates. A checkout with a target directory keeps that directory,
# and so does a second run at the same time.
share_target() {
  local key
  mkdir -p "$tools"
  if [ -L target ] && [ ! -e target ]; then rm target; fi
  [ ! -e target ] || return 0
  exec {target_lock}>"$tools/target.lock"
  flock --nonblock "$target_lock" || return 0
  key=target-$( (rustc -vV; cat Cargo.lock fuzz/Cargo.lock) | sha256sum | cut -c 1-16)
  find "$tools" -maxdepth 1 -type d -name 'target-*' -not -name "$key" -exec rm -rf {} +
  mkdir -p "$tools/$key"
  ln -s "$tools/$key" target
  # Cargo compares times. Another checkout's build is newer than this checkout's files, so cargo
  # would consider it up to date.
  git ls-files -z | xargs -0 touch --no-create --no-dereference
}
