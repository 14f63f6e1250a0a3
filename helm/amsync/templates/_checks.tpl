{{/* What is refused before anything is installed. */}}

{{- define "amsync.check" -}}
{{- $isExposed := or .Values.ingress.enabled .Values.route.enabled (ne .Values.service.type "ClusterIP") }}
{{- if not .Values.auth.enabled }}
{{- if not .Values.auth.allowAnonymous }}
{{- fail "\n\nNobody could come in: auth.enabled and auth.allowAnonymous are both false. Set auth.enabled=true with auth.clientId, or auth.allowAnonymous=true if everybody who reaches the Service may read and write." }}
{{- end }}
{{- if and $isExposed (not .Values.auth.exposeAnonymous) }}
{{- fail (printf "\n\n%s would let everybody read and write every document: auth.enabled is false. Set auth.enabled=true with auth.clientId, or auth.exposeAnonymous=true if that is wanted." (ternary "An Ingress or a route" (printf "A Service of type %s" .Values.service.type) (or .Values.ingress.enabled .Values.route.enabled))) }}
{{- end }}
{{- else }}
{{- if not (or .Values.auth.clientId .Values.auth.secretKeys.clientId) }}
{{- fail "\n\nauth.enabled needs auth.clientId, or auth.existingSecret and auth.secretKeys.clientId." }}
{{- end }}
{{- if not (or .Values.tls.existingSecret .Values.trustedProxies) }}
{{- fail "\n\nTokens could be read on their way: auth.enabled needs tls.existingSecret (gateways end TLS), or trustedProxies, the networks of the proxies that end it." }}
{{- end }}
{{- end }}
{{- range $key, $value := .Values.auth.secretKeys }}
{{- if and $value (not $.Values.auth.existingSecret) }}
{{- fail (printf "\n\nauth.secretKeys.%s names a key of auth.existingSecret, which is empty." $key) }}
{{- end }}
{{- if and $value (not $.Values.auth.enabled) }}
{{- fail (printf "\n\nauth.secretKeys.%s has no meaning while auth.enabled is false." $key) }}
{{- end }}
{{- end }}
{{- if and .Values.route.enabled .Values.tls.existingSecret }}
{{- fail "\n\nroute.enabled and tls.existingSecret exclude each other: an HTTPRoute speaks plain HTTP to the gateways. Let the Gateway end TLS and name it in trustedProxies, or use service.type=LoadBalancer." }}
{{- end }}
{{- if and .Values.route.enabled (not .Values.route.parentRefs) }}
{{- fail "\n\nroute.enabled needs route.parentRefs, the Gateways that it belongs to." }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "\n\ningress.enabled needs ingress.hosts." }}
{{- end }}
{{- if and .Values.redis.url .Values.redis.existingSecret }}
{{- fail "\n\nredis.url and redis.existingSecret exclude each other." }}
{{- end }}
{{- $workers := .Values.worker }}
{{- if and (not (include "amsync.isShared" .)) (or $workers.autoscaling.enabled (gt (int $workers.replicas) 1)) }}
{{- fail (printf "\n\nSeveral workers need a volume that all of them mount: worker.persistence.accessMode is %s, not ReadWriteMany." $workers.persistence.accessMode) }}
{{- end }}
{{- range $name := list "gateway" "worker" }}
{{- $scaling := (index $.Values $name).autoscaling }}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{- fail (printf "\n\n%s.autoscaling: minReplicas is larger than maxReplicas." $name) }}
{{- end }}
{{- end }}
{{- if and $workers.autoscaling.enabled (not (or $workers.autoscaling.cpuUtilization $workers.autoscaling.metrics)) }}
{{- fail "\n\nworker.autoscaling needs cpuUtilization or metrics." }}
{{- end }}
{{- end }}
