{{/* Names. */}}
{{- define "genserve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "genserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "genserve.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "genserve.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "genserve.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels. The selector's labels never change over an upgrade. */}}
{{- define "genserve.selectorLabels" -}}
app.kubernetes.io/name: {{ include "genserve.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "genserve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "genserve.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The image: a digest beats a tag; the default tag is the service's version, -gpu where a GPU is asked for. */}}
{{- define "genserve.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- $variant := ternary "-gpu" "" .Values.gpu.enabled -}}
{{- printf "%s:%s" .Values.image.repository (default (printf "%s%s" .Chart.AppVersion $variant) .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A value of `config` as an environment variable's text: whole numbers without an exponent (Helm 3 reads every
number as a float), lists with commas. */}}
{{- define "genserve.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- . | int64 -}}
{{- else if kindIs "bool" . -}}
{{- ternary "1" "0" . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Every setting that goes through the ConfigMap, as a mapping of environment variables. */}}
{{- define "genserve.settings" -}}
GENSERVE_HOST: "0.0.0.0"
GENSERVE_PORT: "8000"
{{- if .Values.metrics.port }}
GENSERVE_METRICS_PORT: {{ .Values.metrics.port | int64 | toString | quote }}
{{- end }}
{{- if ne .Values.models.source "image" }}
GENSERVE_MODELS: /models
{{- end }}
{{- if and .Values.gpu.enabled (kindIs "invalid" .Values.config.providers) }}
GENSERVE_PROVIDERS: cuda,cpu
{{- end }}
{{- range $name, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
GENSERVE_{{ $name | snakecase | upper }}: {{ include "genserve.text" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Redis: the password is only ever a reference to a secret, expanded by the kubelet. */}}
{{- define "genserve.redisEnv" -}}
{{- with .Values.externalRedis }}
{{- if and .existingSecret .secretKeys.url }}
- name: GENSERVE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretKeys.url }}
{{- else if .host }}
{{- $credentials := "" }}
{{- if .existingSecret }}
{{- $credentials = printf "%s:$(REDIS_PASSWORD)@" .username }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretKeys.password }}
{{- end }}
- name: GENSERVE_REDIS_URL
  value: {{ printf "%s://%s%s:%d/%d" (ternary "rediss" "redis" .tls) $credentials .host (int64 .port) (int64 .db) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The longest that a pod takes to stop: preStop, drain, the longest request, and the second that closing takes. */}}
{{- define "genserve.stopSeconds" -}}
{{- add (int64 .Values.lifecycle.preStop.sleep.seconds) (ceil .Values.config.drainSeconds | int64) (ceil .Values.config.requestTimeoutSeconds | int64) 1 -}}
{{- end -}}

{{/* Refusals that a schema cannot express. Each names the value, the limit and what was given. */}}
{{- define "genserve.check" -}}
{{- $needed := include "genserve.stopSeconds" . | int64 -}}
{{- $given := int64 .Values.terminationGracePeriodSeconds -}}
{{- if le $given $needed -}}
{{- fail (printf "terminationGracePeriodSeconds is %d and must be more than %d: lifecycle.preStop.sleep.seconds + config.drainSeconds + config.requestTimeoutSeconds + 1" $given $needed) -}}
{{- end -}}
{{- $own := include "genserve.settings" . | fromYaml -}}
{{- range (include "genserve.redisEnv" . | fromYamlArray) -}}
{{- $_ := set $own .name "" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasKey $own .name -}}
{{- fail (printf "extraEnv: %s is set by the chart already: use the chart's own value for it" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
