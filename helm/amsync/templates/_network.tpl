{{/* Rules that several NetworkPolicies have. */}}

{{- define "amsync.toRedis" }}
{{- if include "amsync.bundlesValkey" . }}
- to:
    - podSelector:
        matchLabels:
          {{- include "amsync.selector" . | nindent 10 }}
          app.kubernetes.io/component: valkey
  ports: [{protocol: TCP, port: 6379}]
{{- else }}
- ports:
    {{- range .Values.networkPolicy.redisPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.networkPolicy.redisTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
# DNS, wherever the cluster has it
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
{{- define "amsync.fromMonitoring" }}
- ports: [{protocol: TCP, port: admin}]
  {{- with .Values.networkPolicy.monitoringFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
