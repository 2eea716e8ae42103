#!/usr/bin/env bash
# Shows on this machine what a release does: `release/check.sh [--whole]`. Builds everything, pushes it
# to a registry on loopback, signs it with a key that is thrown away, verifies it, pulls it again and
# runs it. Needs what `.ci/install release` installs.
#
# It builds podbeat's image twice, in directories with different names, and compares the digests.
# This check is not complete: it has no recipe, was not run to its end, and does not install on a node
# yet. --whole builds podbeat-server's twice as well, which takes several minutes more.
set -euo pipefail
cd "$(dirname "$0")/.."
whole=0
if [ "${1:-}" = --whole ]; then whole=1; fi
built=${CARGO_TARGET_DIR:-$PWD/target}
out=$built/dist
passed=0 signatures=0
begun=$SECONDS

told() {
  passed=$((passed + 1))
  printf '%4s s  %s\n' $((SECONDS - begun)) "$1"
}
failed() {
  echo "release-check: $1" >&2
  echo "$passed passed, 1 failed"
  exit 1
}
# WHAT COMMAND…: the command must fail, and say why.
refused() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then failed "not refused: $what: $said"; fi
  told "refused: $what"
}

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
CRANE=$(bash release/tools/build.sh)/crane
COSIGN=${CRANE%crane}cosign
HELM=$(bash e2e/tools/build.sh)/helm
export CRANE COSIGN HELM PLAIN_HTTP=1
# Nothing of the user's.
export DOCKER_CONFIG=$work/docker HELM_CONFIG_HOME=$work/helm HELM_CACHE_HOME=$work/helm HELM_DATA_HOME=$work/helm TUF_ROOT=$work/tuf
export COSIGN_PASSWORD=
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
published=$(cat deploy/registry)
owner=${published#*/}

# The same files in another directory, whose name has a space.
second="$work/a second checkout"
git clone --quiet . "$second"
git ls-files -z | tar --create --null --files-from=- --ignore-failed-read 2>/dev/null | tar --extract --directory "$second"

bash release/build.sh "$out" >"$work/build.log" 2>&1 || { cat "$work/build.log"; failed "the build failed"; }
told "built images, charts, programs and SBOMs of $version"
(cd "$second" && CARGO_TARGET_DIR=$built/again RELEASE_SERVER=$whole bash release/build.sh "$work/again" >"$work/again.log" 2>&1) ||
  { cat "$work/again.log"; failed "the second build failed"; }
compared=(podbeat)
if [ "$whole" = 1 ]; then compared=(podbeat podbeat-server); fi
for name in "${compared[@]}"; do
  cmp "$out/images/$name.digest" "$work/again/images/$name.digest" || failed "two builds of $name differ"
  told "reproducible: $name@$(cat "$out/images/$name.digest")"
done

# SBOMs by the schema of CycloneDX, and nothing of this host in them.
venv=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-ci/cyclonedx-11.5.0
if [ ! -e "$venv/complete" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.5.0'
  touch "$venv/complete"
fi
"$venv/bin/python" - "$out"/sbom/*.json <<'PYTHON' || failed "an SBOM is not valid"
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
for path in sys.argv[1:]:
    text = open(path).read()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem:
        sys.exit(f"{path}: {problem}")
PYTHON
! grep -l "$PWD\|$HOME" "$out"/sbom/*.json || failed "an SBOM has a path of this host"
told "$(find "$out/sbom" -name '*.json' | wc -l) SBOMs are valid CycloneDX 1.6"

# The registry, and two keys.
mkdir "$work/disk"
"$CRANE" registry serve --address 127.0.0.1:0 --disk "$work/disk" >"$work/registry.log" 2>&1 &
for _ in $(seq 100); do
  port=$(sed -n 's/.*serving on port \([0-9]*\).*/\1/p' "$work/registry.log")
  [ -z "$port" ] || break
  sleep 0.1
done
registry=127.0.0.1:${port:?the registry did not start}/$owner
(cd "$work" && "$COSIGN" generate-key-pair >/dev/null 2>&1 && "$COSIGN" generate-key-pair --output-key-prefix other >/dev/null 2>&1)
"$COSIGN" signing-config create --out "$work/signing.json"
SIGN="--yes --key $work/cosign.key --signing-config $work/signing.json" \
  bash release/publish.sh "$out" "$registry" >"$work/publish.log" 2>&1 || { cat "$work/publish.log"; failed "publishing failed"; }
told "published $(grep -c '^published' "$work/publish.log") artefacts"
refused "a second push of the same version" env SIGN=--yes bash release/publish.sh "$out" "$registry"

verify=(--key "$work/cosign.pub" --insecure-ignore-tlog=true --allow-http-registry)
verified() {
  "$COSIGN" "$@" >"$work/verify.log" 2>&1 || { cat "$work/verify.log"; failed "not verified: $*"; }
  signatures=$((signatures + 1))
}
for name in podbeat podbeat-server; do
  digest=$(cat "$out/images/$name.digest")
  image=$registry/$name@$digest
  verified verify "${verify[@]}" "$image"
  verified verify-attestation "${verify[@]}" --type slsaprovenance1 "$image"
  for architecture in amd64 arm64; do
    platform=$registry/$name@$("$CRANE" digest --platform "linux/$architecture" "$image")
    verified verify "${verify[@]}" "$platform"
    verified verify-attestation "${verify[@]}" --type slsaprovenance1 "$platform"
    verified verify-attestation "${verify[@]}" --type cyclonedx "$platform"
  done
  chart=$registry/charts/$name@$("$CRANE" digest "$registry/charts/$name:$version")
  verified verify "${verify[@]}" "$chart"
  verified verify-attestation "${verify[@]}" --type slsaprovenance1 "$chart"
done
verified verify-blob --key "$work/cosign.pub" --insecure-ignore-tlog=true --bundle "$out/files/SHA256SUMS.sigstore.json" "$out/files/SHA256SUMS"
told "verified $signatures signatures"
(cd "$out/files" && sha256sum --quiet --check SHA256SUMS)
told "$(wc -l <"$out/files/SHA256SUMS") files have the checksums in SHA256SUMS"

# What must not be accepted.
image=$registry/podbeat@$(cat "$out/images/podbeat.digest")
refused "another key" "$COSIGN" verify --key "$work/other.pub" --insecure-ignore-tlog=true --allow-http-registry "$image"
refused "another type of attestation" "$COSIGN" verify-attestation "${verify[@]}" --type spdx "$image"
unsigned=$registry/podbeat:unsigned
"$CRANE" mutate --label org.opencontainers.image.title=other --platform linux/amd64 "$image" --tag "$unsigned" >/dev/null 2>&1
refused "an unsigned image" "$COSIGN" verify "${verify[@]}" "$unsigned"
sed 's/^0/1/; s/^[1-9a-f]/0/' "$out/files/SHA256SUMS" >"$work/SHA256SUMS"
refused "changed checksums" "$COSIGN" verify-blob --key "$work/cosign.pub" --insecure-ignore-tlog=true \
  --bundle "$out/files/SHA256SUMS.sigstore.json" "$work/SHA256SUMS"

# Pulled by digest, the programs are those that were built. That for the other machine runs as well.
for name in podbeat podbeat-server; do
  for architecture in amd64 arm64; do
    mkdir -p "$work/$architecture"
    "$CRANE" export --platform "linux/$architecture" "$registry/$name@$(cat "$out/images/$name.digest")" - |
      tar --extract --directory "$work/$architecture" "$name"
    cmp "$work/$architecture/$name" "$(cat "$out/logs/$name-$architecture")"
    run=("$work/$architecture/$name")
    if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
      emulator=qemu-$([ "$architecture" = arm64 ] && echo aarch64 || echo x86_64)-static
      run=("$emulator" "${run[@]}")
    fi
    "${run[@]}" --version | grep --quiet "^$name $version"
    "${run[@]}" --help | grep --quiet '^Usage: '
  done
  told "$name runs on amd64 and arm64"
done
printf '#!/bin/sh\nexec qemu-aarch64-static %s "$@"\n' "$work/arm64/podbeat" >"$work/podbeat-arm64"
chmod +x "$work/podbeat-arm64"
PODBEAT_KILLS=6 PODBEAT_BINARY=$work/podbeat-arm64 cargo test --quiet --locked --test integration -- killed:: >"$work/killed.log" 2>&1 ||
  { cat "$work/killed.log"; failed "the program for arm64 did not survive its lives"; }
told "podbeat for arm64 lives whole lives of pods, with kills"

# A blob that somebody changed in the registry.
layer=$("$CRANE" manifest --platform linux/amd64 "$image" | jq -r .layers[0].digest)
blob=$(find "$work/disk" -type f -name "${layer#sha256:}*" | head -n 1)
printf 'x' | dd of="${blob:?}" bs=1 seek=1000 conv=notrunc status=none
refused "a changed blob" "$CRANE" export --platform linux/amd64 "$image" "$work/changed.tar"

# The files that people download.
for name in podbeat podbeat-server; do
  mkdir "$work/$name"
  tar --extract --gzip --directory "$work/$name" --file "$out/files/$name-$version-linux-$(dpkg --print-architecture).tar.gz"
  "$work/$name/$name" --version | grep --quiet "^$name $version"
done
"$work/podbeat/podbeat" runs --help | grep --quiet create
[ -s "$work/podbeat/completions/podbeat.bash" ] && [ -s "$work/podbeat/man/podbeat.1" ]
told "the archives have the programs, completions and manual pages"

# macOS: no linker here, but every line must compile.
for target in aarch64-apple-darwin x86_64-apple-darwin; do
  env SDKROOT=/ "CC_${target//-/_}=true" "AR_${target//-/_}=true" \
    cargo check --quiet --locked --package podbeat --target "$target" --target-dir "$built/cross" || failed "podbeat does not compile for $target"
done
told "podbeat compiles for macOS"

# A version, and a fork's registry, in the second checkout.
(cd "$second" && export CARGO_TARGET_DIR=$built/again && git -c user.name=check -c user.email=check@example.com commit --quiet --all --allow-empty --message check &&
  bash release/release.sh 99.1.0 && bash release/registry.sh registry.example.org/fork) >"$work/release.log" 2>&1 ||
  { cat "$work/release.log"; failed "just release failed"; }
git -C "$second" rev-parse --verify --quiet v99.1.0 >/dev/null
told "just release sets the version everywhere, and tags"

sizes() {
  for architecture in amd64 arm64; do
    printf '%s %s bytes, ' "$architecture" "$(stat --format %s "$out/logs/$1-$architecture.tar")"
  done
}
echo "$passed passed, 0 failed"
echo "podbeat@$(cat "$out/images/podbeat.digest"): $(sizes podbeat)podbeat-server@$(cat "$out/images/podbeat-server.digest"): $(sizes podbeat-server)$signatures signatures verified"
