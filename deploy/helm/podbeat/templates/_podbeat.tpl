{{/*
The named templates, for this chart and for charts that depend on it:

  podbeat.sidecar             the keys initContainers and volumes of a pod that has none of its own
  podbeat.container           podbeat's container, as an item of initContainers (or of containers, if sidecar.native is false)
  podbeat.volumes             its volumes, as items of volumes
  podbeat.install             the init container that copies podbeat to /opt/podbeat, for `podbeat exec` in the task's container
  podbeat.serviceAccountName  the account of the pod

Each takes the root context of the chart that includes it: `include "podbeat.sidecar" .` The pod's
annotation podbeat.dev/task-run-id says which run it is, and its label podbeat.dev/inject: "true" lets
the chart's NetworkPolicy select it. Under another name than podbeat, a dependency is given as
`include "podbeat.sidecar" .Subcharts.NAME`.
*/}}

{{/* podbeat's own scope, whichever chart includes this. */}}
{{- define "podbeat.scope" -}}
{{- $scope := . -}}
{{- /* An alias of the dependency changes its name, not its annotations. */ -}}
{{- if not (index .Chart.Annotations "podbeat.dev/templates") -}}
{{- $subcharts := .Subcharts | default dict -}}
{{- if not (hasKey $subcharts "podbeat") -}}
{{- fail (printf "chart %s includes a template of podbeat and has no dependency of that name: add it to Chart.yaml" .Chart.Name) -}}
{{- end -}}
{{- $scope = index $subcharts "podbeat" -}}
{{- end -}}
{{- $digest := index $scope.Chart.Annotations "podbeat.dev/digest" -}}
{{- dict "values" $scope.Values "appVersion" $scope.Chart.AppVersion "digest" $digest | toJson -}}
{{- end -}}

{{/* With neither tag nor digest, it is the image of the chart's version. A released chart knows its digest. */}}
{{- define "podbeat.image" -}}
{{- $scope := include "podbeat.scope" . | fromJson -}}
{{- $image := $scope.values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else if $image.tag -}}
{{ $image.repository }}:{{ $image.tag }}
{{- else -}}
{{ $image.repository }}:{{ $scope.appVersion }}{{ with $scope.digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "podbeat.serviceAccountName" -}}
{{- (include "podbeat.scope" . | fromJson).values.serviceAccount.name -}}
{{- end -}}

{{- define "podbeat.sidecar" -}}
{{- $values := (include "podbeat.scope" . | fromJson).values -}}
{{- if not $values.sidecar.native -}}
{{- fail "podbeat.sidecar makes initContainers: with sidecar.native=false include podbeat.container among the pod's containers and podbeat.volumes among its volumes" -}}
{{- end -}}
initContainers:
{{ include "podbeat.container" . }}
{{- if $values.sidecar.exitMarkers.enabled }}
{{ include "podbeat.install" . }}
{{- end }}
volumes:
{{ include "podbeat.volumes" . }}
{{- end -}}

{{- define "podbeat.container" -}}
{{- $values := (include "podbeat.scope" . | fromJson).values -}}
{{- $sidecar := $values.sidecar -}}
- name: podbeat
  image: {{ include "podbeat.image" . }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  {{- if $sidecar.native }}
  restartPolicy: Always
  {{- end }}
  env:
  - name: TASK_RUN_ID
    valueFrom: {fieldRef: {fieldPath: "metadata.annotations['podbeat.dev/task-run-id']"}}
  - name: JOB_COMPLETION_INDEX
    valueFrom: {fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: POD_UID
    valueFrom: {fieldRef: {fieldPath: metadata.uid}}
  - name: PODBEAT_TOKEN_FILE
    value: /var/run/podbeat/token
  - name: PODBEAT_SERVICE_ACCOUNT_DIR
    value: /var/run/podbeat/kubernetes
  - name: PODBEAT_STATE_DIR
    value: /var/lib/podbeat
  {{- if $sidecar.exitMarkers.enabled }}
  - name: PODBEAT_MARKER_DIR
    value: {{ $sidecar.exitMarkers.dir }}
  {{- end }}
  {{- if $sidecar.admin.enabled }}
  - name: PODBEAT_LISTEN
    value: {{ printf "%s:%d" $sidecar.admin.address (int $sidecar.admin.port) | quote }}
  {{- end }}
  {{- with $sidecar.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  envFrom:
  - configMapRef: {name: podbeat}
  {{- if $sidecar.admin.enabled }}
  ports:
  - {name: podbeat-admin, containerPort: {{ $sidecar.admin.port }}}
  {{- if $sidecar.native }}
  startupProbe:
    httpGet: {path: /startupz, port: podbeat-admin}
    periodSeconds: 1
    failureThreshold: 60
  {{- end }}
  {{- if $sidecar.livenessProbe }}
  livenessProbe:
    httpGet: {path: /livez, port: podbeat-admin}
    periodSeconds: 30
    timeoutSeconds: 5
    failureThreshold: 4
  {{- end }}
  {{- end }}
  securityContext:
    {{- toYaml $sidecar.securityContext | nindent 4 }}
  resources:
    {{- toYaml $sidecar.resources | nindent 4 }}
  volumeMounts:
  - {name: podbeat, mountPath: /var/run/podbeat, readOnly: true}
  - {name: podbeat-state, mountPath: /var/lib/podbeat}
  {{- if $sidecar.exitMarkers.enabled }}
  - {name: podbeat-markers, mountPath: {{ $sidecar.exitMarkers.dir }}, readOnly: true}
  {{- end }}
{{- end -}}

{{- define "podbeat.volumes" -}}
{{- $values := (include "podbeat.scope" . | fromJson).values -}}
{{ include "podbeat.tokenVolume" . }}
- name: podbeat-state
  emptyDir: {sizeLimit: {{ $values.sidecar.stateSizeLimit }}}
{{- if $values.sidecar.exitMarkers.enabled }}
{{ include "podbeat.markerVolumes" . }}
{{- end }}
{{- end -}}

{{- define "podbeat.markerVolumes" -}}
- name: podbeat-bin
  emptyDir: {sizeLimit: 16Mi}
- name: podbeat-markers
  emptyDir: {sizeLimit: 1Mi}
{{- end -}}

{{/* The volume that only podbeat may mount: the service's token, and a token of the Kubernetes API. */}}
{{- define "podbeat.tokenVolume" -}}
{{- $service := (include "podbeat.scope" . | fromJson).values.service -}}
- name: podbeat
  projected:
    sources:
    - secret:
        name: {{ $service.tokenSecret.name }}
        items: [{key: {{ $service.tokenSecret.key }}, path: token}]
    - serviceAccountToken: {path: kubernetes/token, expirationSeconds: 3607}
    - configMap:
        name: kube-root-ca.crt
        items: [{key: ca.crt, path: kubernetes/ca.crt}]
    {{- with $service.ca.configMap }}
    - configMap:
        name: {{ . }}
        {{- if $service.ca.optional }}
        optional: true
        {{- end }}
        items: [{key: {{ $service.ca.key }}, path: ca.crt}]
    {{- end }}
    {{- with $service.clientCertificate.secret }}
    - secret:
        name: {{ . }}
        items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
    {{- end }}
{{- end -}}

{{- define "podbeat.install" -}}
{{- $values := (include "podbeat.scope" . | fromJson).values -}}
- name: podbeat-install
  image: {{ include "podbeat.image" . }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args: [exec, --install, /opt/podbeat]
  securityContext:
    {{- toYaml $values.sidecar.securityContext | nindent 4 }}
  resources:
    {{- toYaml $values.sidecar.resources | nindent 4 }}
  volumeMounts:
  - {name: podbeat-bin, mountPath: /opt/podbeat}
{{- end -}}
