#!/usr/bin/env bash
# Pushes what release/build.sh built, and signs it: `release/publish.sh DIRECTORY REGISTRY`. Needs
# crane, cosign and helm (CRANE, COSIGN, HELM), and rights to push. Each artefact is pushed and signed
# by its digest.
#
# SIGN has the flags of `cosign sign`, `attest` and `sign-blob`: `--yes` for a keyless signature with
# the identity of the workflow, or a key. PLAIN_HTTP=1 is for a registry on loopback.
set -euo pipefail
out=$(cd "$1" && pwd)
registry=$2
crane=${CRANE:-crane} cosign=${COSIGN:-cosign} helm=${HELM:-helm}
version=$(sed -n 's/^version: //p' "$(dirname "$0")/../deploy/helm/podbeat/Chart.yaml")
read -r -a sign <<<"${SIGN:---yes}"
plain=() insecure=()
if [ "${PLAIN_HTTP:-}" = 1 ]; then plain=(--plain-http) insecure=(--allow-http-registry); fi

# Tags are not overwritten: who pulled a version must be able to pull the same again.
absent() {
  if "$crane" digest "$1" >/dev/null 2>&1; then
    echo "publish: $1 exists already" >&2
    exit 1
  fi
}

attested() {
  local reference=$1 architecture=$2 name=$3
  "$cosign" attest "${sign[@]}" "${insecure[@]}" --type cyclonedx \
    --predicate "$out/sbom/$name-$architecture.cdx.json" "$reference"
  "$cosign" attest "${sign[@]}" "${insecure[@]}" --type slsaprovenance1 --predicate "$out/provenance.json" "$reference"
}

for name in podbeat podbeat-server; do
  image=$registry/$name
  absent "$image:$version"
  digest=$(cat "$out/images/$name.digest")
  "$crane" push --index "$out/images/$name" "$image:$version"
  [ "$("$crane" digest "$image:$version")" = "$digest" ]
  # --recursive also signs the image of each platform, because some tools verify only that.
  "$cosign" sign "${sign[@]}" "${insecure[@]}" --recursive "$image@$digest"
  "$cosign" attest "${sign[@]}" "${insecure[@]}" --type slsaprovenance1 --predicate "$out/provenance.json" "$image@$digest"
  for architecture in amd64 arm64; do
    platform=$("$crane" digest --platform "linux/$architecture" "$image@$digest")
    attested "$image@$platform" "$architecture" "$name"
  done
  echo "published $image@$digest"
done

for name in podbeat podbeat-server; do
  chart=$registry/charts/$name
  absent "$chart:$version"
  "$helm" push "${plain[@]}" "$out/charts/$name-$version.tgz" "oci://$registry/charts"
  digest=$("$crane" digest "$chart:$version")
  "$cosign" sign "${sign[@]}" "${insecure[@]}" "$chart@$digest"
  "$cosign" attest "${sign[@]}" "${insecure[@]}" --type slsaprovenance1 --predicate "$out/provenance.json" "$chart@$digest"
  echo "published $chart@$digest"
done

"$cosign" sign-blob "${sign[@]}" --bundle "$out/files/SHA256SUMS.sigstore.json" "$out/files/SHA256SUMS"
echo "signed SHA256SUMS"
