{{/* The name of the objects, and of this server in the labels of the Jobs that it creates. */}}
{{- define "podbeat-server.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = contains "podbeat-server" .Release.Name | ternary .Release.Name (printf "%s-podbeat-server" .Release.Name) -}}
{{- end -}}
{{- /* A label, and the name of a Service, have no dots and at most 63 characters. */ -}}
{{- $name | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "podbeat-server.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "podbeat-server.fullname" .) "default") -}}
{{- end -}}

{{/*
An image of the values: the root context, the values with repository, tag and digest, and the
annotation of the chart with its digest. With neither tag nor digest in the values, it is the image of
the chart's version. A released chart knows its digest.
*/}}
{{- define "podbeat-server.image" -}}
{{- $chart := (index . 0).Chart -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else if $image.tag -}}
{{ $image.repository }}:{{ $image.tag }}
{{- else -}}
{{ $image.repository }}:{{ $chart.AppVersion }}{{ with index ($chart.Annotations | default dict) (index . 2) }}@{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{/* http or https. It is also the name of the API's port. */}}
{{- define "podbeat-server.scheme" -}}
{{- ternary "https" "http" (not (empty .Values.tls.secretName)) -}}
{{- end -}}

{{/* The port of the Service. */}}
{{- define "podbeat-server.port" -}}
{{- .Values.service.port | default (eq (include "podbeat-server.scheme" .) "https" | ternary 443 80) | int -}}
{{- end -}}

{{/* The base URL in the cluster. The path of `url` applies here, too. */}}
{{- define "podbeat-server.clusterUrl" -}}
{{- $scheme := include "podbeat-server.scheme" . -}}
{{- $port := include "podbeat-server.port" . -}}
{{- $host := printf "%s.%s.svc" (include "podbeat-server.fullname" .) .Release.Namespace -}}
{{- if ne $port (eq $scheme "https" | ternary "443" "80") -}}
{{- $host = printf "%s:%s" $host $port -}}
{{- end -}}
{{- $path := "" -}}
{{- with .Values.url }}{{ $path = (urlParse .).path | trimSuffix "/" }}{{ end -}}
{{- printf "%s://%s%s" $scheme $host $path -}}
{{- end -}}

{{/* The namespaces in which runs are launched, each once, as a JSON array. */}}
{{- define "podbeat-server.taskNamespaces" -}}
{{- $all := list .Values.launch.namespace -}}
{{- range .Values.launch.tenants -}}
{{- with .namespace }}{{ $all = append $all . }}{{ end -}}
{{- end -}}
{{- $all | uniq | toJson -}}
{{- end -}}

{{/*
The launch file: `launch` of the values without what is only for the chart. crates/launch describes
its members. Empty values are omitted, so that podbeat-server uses its defaults.
*/}}
{{- define "podbeat-server.launchFile" -}}
{{- $launch := omit (deepCopy .Values.launch) "enabled" -}}
{{- $image := $launch.podbeat.image -}}
{{- $podbeat := omit $launch.podbeat "image" -}}
{{- $_ := set $podbeat "image" (include "podbeat-server.image" (list . $image "podbeat.dev/podbeat-digest")) -}}
{{- with $image.pullPolicy }}{{ $_ := set $podbeat "imagePullPolicy" . }}{{ end -}}
{{- if not $podbeat.resources }}{{ $podbeat = omit $podbeat "resources" }}{{ end -}}
{{- $_ := set $launch "podbeat" $podbeat -}}
{{- range list "queue" "securityContext" -}}
{{- if not (get $launch .) }}{{ $launch = omit $launch . }}{{ end -}}
{{- end -}}
{{- if not $launch.pending.unschedulableSeconds -}}
{{- $_ := set $launch "pending" (omit $launch.pending "unschedulableSeconds") -}}
{{- end -}}
{{- $_ := set $launch "instance" (include "podbeat-server.fullname" .) -}}
{{- $_ := set $launch "serviceUrl" ($launch.serviceUrl | default (include "podbeat-server.clusterUrl" .)) -}}
{{- $launch | toPrettyJson -}}
{{- end -}}

{{/* The variables of the server that the chart sets itself, as an array. */}}
{{- define "podbeat-server.env" -}}
- name: PODBEAT_SERVER_LISTEN
  value: {{ printf "%s:8443" .Values.listenAddress | quote }}
- name: PODBEAT_SERVER_URL
  value: {{ .Values.url | default (include "podbeat-server.clusterUrl" .) | quote }}
{{- if .Values.tls.secretName }}
- name: PODBEAT_SERVER_CERT_FILE
  value: /etc/podbeat/tls/tls.crt
- name: PODBEAT_SERVER_KEY_FILE
  value: /etc/podbeat/tls/tls.key
{{- else }}
- name: PODBEAT_SERVER_ALLOW_HTTP
  value: "true"
{{- end }}
- name: PODBEAT_SERVER_DATA
  value: /data/podbeat.db
{{- if .Values.secretsKey.secretName }}
- name: PODBEAT_SERVER_SECRETS_KEY_FILE
  value: /etc/podbeat/key/secrets.key
{{- end }}
- name: PODBEAT_SERVER_ADMIN_LISTEN
  value: {{ printf "%s:%d" .Values.listenAddress (int .Values.admin.port) | quote }}
{{- if .Values.launch.enabled }}
- name: PODBEAT_SERVER_LAUNCH_FILE
  value: /etc/podbeat/launch/launch.json
{{- end }}
{{- $names := dict "log" "PODBEAT_LOG" "logFormat" "PODBEAT_LOG_FORMAT" "otlpEndpoint" "OTEL_EXPORTER_OTLP_ENDPOINT" }}
{{- range $setting, $value := .Values.settings }}
{{- if $value }}
- name: {{ get $names $setting | default (printf "PODBEAT_SERVER_%s" ($setting | snakecase | upper)) }}
  {{- /* Helm reads whole numbers as floating-point ones, and would write 1e+06. */}}
  value: {{ kindIs "string" $value | ternary $value ($value | int64 | toString) | quote }}
{{- end }}
{{- end }}
{{- end -}}
