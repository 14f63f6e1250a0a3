{{/* Names and labels. */}}

{{- define "amsync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 38 | trimSuffix "-" }}
{{- end }}

{{/* At most 38 characters, as names of parts and of pods are made from it. */}}
{{- define "amsync.fullname" -}}
{{- $name := include "amsync.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 38 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "amsync.selector" -}}
app.kubernetes.io/name: {{ include "amsync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "amsync.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "amsync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: amsync
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "amsync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "amsync.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image's name; takes (dict "image" ... "tag" the default). */}}
{{- define "amsync.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end }}
{{- end }}

{{- define "amsync.bundlesValkey" -}}
{{- if not (or .Values.redis.url .Values.redis.existingSecret) }}true{{ end }}
{{- end }}

{{- define "amsync.claimName" -}}
{{- default (printf "%s-documents" (include "amsync.fullname" .)) .Values.worker.persistence.existingClaim }}
{{- end }}

{{- define "amsync.isShared" -}}
{{- if eq .Values.worker.persistence.accessMode "ReadWriteMany" }}true{{ end }}
{{- end }}

{{/* Where clients connect inside of the cluster. */}}
{{- define "amsync.url" -}}
{{ ternary "wss" "ws" (not (empty .Values.tls.existingSecret)) }}://{{ include "amsync.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}
