{{/* Names */}}
{{- define "sqledge-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sqledge-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "sqledge-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide objects of two releases in two namespaces must not share a name. */}}
{{- define "sqledge-operator.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "sqledge-operator.fullname" .) | trunc 57 | trimSuffix "-" -}}
{{- end -}}

{{- define "sqledge-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sqledge-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sqledge-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sqledge-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* No app.kubernetes.io/managed-by: helm adds its own, and the plain manifests are managed by nobody. */}}
{{- define "sqledge-operator.labels" -}}
{{ include "sqledge-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "sqledge-operator.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The operator's own settings file; its keys are the operator's contract, not helm's. */}}
{{- define "sqledge-operator.settings" -}}
watchNamespaces: {{ .Values.watchNamespaces | toJson }}
driverClasses: {{ .Values.driverClasses | toJson }}
fastDetach: {{ .Values.fastDetach }}
{{- end -}}
