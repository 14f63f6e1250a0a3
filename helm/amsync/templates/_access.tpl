{{/* Who may come in, as a gateway is told. */}}

{{- define "amsync.accessEnv" -}}
{{- $auth := .Values.auth }}
{{- if not $auth.enabled }}
# ANONYMOUS: whoever reaches this pod may read and write every document.
- name: AMSYNC_ALLOW_ANONYMOUS
  value: "true"
{{- else }}
{{- if $auth.secretKeys.clientId }}
- name: AMSYNC_AUTH_CLIENT_ID
  valueFrom:
    secretKeyRef:
      name: {{ $auth.existingSecret }}
      key: {{ $auth.secretKeys.clientId }}
{{- else }}
- name: AMSYNC_AUTH_CLIENT_ID
  value: {{ $auth.clientId | quote }}
{{- end }}
{{- with $auth.issuer }}
- name: AMSYNC_AUTH_ISSUER
  value: {{ . | quote }}
{{- end }}
{{- with $auth.allowedEmails }}
- name: AMSYNC_AUTH_ALLOWED_EMAILS
  value: {{ join "," . | quote }}
{{- end }}
{{- with $auth.allowedDomains }}
- name: AMSYNC_AUTH_ALLOWED_DOMAINS
  value: {{ join "," . | quote }}
{{- end }}
{{- with $auth.secretKeys.sharedSecret }}
- name: AMSYNC_AUTH_SHARED_SECRET_FILE
  value: /etc/amsync/auth/{{ . }}
{{- end }}
{{- with $auth.secretKeys.issuers }}
- name: AMSYNC_AUTH_ISSUERS_FILE
  value: /etc/amsync/auth/{{ . }}
{{- end }}
{{- with $auth.secretKeys.keys }}
- name: AMSYNC_AUTH_KEYS
  value: /etc/amsync/auth/{{ . }}
{{- end }}
{{- with $auth.secretKeys.issuerCa }}
- name: AMSYNC_AUTH_ISSUER_CA
  value: /etc/amsync/auth/{{ . }}
{{- end }}
{{- with $auth.secretKeys.webhookToken }}
- name: AMSYNC_ACCESS_WEBHOOK_TOKEN_FILE
  value: /etc/amsync/auth/{{ . }}
{{- end }}
{{- with $auth.secretKeys.webhookCa }}
- name: AMSYNC_ACCESS_WEBHOOK_CA
  value: /etc/amsync/auth/{{ . }}
{{- end }}
{{- end }}
{{- if .Values.admin.existingSecret }}
- name: AMSYNC_ADMIN_TOKEN_FILE
  value: /etc/amsync/admin/{{ .Values.admin.tokenKey }}
{{- end }}
{{- if .Values.tls.existingSecret }}
- name: AMSYNC_TLS_CERT
  value: /etc/amsync/tls/{{ .Values.tls.certKey }}
- name: AMSYNC_TLS_KEY
  value: /etc/amsync/tls/{{ .Values.tls.keyKey }}
- name: AMSYNC_TLS_MINIMUM_VERSION
  value: {{ .Values.tls.minimumVersion }}
{{- end }}
{{- with .Values.trustedProxies }}
- name: AMSYNC_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.allowedOrigins }}
- name: AMSYNC_ALLOWED_ORIGINS
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}

{{/* Keys that are read as files; "true" if there are any. */}}
{{- define "amsync.hasAuthFiles" -}}
{{- range $key, $value := .Values.auth.secretKeys }}
{{- if and $value (ne $key "clientId") }}true{{ end }}
{{- end }}
{{- end }}

{{/* Whole folders, never subPath: a Secret that changes is seen. */}}
{{- define "amsync.accessMounts" -}}
{{- if include "amsync.hasAuthFiles" . }}
- {name: auth, mountPath: /etc/amsync/auth, readOnly: true}
{{- end }}
{{- if .Values.admin.existingSecret }}
- {name: admin, mountPath: /etc/amsync/admin, readOnly: true}
{{- end }}
{{- if .Values.tls.existingSecret }}
- {name: tls, mountPath: /etc/amsync/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "amsync.accessVolumes" -}}
{{- if include "amsync.hasAuthFiles" . }}
- name: auth
  secret:
    secretName: {{ .Values.auth.existingSecret }}
    defaultMode: 0440
    items:
      {{- range values (omit .Values.auth.secretKeys "clientId") | compact | uniq | sortAlpha }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- if .Values.admin.existingSecret }}
- name: admin
  secret:
    secretName: {{ .Values.admin.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.admin.tokenKey }}, path: {{ .Values.admin.tokenKey }}}
{{- end }}
{{- if .Values.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ .Values.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}
