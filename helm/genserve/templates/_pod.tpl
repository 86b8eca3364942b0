{{/* The parts of the pod that depend on where the models come from, and on the GPU. */}}
{{- define "genserve.modelsVolume" -}}
{{- with .Values.models }}
{{- if eq .source "pvc" -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ .pvc.claimName }}
    readOnly: true
{{- else if eq .source "hostPath" -}}
- name: models
  hostPath:
    path: {{ .hostPath.path }}
    type: Directory
{{- else if eq .source "initContainer" -}}
- name: models
  emptyDir:
    sizeLimit: {{ .initContainer.sizeLimit }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A server never writes to the repository. */}}
{{- define "genserve.modelsMount" -}}
{{- if ne .Values.models.source "image" -}}
- name: models
  mountPath: /models
  readOnly: true
  {{- if and (eq .Values.models.source "pvc") .Values.models.pvc.subPath }}
  subPath: {{ .Values.models.pvc.subPath }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The container that fills the repository comes first; it runs as confined as the service does. */}}
{{- define "genserve.initContainers" -}}
{{- $all := list }}
{{- if eq .Values.models.source "initContainer" }}
{{- $fill := dict "name" "models" "securityContext" .Values.containerSecurityContext "resources" .Values.resources }}
{{- range $key := list "image" "command" "args" "env" }}
{{- with get $.Values.models.initContainer $key }}
{{- $_ := set $fill $key . }}
{{- end }}
{{- end }}
{{- $mounts := list (dict "name" "models" "mountPath" "/models") (dict "name" "tmp" "mountPath" "/tmp") }}
{{- $all = list (set $fill "volumeMounts" $mounts) }}
{{- end }}
{{- with concat $all .Values.initContainers -}}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* resources, with the GPUs added: requests and limits of an extended resource are equal. */}}
{{- define "genserve.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.enabled }}
{{- range $kind := list "requests" "limits" }}
{{- $amounts := set (default dict (get $resources $kind)) $.Values.gpu.resourceName (int64 $.Values.gpu.count) }}
{{- $_ := set $resources $kind $amounts }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end -}}
