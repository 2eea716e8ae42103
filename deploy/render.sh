#!/usr/bin/env bash
# Writes the generated files of deploy/ to a directory: `render.sh DIRECTORY`. With deploy/ itself
# as the directory, it updates all of them. CI writes them elsewhere and compares. HELM, KUBECTL and
# HELM_DOCS name the programs.
set -euo pipefail
to=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
helm=${HELM:-helm} kubectl=${KUBECTL:-kubectl} helm_docs=${HELM_DOCS:-helm-docs}
mkdir -p "$to"/{admission,helm/podbeat/ci,helm/podbeat-server/ci,kustomize/example}

# Each chart with each file of its values, without the files that the chart includes unchanged.
for values in helm/*/ci/*-values.yaml; do
  chart=${values#helm/} chart=${chart%%/*}
  namespace=tasks
  if [ "$chart" = podbeat-server ]; then namespace=podbeat; fi
  "$helm" template "$chart" "helm/$chart" --namespace "$namespace" --values "$values" |
    awk '/^  (podbeat(-server)?\.json: \|-|groups:)$/ { print "  " $1 ($1 == "groups:" ? " []" : " \"\"") " # …"; whole = 1; next }
      whole && /^( *$|   |  -)/ { next } { whole = 0; print }' \
      >"$to/${values%-values.yaml}.rendered.yaml"
done

# The policies for users without Helm: the chart's output without Helm's own lines.
for policy in mutating validating; do
  {
    cat <<'HEADER'
# Generated from the chart by deploy/render.sh. For another image or other resources, run this with
# your own values:
#
#   helm template podbeat deploy/helm/podbeat --values deploy/helm/podbeat/ci/admission-values.yaml --set image.repository=…
#
# A pod asks for podbeat with the label podbeat.dev/inject: "true", and names its run in the
# annotation podbeat.dev/task-run-id. In a Job, both are in spec.template.metadata.
# docs/operations.md lists the other annotations. Each namespace needs the objects of
# deploy/manifests/podbeat.yaml: the settings, the token, and the right to see its pods, granted to
# the pods' service account.
HEADER
    if [ $policy = mutating ]; then
      cat <<'HEADER'
# Kubernetes 1.36 or later. 1.34 and 1.35 serve it as v1beta1, with the feature gate
# MutatingAdmissionPolicy and --runtime-config=admissionregistration.k8s.io/v1beta1=true. For these
# versions, change both apiVersions.
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

# The tables of values.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for chart in podbeat podbeat-server; do
  mkdir "$copy/$chart"
  cp "helm/$chart"/{Chart.yaml,values.yaml,README.md.gotmpl} "$copy/$chart"
  "$helm_docs" --log-level warning --chart-search-root "$copy/$chart" --template-files README.md.gotmpl >/dev/null
  cp "$copy/$chart/README.md" "$to/helm/$chart/README.md"
done
