{{/* What pods of ours have in common. */}}

{{/* A number of YAML is a float for Helm, and a large one would come out as 1e+08. */}}
{{- define "amsync.scalar" -}}
{{- if kindIs "slice" . }}
{{- $texts := list }}
{{- range . }}{{ $texts = append $texts (include "amsync.scalar" .) }}{{ end }}
{{- join "," $texts }}
{{- else if kindIs "float64" . }}
{{- if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- else }}
{{- . }}
{{- end }}
{{- end }}

{{/* Options of a command as environment variables. */}}
{{- define "amsync.options" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- name: AMSYNC_{{ $name | upper | replace "-" "_" }}
  value: {{ include "amsync.scalar" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of gateways and workers: Redis and logs. */}}
{{- define "amsync.commonEnv" -}}
{{- if .Values.redis.existingSecret }}
- name: AMSYNC_REDIS
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret }}
      key: {{ .Values.redis.secretKey }}
{{- else if .Values.redis.url }}
- name: AMSYNC_REDIS
  value: {{ .Values.redis.url | quote }}
{{- else if .Values.valkey.existingSecret }}
- name: VALKEY_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.valkey.existingSecret }}
      key: {{ .Values.valkey.secretKey }}
- name: AMSYNC_REDIS
  value: redis://:$(VALKEY_PASSWORD)@{{ include "amsync.fullname" . }}-valkey:6379/0
{{- else }}
- name: AMSYNC_REDIS
  value: redis://{{ include "amsync.fullname" . }}-valkey:6379/0
{{- end }}
- name: AMSYNC_PREFIX
  value: {{ .Values.redis.prefix | quote }}
- name: AMSYNC_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: AMSYNC_LOG_LEVEL
  value: {{ .Values.log.level }}
- name: AMSYNC_ADMIN_HOST
  value: 0.0.0.0
{{- end }}

{{/* Probes of the admin port. The first minutes belong to the start; whoever then hangs for a
minute is started again. */}}
{{- define "amsync.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 90
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* Where a pod runs; takes (dict "root" $ "part" values "component" name). */}}
{{- define "amsync.placement" -}}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $root := .root }}
{{- $component := .component }}
{{- if and $root.Values.topologySpread.enabled (ne $component "valkey") }}
topologySpreadConstraints:
  {{- range $root.Values.topologySpread.keys }}
  - topologyKey: {{ . }}
    maxSkew: {{ $root.Values.topologySpread.maxSkew }}
    whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "amsync.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $component }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{/* Beginning of every pod's spec. Service links would give a Service named `amsync` the variable
AMSYNC_PORT, which is an option of ours. */}}
{{- define "amsync.podBase" -}}
serviceAccountName: {{ include "amsync.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* No version of the chart: pods need no new start because of it. */}}
{{- define "amsync.podMeta" -}}
labels:
  {{- include "amsync.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  app.kubernetes.io/part-of: amsync
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .part.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
