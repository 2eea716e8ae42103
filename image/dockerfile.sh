#!/usr/bin/env bash
# Builds the image with the Dockerfile, and compares it with that of `just image`: the files, modes,
# bytes and settings. Needs the output of `just image`, and buildah, but no registry: an empty image
# replaces the Rust image, and mounts this host's compiler, C library and downloaded crates.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v buildah >/dev/null; then
  echo "dockerfile: buildah is missing; install it (Debian: buildah)" >&2
  exit 69
fi
if [ "$(id -u)" != 0 ]; then
  exec buildah unshare bash image/dockerfile.sh
fi
archive=target/image/podbeat.tar
if [ ! -e "$archive" ]; then
  echo "dockerfile: $archive is missing; create it with just image" >&2
  exit 69
fi

work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }
clean() {
  buildah rm --all >/dev/null 2>&1 || true
  rm -rf --one-file-system "$work"
}
trap clean EXIT
tool() { "${CARGO_TARGET_DIR:-target}/debug/podbeat-image" "$@"; }

# /usr, and the root's links into it.
links=()
for name in bin lib lib64 sbin; do
  if [ -L "/$name" ]; then links+=(--link "/$name=usr/$name"); fi
done
tool simple --tag localhost/rust:stand-in --output "$work/rust.tar" --user 0:0 \
  --file "$(command -v env)=/stand-in" "${links[@]}" --directory /tmp:1777 \
  --env PATH=/rust/bin:/usr/bin --env CARGO_HOME=/cargo --env CARGO_NET_OFFLINE=true --env CARGO_TERM_COLOR=never
rust=$(buildah pull --quiet "oci-archive:$work/rust.tar")
ours=$(buildah pull --quiet "oci-archive:$archive")
label() { buildah inspect --type image --format "{{index .OCIv1.Config.Labels \"org.opencontainers.image.$1\"}}" "$ours"; }
created=$(label created)

# On Debian, cc may be a link through the alternatives.
alternatives=()
if [ -d /etc/alternatives ]; then alternatives=(--volume /etc/alternatives:/etc/alternatives:ro); fi
cargo fetch --quiet --locked
buildah build --quiet --pull-never --no-cache --layers=false --identity-label=false \
  --volume /usr:/usr:ro "${alternatives[@]}" --volume "$(rustc --print sysroot):/rust:ro" \
  --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/cargo/registry:ro" \
  --build-arg "RUST_IMAGE=$rust" --build-arg "SOURCE_DATE_EPOCH=$(date --date "$created" +%s)" \
  --build-arg "VERSION=$(label version)" --build-arg "REVISION=$(label revision)" --build-arg "CREATED=$created" \
  --iidfile "$work/id" . >&2
theirs=$(cat "$work/id")

# Lists every file with its mode, owner, time, size and checksum, and then the image's settings.
tell() {
  local container root
  container=$(buildah from --pull-never "$1")
  root=$(buildah mount "$container")
  (cd "$root" && find . -mindepth 1 \( -type d -printf '%p %M %U:%G %T@\n' -o -printf '%p %M %U:%G %T@ %s %l\n' \) | LC_ALL=C sort)
  (cd "$root" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  buildah inspect --type image --format '{{range $name, $value := .OCIv1.Config.Labels}}{{$name}}: {{$value}}
{{end}}{{.OCIv1.Architecture}} {{.OCIv1.OS}} {{.OCIv1.Config.User}} {{.OCIv1.Config.WorkingDir}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}
' "$1"
}
tell "$ours" >"$work/ours"
tell "$theirs" >"$work/theirs"
if ! diff -u --label "just image" --label Dockerfile "$work/ours" "$work/theirs"; then
  echo "dockerfile: the Dockerfile and just image produce different images" >&2
  exit 1
fi
cat "$work/theirs"
echo "the Dockerfile and just image produce the same files and the same configuration"
