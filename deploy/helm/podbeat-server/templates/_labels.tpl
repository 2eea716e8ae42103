{{/* The labels by which the Deployment and the Service select the pod. They must never change. */}}
{{- define "podbeat-server.selector" -}}
app.kubernetes.io/name: podbeat-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "podbeat-server.labels" -}}
{{ include "podbeat-server.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
