{{/*
Formats a part of a pod as a CEL expression for a MutatingAdmissionPolicy:
`include "podbeat.cel" (list PATH VALUE)`. PATH is the name of its type, such as
Object.spec.volumes. There CEL requires the type of each object, and one type for all items of a
list or map.
*/}}
{{- define "podbeat.cel" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- $fields := list -}}
{{- /* The quantities of resources are a map and not an object, because their keys are free. */ -}}
{{- $free := or (hasSuffix ".requests" $path) (hasSuffix ".limits" $path) -}}
{{- if hasKey $value "name" -}}
{{- $fields = append $fields (printf "name: %s" (toRawJson $value.name)) -}}
{{- end -}}
{{- range $key, $field := $value -}}
{{- if $free -}}
{{- $fields = append $fields (printf "%s: %s" (toRawJson $key) (toString $field | toRawJson)) -}}
{{- else if ne $key "name" -}}
{{- $fields = append $fields (printf "%s: %s" $key (include "podbeat.cel" (list (printf "%s.%s" $path $key) $field))) -}}
{{- end -}}
{{- end -}}
{{ if not $free }}{{ $path }}{{ end }}{{ include "podbeat.celList" (list "{" $fields "}") }}
{{- else if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $item := $value -}}
{{- $items = append $items (include "podbeat.cel" (list $path $item)) -}}
{{- end -}}
{{ include "podbeat.celList" (list "[" $items "]") }}
{{- else -}}
{{ toRawJson $value }}
{{- end -}}
{{- end -}}

{{/* A list, on one line if it is short. */}}
{{- define "podbeat.celList" -}}
{{- $flat := join ", " (index . 1) -}}
{{- if or (gt (len $flat) 70) (contains "\n" $flat) -}}
{{ index . 0 }}
{{ join ",\n" (index . 1) | indent 2 }}
{{ index . 2 }}
{{- else -}}
{{ index . 0 }}{{ $flat }}{{ index . 2 }}
{{- end -}}
{{- end -}}
