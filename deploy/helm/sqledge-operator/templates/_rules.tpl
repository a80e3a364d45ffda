{{/*
Every right the operator has stands in this file, one rule for one kind of object and one reason. The end-to-end tests
compare the list with the API server's audit log in both directions: a right nobody uses is a finding, like a missing one.
*/}}

{{/* Objects in the namespaces that are served. */}}
{{- define "sqledge-operator.namespacedRules" -}}
# the resources it serves; their spec is the user's and never written
- apiGroups: [sqledge.io]
  resources: [sqledgeinstances]
  verbs: [get, list, watch]
- apiGroups: [sqledge.io]
  resources: [sqledgeinstances/status]
  verbs: [patch]
# children: applied, never deleted (deletion is the garbage collector's, along the owner references) but for one case
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
# delete is for a claim that never got a volume, whose class was corrected (an admission policy allows no other)
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
# the guard of each instance: its account, and the role that gives it one Lease (admission policies allow no other shape)
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch]
# the Lease of each instance: made, named, sealed; get and update must be the operator's own to give them to the guard. Only
# those with our labels are listed and watched; an admission policy keeps its writes to them
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch]
# by name only: no list, no watch, so it never holds passwords it was not asked to look at
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
# patch opens the scheduling gate; delete evicts a database from a dead node (both limited by an admission policy)
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Objects without a namespace. */}}
{{- define "sqledge-operator.clusterRules" -}}
# is the node alive, and what does it still use
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list, watch]
{{- if eq .Values.fastDetach "Enabled" }}
# take one volume off a dead node's list (limited by an admission policy)
- apiGroups: [""]
  resources: [nodes/status]
  verbs: [patch]
{{- end }}
# which driver a volume belongs to
- apiGroups: [""]
  resources: [persistentvolumes]
  verbs: [get]
# whether that driver attaches at all
- apiGroups: [storage.k8s.io]
  resources: [csidrivers]
  verbs: [get]
# whether it is still attached; delete is the slow way to detach, for when the fast one is switched off or does not help
- apiGroups: [storage.k8s.io]
  resources: [volumeattachments]
  verbs: [list, watch, delete]
# is there a class of that name, is there a default one
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get, list]
{{- end -}}

{{/* The nodes' own Leases: the kubelets renew them every 10 s, which tells a dead node sooner than its Ready condition. */}}
{{- define "sqledge-operator.nodeLeaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch]
{{- end -}}

{{/* The replicas' own Lease. `create` cannot be limited to a name: the API server does not know it yet. */}}
{{- define "sqledge-operator.leaderRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [sqledge-operator]
  verbs: [get, update]
{{- end -}}

{{/* For an admission policy: is it an object of an instance, called after it with this ending, and was it before? */}}
{{- define "sqledge-operator.ofInstance" -}}
variables:
  - name: instance
    expression: "object == null ? '' : object.metadata.?labels['app.kubernetes.io/instance'].orValue('')"
  - name: ours
    expression: >-
      variables.instance != ''
      && object.metadata.name == variables.instance + '-{{ . }}'
      && object.metadata.labels[?'app.kubernetes.io/managed-by'].orValue('') == 'sqledge-operator'
      && object.metadata.labels[?'app.kubernetes.io/name'].orValue('') == 'sqledge'
      && object.metadata.labels[?'app.kubernetes.io/component'].orValue('') == 'database'
  # the owner too: a label that somebody took away is put back
  - name: wasOurs
    expression: >-
      oldObject == null
      || (oldObject.metadata.?labels['app.kubernetes.io/managed-by'].orValue('') == 'sqledge-operator'
          && oldObject.metadata.?labels['app.kubernetes.io/instance'].orValue('') == variables.instance)
      || oldObject.metadata.?ownerReferences.orValue([]).exists(o, o.kind == 'SqlEdgeInstance' && o.name == variables.instance)
{{- end -}}
