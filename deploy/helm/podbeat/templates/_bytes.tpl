{{/* A quantity of memory, such as 32Mi, in bytes. */}}
{{- define "podbeat.bytes" -}}
{{- $quantity := kindIs "string" . | ternary . (int64 .) | toString -}}
{{- $number := regexFind "^[0-9.]+" $quantity -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $unit := trimPrefix $number $quantity -}}
{{- if not (and $number (hasKey $units $unit)) -}}
{{- fail (printf "sidecar.resources.limits.memory is %s: write it as a number of bytes, Ki, Mi or Gi, such as 32Mi" $quantity) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) | int64 -}}
{{- end -}}
