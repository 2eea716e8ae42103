#!/usr/bin/env bash
# Builds everything that a release publishes: `release/build.sh DIRECTORY`. Needs what
# `.ci/install release` installs. The same commit makes the same bytes on the same distribution.
#
#   images/NAME/              the image of NAME for all platforms, an OCI image layout
#   images/NAME.digest        the digest of its index
#   sbom/NAME-ARCH.cdx.json   the components of the image
#   provenance.json           SLSA provenance: commit, ref, builder
#   charts/NAME-VERSION.tgz   the charts, with the digests of the images
#   files/                    what people download: programs, manifests, SBOMs, SHA256SUMS
#   notes.md                  the changes of the version
#
# RELEASE_REF, RELEASE_BUILDER and RELEASE_RUN say in the provenance what is built, by whom and in
# which run.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$root"
directory=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
declare -A targets=([amd64]=x86_64-unknown-linux-gnu [arm64]=aarch64-unknown-linux-gnu)
architectures=(amd64 arm64)
rm -rf "${out:?}"/{images,sbom,charts,files,provenance.json,notes.md,logs}
mkdir -p "$out"/{images,sbom,charts,files,logs}

cargo build --quiet --locked --workspace --examples --bin podbeat-image --bin podbeat-release
image=$directory/debug/podbeat-image
release=$directory/debug/podbeat-release

# The programs. Two builds at a time, because the last step of each uses one processor.
build() {
  local architecture=$1
  shift
  for program in "$@"; do
    bash image/static.sh --target "${targets[$architecture]}" "$program" >"$out/logs/$program-$architecture"
  done
}
# RELEASE_SERVER=0 leaves podbeat-server and the programs for laptops out, for a short check.
programs=(podbeat podbeat-server laptop)
if [ "${RELEASE_SERVER:-1}" = 0 ]; then programs=(podbeat); fi
build amd64 "${programs[@]}" &
amd64=$!
build arm64 "${programs[@]}"
wait "$amd64"
built() { cat "$out/logs/$1-$2"; }

# The images, and their components.
cargo metadata --quiet --locked --format-version 1 >"$out/logs/metadata"
lists() {
  local name=$1 architecture=$2 roots=$3
  local target=${targets[$architecture]}
  cargo tree --quiet --locked --package "$name" --no-default-features --edges normal,no-proc-macro \
    --target "$target" --prefix depth >"$out/logs/tree"
  "$release" sbom --name "$name" --target "$target" --binary "$(built "$name" "$architecture")" \
    --tree "$out/logs/tree" --metadata "$out/logs/metadata" --created "$SOURCE_DATE_EPOCH" $roots
}
# The limits are those of `just image` and `just server-image`.
declare -A limits=([podbeat]=6815744 [podbeat-server]=20971520)
declare -A digests
for name in podbeat podbeat-server; do
  if [ "$name" != podbeat ] && [ "${#programs[@]}" = 1 ]; then continue; fi
  archives=()
  for architecture in "${architectures[@]}"; do
    archive=$out/logs/$name-$architecture.tar
    "$image" archive --program "$name" --binary "$(built "$name" "$architecture")" --output "$archive" \
      --revision "$revision" --max-size "${limits[$name]}" >&2
    archives+=("$archive")
    roots=
    if [ "$name" = podbeat ]; then roots=--roots; fi
    lists "$name" "$architecture" "$roots" >"$out/sbom/$name-$architecture.cdx.json"
  done
  digests[$name]=$("$image" index --output "$out/images/$name" "${archives[@]}")
  echo "${digests[$name]}" >"$out/images/$name.digest"
done
if [ "${#programs[@]}" = 1 ]; then exit 0; fi

"$release" provenance --commit "$revision" --ref "${RELEASE_REF:-refs/tags/v$version}" \
  --builder "${RELEASE_BUILDER:-https://localhost/local-build}" --invocation "${RELEASE_RUN:-https://localhost/local-build}" \
  --lock "$(sha256sum <Cargo.lock | cut -d' ' -f1)" --rustc "$(rustc -vV | head -n 1)" >"$out/provenance.json"

# The charts know the images of their version by digest.
helm=$(bash e2e/tools/build.sh)/helm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in podbeat podbeat-server; do
  cp -r "deploy/helm/$name" "$work/$name"
  sed -i "s|^  podbeat.dev/digest:.*|  podbeat.dev/digest: ${digests[$name]}|
    s|^  podbeat.dev/podbeat-digest:.*|  podbeat.dev/podbeat-digest: ${digests[podbeat]}|" "$work/$name/Chart.yaml"
  grep -q "^  podbeat.dev/digest: sha256:" "$work/$name/Chart.yaml"
  "$helm" package "$work/$name" --destination "$out/charts" >&2
  # helm push takes the time of the artefact from the file's.
  touch -d "@$SOURCE_DATE_EPOCH" "$out/charts/$name-$version.tgz"
done

# What people download. Names, owners and times in the archives do not depend on this host.
pack() {
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=go-w --mtime="@$SOURCE_DATE_EPOCH" \
    --directory "$1" . | gzip --no-name --best >"$2"
}
# From this host's program, because that for another machine does not run here.
own=$(built laptop "$(dpkg --print-architecture)")
mkdir -p "$work"/more/{completions,man}
for shell in bash elvish fish powershell zsh; do
  "$own" completion "$shell" >"$work/more/completions/podbeat.$shell"
done
"$own" man "$work/more/man"
for architecture in "${architectures[@]}"; do
  for name in podbeat podbeat-server; do
    tree=$work/$name-$architecture
    mkdir "$tree"
    program=$name
    if [ "$name" = podbeat ]; then program=laptop; fi
    cp "$(built "$program" "$architecture")" "$tree/$name"
    cp LICENSE "$tree"
    if [ "$name" = podbeat ]; then cp -r "$work"/more/* "$tree"; fi
    pack "$tree" "$out/files/$name-$version-linux-$architecture.tar.gz"
    cp "$out/sbom/$name-$architecture.cdx.json" "$out/files/$name-$version-linux-$architecture.cdx.json"
  done
done
cp deploy/manifests/{podbeat,job-native-sidecar,job-plain-sidecar,job-with-exit-markers,reap}.yaml "$out/files"
cp deploy/admission/mutating.yaml "$out/files/admission-mutating.yaml"
cp deploy/admission/validating.yaml "$out/files/admission-validating.yaml"
cp "$out"/charts/*.tgz "$out/files"
# RELEASE_FILES has programs that were built elsewhere, such as those for macOS.
if [ -n "${RELEASE_FILES:-}" ]; then cp "$RELEASE_FILES"/* "$out/files"; fi
(cd "$out/files" && sha256sum -- * >SHA256SUMS)
"$release" notes "$version" >"$out/notes.md" 2>/dev/null || "$release" notes Unreleased >"$out/notes.md"
for name in podbeat podbeat-server; do echo "$name@${digests[$name]}"; done
