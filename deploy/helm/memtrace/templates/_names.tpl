{{- define "memtrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "memtrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "memtrace.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "memtrace.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "memtrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "memtrace.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "memtrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "memtrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "memtrace.labels" -}}
{{ include "memtrace.selectorLabels" . }}
app.kubernetes.io/part-of: memtrace
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "memtrace.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- if $image.registry -}}
{{- $name = printf "%s/%s" $image.registry $name -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Whether the Kubernetes API is a source of names: "true" or nothing. */}}
{{- define "memtrace.usesApi" -}}
{{- if has .Values.identity.source (list "auto" "kubernetes") -}}true{{- end -}}
{{- end -}}

{{/* IPv6 addresses go in brackets. */}}
{{- define "memtrace.listen" -}}
{{- if contains ":" .Values.listen.address -}}
{{- printf "[%s]:%d" .Values.listen.address (int .Values.listen.port) -}}
{{- else -}}
{{- printf "%s:%d" .Values.listen.address (int .Values.listen.port) -}}
{{- end -}}
{{- end -}}
