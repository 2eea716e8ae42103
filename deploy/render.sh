#!/usr/bin/env bash
# Writes what is generated under deploy/ into a directory: `render.sh DIRECTORY`. With deploy/ itself as the directory it writes
# everything anew; CI writes it elsewhere and compares. HELM, KUBECTL and HELM_DOCS name the programs.
set -euo pipefail
to=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
helm=${HELM:-helm} kubectl=${KUBECTL:-kubectl} helm_docs=${HELM_DOCS:-helm-docs}
mkdir -p "$to"/{admission,helm/podbeat/ci,kustomize/example}

# The chart under each file of values. The files that it takes in whole are left out.
for values in helm/podbeat/ci/*-values.yaml; do
  "$helm" template podbeat helm/podbeat --namespace tasks --values "$values" |
    awk '/^  (podbeat\.json: \|-|groups:)$/ { print "  " $1 ($1 == "groups:" ? " []" : " \"\"") " # …"; whole = 1; next }
      whole && /^( *$|   |  -)/ { next } { whole = 0; print }' \
      >"$to/${values%-values.yaml}.rendered.yaml"
done

# The policies, for whoever has no Helm: as the chart makes them, without what Helm says of itself.
for policy in mutating validating; do
  {
    cat <<'HEADER'
# Made from the chart by deploy/render.sh. For another image or other resources: the same, of values of your own,
#
#   helm template podbeat deploy/helm/podbeat --values deploy/helm/podbeat/ci/admission-values.yaml --set image.repository=…
#
# A pod asks with the label podbeat.dev/inject: "true" and says which run it is with the annotation podbeat.dev/task-run-id; in
# a Job both stand in spec.template.metadata. What else it may say: docs/operations.md. Each namespace needs what
# deploy/manifests/podbeat.yaml holds: settings, token, and the right to see its pods, given to the service account of these pods.
HEADER
    if [ $policy = mutating ]; then
      cat <<'HEADER'
# Kubernetes 1.36 and later. 1.34 and 1.35 serve it as v1beta1, behind the feature gate MutatingAdmissionPolicy and
# --runtime-config=admissionregistration.k8s.io/v1beta1=true: change both apiVersions then.
HEADER
    fi
    echo "#"
    "$helm" template podbeat helm/podbeat --values helm/podbeat/ci/admission-values.yaml \
      --show-only "templates/admission-$policy.yaml" |
      sed -e '/^# Source: /d' -e '/^  labels:$/d' -e '/^    \(app\.kubernetes\.io\|helm\.sh\)\//d' -e '1{/^---$/d}' |
      cat -s
  } >"$to/admission/$policy.yaml"
done

"$kubectl" kustomize kustomize/example/overlay >"$to/kustomize/example/rendered.yaml"

# The values' table.
chart=$(mktemp -d)
trap 'rm -rf "$chart"' EXIT
cp helm/podbeat/{Chart.yaml,values.yaml,README.md.gotmpl} "$chart"
"$helm_docs" --log-level warning --chart-search-root "$chart" --template-files README.md.gotmpl >/dev/null
cp "$chart/README.md" "$to/helm/podbeat/README.md"
