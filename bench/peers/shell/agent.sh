#!/usr/bin/env bash
# A typical sidecar in shell: curl keeps a watch open, jq reads it, and curl sends each heartbeat.
#
# It does podbeat's usual work. The settings and the members on the wire have the same names.
set -uo pipefail

account=${PODBEAT_SERVICE_ACCOUNT_DIR:-/var/run/secrets/kubernetes.io/serviceaccount}
pods=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$POD_NAMESPACE/pods
pods+="?fieldSelector=metadata.name%3D$POD_NAME"
beat_url=${PODBEAT_SERVICE_URL%/}/v1/tasks/runs/$TASK_RUN_ID:heartbeat
interval=${PODBEAT_INTERVAL:-30s} interval=${interval%s}
timeout=${PODBEAT_TIMEOUT:-10s} timeout=${timeout%s}

# How long to wait after SIGTERM for the event with the end of the task, in seconds.
settling=1

# For a pod, prints its version, whether the task is over, and the statuses for the wire. For a
# bookmark, prints only its version. For an error, prints the version "-", so that the pod is listed
# again.
look='
  def told:
    .state | if .terminated then {terminated: .terminated | {containerID, exitCode, finishedAt, message, reason, signal, startedAt}}
    elif .running then {running: .running | {startedAt}}
    elif .waiting then {waiting: .waiting | {message, reason}}
    else empty end | map_values(with_entries(select(.value != null)));
  def look:
    .spec.restartPolicy as $policy
    | [.spec.containers[].name | select(. != $own)] as $tasks
    | [.status.containerStatuses[]? | select(.name != $own)] as $statuses
    | [$statuses[] | select(.state.terminated and ($policy == "Never"
        or $policy == "OnFailure" and .state.terminated.exitCode == 0)) | .name] as $finished
    | "\(.metadata.resourceVersion) \(($tasks | length) > 0 and $tasks - $finished == [])"
      + " \([$statuses[] | {name, state: told}] | tojson)";
  if .kind == "PodList" then .metadata.resourceVersion as $version
    | (.items[] | look), "\($version) bookmark"
  elif .type == "ERROR" then "- \(.object.code) \(.object.message)"
  elif .type == "BOOKMARK" then "\(.object.metadata.resourceVersion) bookmark"
  elif .type == "ADDED" or .type == "MODIFIED" then .object | look
  else "\(.object.metadata.resourceVersion) bookmark" end'

# Requests the Kubernetes API, and prints looks. It reads the token for each request, and keeps it
# out of the process list.
kubernetes() {
  curl --silent --show-error --fail --no-buffer --cacert "$account/ca.crt" --connect-timeout 10 \
    --header @<(printf 'Authorization: Bearer %s' "$(<"$account/token")") "$@" |
    jq --unbuffered --raw-output --arg own "${PODBEAT_CONTAINER_NAME:-podbeat}" "$look"
}

# Waits a random time, whose limit grows with each failure up to half a minute.
back_off() {
  local most=$((500 << ($1 > 6 ? 6 : $1)))
  local wait=$((RANDOM * (most > 30000 ? 30000 : most) / 32767))
  sleep "$((wait / 1000)).$(printf %03d $((wait % 1000)))"
}

# Prints "whether over, statuses" for each look at the pod, forever.
watch() {
  local version=- failures=0 seen over statuses asked
  while true; do
    asked=$EPOCHSECONDS
    if [ "$version" = - ]; then
      set -- --max-time 30 "$pods&resourceVersion=0"
    else
      set -- --max-time 300 "$pods&watch=true&allowWatchBookmarks=true&timeoutSeconds=290&resourceVersion=$version"
    fi
    seen=
    while read -r version over statuses; do
      seen=$version
      if [ "$over" = true ] || [ "$over" = false ]; then echo "$over $statuses"; fi
    done < <(kubernetes "$@")
    # An end without a line is a failure, unless the watch was open for long. At the end, read
    # leaves its variables empty.
    if [ -n "$seen" ] || ((EPOCHSECONDS - asked > 60)); then
      failures=0
    else
      back_off $((failures++))
    fi
    version=${seen:--}
  done
}

# The constant members of each heartbeat.
always=$(jq --null-input --compact-output '{podName: env.POD_NAME, podUID: env.POD_UID}
  + (if env.POD_HARDWARE_DETAILS then {podHardwareDetails: env.POD_HARDWARE_DETAILS} else {} end)
  + (if env.JOB_RETRY_COUNT then {jobRetryCount: env.JOB_RETRY_COUNT | tonumber} else {} end)')

# Sends a heartbeat with these statuses until it is accepted. The second argument is appended to the
# body.
send() {
  local body nonce=${PODBEAT_NONCE:-$(</proc/sys/kernel/random/uuid)} tries=0 code
  body="${always%\}},\"nonce\":\"$nonce\"${1:+,\"containerStatus\":$1}${2:-}}"
  while true; do
    curl --silent --show-error --fail --output /dev/null --max-time "$timeout" ${PODBEAT_CA_FILE:+--cacert "$PODBEAT_CA_FILE"} \
      --config - --header 'Content-Type: application/json' --data-binary "$body" "$beat_url" \
      <<<"header = \"Authorization: Bearer $(<"$PODBEAT_TOKEN_FILE")\"" && return
    back_off $((tries++))
  done
}

# Looks and SIGTERM arrive through one pipe, because bash delays a trap while it reads.
home=$(mktemp --directory)
mkfifo "$home/news"
exec {news}<>"$home/news"
rm -r "$home"
trap 'echo stop >&"$news"' TERM
watch >&"$news" &
# Child processes end with this script, because they share its process group.
trap 'trap "" TERM; kill 0' EXIT

# The clock in microseconds, without a child process.
now() { printf -v "$1" %s "${EPOCHREALTIME/[.,]/}"; }

# Waits for news until `next`, and fails if there is none.
await() {
  local at left
  now at
  left=$((next > at ? next - at : 0))
  read -r -t "$((left / 1000000)).$(printf %06d $((left % 1000000)))" -u "$news" kind told
}

beat() {
  send "$statuses"
  now next
  next=$((next + interval * (900000 + RANDOM * 200000 / 32767)))
}

over=false statuses='' stopped=''
beat
until [ "$over" = true ] || [ -n "$stopped" ]; do
  if ! await; then
    beat
  elif [ "$kind" = stop ]; then
    stopped=1
  else
    over=$kind before=$statuses statuses=$told
    if [ "$over" = false ] && [ "$statuses" != "$before" ]; then beat; fi
  fi
done
now next
next=$((next + settling * 1000000))
while [ "$over" = false ] && await; do
  [ "$kind" = stop ] || over=$kind statuses=$told
done
send "$statuses" ',"lastHeartbeat":true'
# The kubelet restarts a native sidecar that ends by itself, so it waits for SIGTERM.
until [ -n "$stopped" ]; do
  read -r -u "$news" kind told
  [ "$kind" != stop ] || stopped=1
done
