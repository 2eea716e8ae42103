module podbeat.dev/e2e/tools/crds

go 1.26.0

require (
	github.com/argoproj/argo-workflows/v4 v4.0.5
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/kueue v0.17.0
)
