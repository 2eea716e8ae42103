# Creates the run $RUN with the token $TOKEN at $URL, and waits $TIMEOUT seconds for its end.
set -u
# A file from which the Secret was made may end with a newline.
TOKEN=$(printf %s "$TOKEN")
if command -v curl >/dev/null; then
  ask() {
    curl --silent --show-error --fail-with-body --max-time 20 --header "Authorization: Bearer $TOKEN" \
      --header "Content-Type: application/json" "$@"
  }
  create() { ask --data "$RUN" "$URL/v1/tasks/runs"; }
else
  case $URL in
    https:*) echo "test.image has no curl, and the wget of BusyBox has no TLS that fits" >&2; exit 1 ;;
  esac
  ask() {
    timeout 20 wget -q -O - --header "Authorization: Bearer $TOKEN" --header "Content-Type: application/json" "$@"
  }
  create() { ask --post-data "$RUN" "$URL/v1/tasks/runs"; }
fi
# The value of a member of a run, which is a text without quotation marks.
member() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

run=$(create) || { echo "cannot create a run at $URL: $run" >&2; exit 1; }
id=$(printf %s "$run" | member id)
[ -n "$id" ] || { echo "the answer has no ID: $run" >&2; exit 1; }
echo "created task run $id"
seen=
begun=$(date +%s)
waited=0
while [ "$waited" -lt "$TIMEOUT" ]; do
  # The server may be restarting. The next request shows it.
  run=$(ask "$URL/v1/tasks/runs/$id") || run=
  status=$(printf %s "$run" | member status)
  if [ -n "$status" ] && [ "$status" != "$seen" ]; then
    seen=$status
    echo "$waited s: $status"
  fi
  case $status in
    Completed) exit 0 ;;
    Failed | Aborted | TimedOut) echo "the run is $status: $run" >&2; exit 1 ;;
  esac
  sleep 2
  waited=$(($(date +%s) - begun))
done
echo "the run is not Completed after $TIMEOUT s: $run" >&2
echo "it still exists; podbeat runs abort $id ends it" >&2
exit 1
