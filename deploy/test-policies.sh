#!/bin/sh
# Tests the operator's admission policies and roles against a real API server: what the operator's service account may do
# to pods, Nodes, claims, Leases, accounts and roles, and what is refused although its role grants the verb.
#
#   KUBECONFIG=FILE deploy/test-policies.sh [KUBECTL...]
#
# KUBECTL is the command to run (default kubectl), e.g. `nsenter --net=/proc/1/ns/net kubectl`. Needs administrator rights
# and deploy/install.yaml applied; etcd and kube-apiserver are enough, no node. Everything it makes is named policy-test,
# and everything it asks for under test is a server-side dry run, so nothing is really changed or deleted.
set -u

[ $# -gt 0 ] || set -- kubectl
account=system:serviceaccount:sqledge-system:sqledge-operator
failed=0
passed=0
work=$(mktemp -d)

admin() { "$kubectl_run" "$@"; }
operator() { "$kubectl_run" --as="$account" "$@"; }

# `"$@"` is the only list a POSIX shell has, so the command becomes a script that both callers can use
kubectl_run=$work/kubectl
{
    echo '#!/bin/sh'
    printf 'exec'
    for word in "$@"; do printf " '%s'" "$(printf %s "$word" | sed "s/'/'\\\\''/g")"; done
    echo ' "$@"'
} >"$kubectl_run"
chmod +x "$kubectl_run"

clean_up() {
    admin delete clusterrolebinding policy-test policy-test-get --ignore-not-found >/dev/null 2>&1
    admin delete clusterrole policy-test-get --ignore-not-found >/dev/null 2>&1
    admin delete node policy-test --ignore-not-found >/dev/null 2>&1
    admin delete lease policy-test -n kube-node-lease --ignore-not-found >/dev/null 2>&1
    admin delete serviceaccounts,roles,rolebindings,leases there-guard foreign-guard there-writer foreign-writer -n policy-test --ignore-not-found >/dev/null 2>&1
    admin delete pod --all -n policy-test --grace-period=0 --force >/dev/null 2>&1
    # the namespace stays: where no controller manager runs it would hang in Terminating and fail the next run
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

pass() { passed=$((passed + 1)); echo "ok      $1"; }
fail() { failed=$((failed + 1)); echo "FAILED  $1: $2"; }

# allowed TITLE COMMAND...
allowed() {
    title=$1
    shift
    if answer=$("$@" 2>&1); then pass "allowed: $title"; else fail "allowed: $title" "$answer"; fi
}

# refused TITLE WORDS COMMAND... (WORDS must stand in the answer: a refusal for another reason proves nothing)
refused() {
    title=$1
    words=$2
    shift 2
    if answer=$("$@" 2>&1); then
        fail "refused: $title" "it was allowed"
    elif printf %s "$answer" | grep -qF -- "$words"; then
        pass "refused: $title"
    else
        fail "refused: $title" "refused for another reason: $answer"
    fi
}

node_status() { # who patch
    "$1" patch node policy-test --subresource=status --dry-run=server --type=json -p "$2"
}
pod() { # who name patch
    "$1" patch pod "$2" -n policy-test --dry-run=server --type=json -p "$3"
}
delete_pod() { # who name
    "$1" delete pod "$2" -n policy-test --dry-run=server --grace-period=0 --force
}

# ---------------------------------------------------------------------------------------------------------- fixtures
pod_manifest() { # name labels gates
    cat <<POD
---
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: policy-test, labels: {$2}}
spec:
  automountServiceAccountToken: false
  schedulingGates: [$3]
  initContainers: [{name: guard, image: "localhost/guard:1"}]
  containers: [{name: database, image: "localhost/database:1"}]
POD
}
ours='app.kubernetes.io/managed-by: sqledge-operator, app.kubernetes.io/name: sqledge, app.kubernetes.io/instance: a, app.kubernetes.io/component: database'
{
    cat <<NODE
apiVersion: v1
kind: Namespace
metadata: {name: policy-test}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: policy-test}
---
apiVersion: v1
kind: Node
metadata: {name: policy-test, labels: {zone: a}, annotations: {volumes.kubernetes.io/controller-managed-attach-detach: "true"}}
spec: {podCIDR: 192.0.2.0/28}
NODE
    pod_manifest gated "$ours" "{name: sqledge.io/volume-fence}"
    pod_manifest running "$ours" ""
    pod_manifest foreign "app: other" "{name: sqledge.io/volume-fence}"
    pod_manifest half "app.kubernetes.io/managed-by: sqledge-operator" ""
    pod_manifest bare "" ""
} >"$work/fixtures.yaml"
admin apply --server-side -f "$work/fixtures.yaml" >/dev/null || exit 1
# kubectl reads what it is about to patch; the operator has it from a watch or a list, and has no such right
admin create clusterrole policy-test-get --verb=get --resource=nodes/status,pods,leases.coordination.k8s.io >/dev/null || exit 1
admin create clusterrolebinding policy-test-get --clusterrole=policy-test-get --serviceaccount=sqledge-system:sqledge-operator >/dev/null || exit 1
# many images with long names, as a real kubelet reports them: the comparison must stay inside the API server's cost limit
images=$(i=0; while [ $i -lt 50 ]; do
    printf '%s{"names":["registry.example.com/team/some-rather-long-image-name-%s@sha256:%064d","registry.example.com/team/some-rather-long-image-name-%s:v1.2.3"],"sizeBytes":123456789}' "${sep:-}" $i $i $i
    sep=,; i=$((i + 1)); done)
admin patch node policy-test --subresource=status --type=merge -p '{"status":{
    "volumesInUse":["kubernetes.io/csi/d.example.com^v1","kubernetes.io/csi/d.example.com^v2"],
    "volumesAttached":[{"name":"kubernetes.io/csi/d.example.com^v1","devicePath":""}],
    "capacity":{"cpu":"4","memory":"8Gi"},"allocatable":{"cpu":"4","memory":"8Gi"},
    "addresses":[{"type":"InternalIP","address":"192.0.2.9"}],
    "conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","message":"Kubelet stopped posting node status.","lastHeartbeatTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z"}],
    "images":['"$images"']}}' >/dev/null || exit 1

# A policy takes effect a moment after it was created, and only for requests that reach a server which has seen it.
deadline=$(($(date +%s) + 60))
until delete_pod operator foreign 2>&1 | grep -q 'ValidatingAdmissionPolicy' \
    && node_status operator '[{"op":"add","path":"/metadata/labels/x","value":"y"}]' 2>&1 | grep -q 'ValidatingAdmissionPolicy'; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "the policies are not in force after 60 s: is deploy/install.yaml applied?" >&2
        delete_pod operator foreign >&2
        node_status operator '[{"op":"add","path":"/metadata/labels/x","value":"y"}]' >&2
        exit 1
    fi
    sleep 0.2
done

# ------------------------------------------------------------------------------------------------------ nodes/status
v1='{"op":"test","path":"/status/volumesInUse/0","value":"kubernetes.io/csi/d.example.com^v1"},{"op":"remove","path":"/status/volumesInUse/0"}'
allowed "one entry off volumesInUse" node_status operator "[$v1]"
uid=$(admin get node policy-test -o 'jsonpath={.metadata.uid}')
version=$(admin get node policy-test -o 'jsonpath={.metadata.resourceVersion}')
allowed "one entry off, bound to the object that was judged" node_status operator "[{\"op\":\"test\",\"path\":\"/metadata/uid\",\"value\":\"$uid\"},{\"op\":\"replace\",\"path\":\"/metadata/resourceVersion\",\"value\":\"$version\"},$v1]"
refused "the same bound to an older state" "the object has been modified" node_status operator "[{\"op\":\"replace\",\"path\":\"/metadata/resourceVersion\",\"value\":\"1\"},$v1]"
allowed "the last entry off volumesInUse" node_status operator "[$v1,{\"op\":\"remove\",\"path\":\"/status/volumesInUse/0\"}]"
allowed "volumesInUse away altogether" node_status operator '[{"op":"remove","path":"/status/volumesInUse"}]'
allowed "nothing changed" node_status operator '[{"op":"test","path":"/metadata/name","value":"policy-test"}]'
refused "an entry added" "may only take entries off" node_status operator '[{"op":"add","path":"/status/volumesInUse/-","value":"kubernetes.io/csi/d.example.com^v3"}]'
refused "an entry replaced" "may only take entries off" node_status operator '[{"op":"replace","path":"/status/volumesInUse/0","value":"kubernetes.io/csi/d.example.com^v3"}]'
refused "an entry doubled" "may only take entries off" node_status operator '[{"op":"add","path":"/status/volumesInUse/-","value":"kubernetes.io/csi/d.example.com^v2"}]'
refused "a label added on the way" "metadata" node_status operator "[$v1,{\"op\":\"add\",\"path\":\"/metadata/labels/x\",\"value\":\"y\"}]"
refused "a label changed" "metadata" node_status operator '[{"op":"replace","path":"/metadata/labels/zone","value":"b"}]'
refused "a label removed" "metadata" node_status operator '[{"op":"remove","path":"/metadata/labels/zone"}]'
refused "an annotation removed" "metadata" node_status operator '[{"op":"remove","path":"/metadata/annotations"}]'
refused "a finalizer added" "metadata" node_status operator '[{"op":"add","path":"/metadata/finalizers","value":["example.com/x"]}]'
refused "volumesAttached emptied" "nothing in a Node's status" node_status operator '[{"op":"remove","path":"/status/volumesAttached"}]'
refused "Ready set to True" "nothing in a Node's status" node_status operator '[{"op":"replace","path":"/status/conditions/0/status","value":"True"}]'
refused "capacity changed" "nothing in a Node's status" node_status operator '[{"op":"replace","path":"/status/capacity/cpu","value":"64"}]'
refused "an extended resource added" "nothing in a Node's status" node_status operator '[{"op":"add","path":"/status/capacity/example.com~1x","value":"1"}]'
refused "an address changed" "nothing in a Node's status" node_status operator '[{"op":"replace","path":"/status/addresses/0/address","value":"192.0.2.10"}]'
refused "a field of the status added" "nothing in a Node's status" node_status operator '[{"op":"add","path":"/status/phase","value":"Terminated"}]'
refused "a Node itself patched" "cannot patch resource" operator patch node policy-test --dry-run=server --type=merge -p '{"spec":{"unschedulable":true}}'
allowed "somebody else changes labels through the status" node_status admin '[{"op":"add","path":"/metadata/labels/x","value":"y"}]'

# -------------------------------------------------------------------------------------------------------------- pods
open='{"op":"test","path":"/spec/schedulingGates/0/name","value":"sqledge.io/volume-fence"},{"op":"remove","path":"/spec/schedulingGates/0"}'
allowed "the gate opened" pod operator gated "[$open]"
allowed "the gate opened and the pod pinned in one patch" pod operator gated "[$open,{\"op\":\"add\",\"path\":\"/spec/nodeSelector\",\"value\":{\"kubernetes.io/hostname\":\"n1\"}}]"
avoid='{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"NotIn","values":["n1"]}]}]}}}'
allowed "the gate opened and a node avoided in one patch" pod operator gated "[$open,{\"op\":\"add\",\"path\":\"/spec/affinity\",\"value\":$avoid}]"
allowed "an annotation on an own pod" pod operator gated '[{"op":"add","path":"/metadata/annotations","value":{"sqledge.io/x":"y"}}]'
allowed "an own gated pod deleted" delete_pod operator gated
allowed "an own pod deleted" delete_pod operator running
refused "a foreign pod deleted" "only database pods of its own" delete_pod operator foreign
refused "a pod without labels deleted" "only database pods of its own" delete_pod operator bare
refused "a pod with one of the labels deleted" "only database pods of its own" delete_pod operator half
refused "a foreign pod's gate opened" "only database pods of its own" pod operator foreign "[$open]"
refused "a foreign pod labelled as its own" "only database pods of its own" operator label pod foreign -n policy-test --dry-run=server app.kubernetes.io/managed-by=sqledge-operator app.kubernetes.io/name=sqledge app.kubernetes.io/component=database
refused "an own pod's label changed" "labels" pod operator gated '[{"op":"replace","path":"/metadata/labels/app.kubernetes.io~1instance","value":"b"}]'
refused "an own pod's image changed" "images" pod operator running '[{"op":"replace","path":"/spec/containers/0/image","value":"localhost/other:1"}]'
refused "an own pod's init image changed" "images" pod operator running '[{"op":"replace","path":"/spec/initContainers/0/image","value":"localhost/other:1"}]'
claim() { # name labels volumeName
    cat <<CLAIM | admin apply -f - >/dev/null
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1, namespace: policy-test, labels: {$2}}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, volumeName: "$3", resources: {requests: {storage: 1Gi}}}
CLAIM
}
delete_claim() { # who name
    "$1" delete pvc "$2" -n policy-test --dry-run=server
}
claim unbound app.kubernetes.io/managed-by:\ sqledge-operator ""
claim bound app.kubernetes.io/managed-by:\ sqledge-operator pv-1
claim foreign app.kubernetes.io/managed-by:\ somebody ""
allowed "an own claim without a volume deleted" delete_claim operator unbound
refused "an own claim with a volume deleted" "never got a volume" delete_claim operator bound
refused "a foreign claim deleted" "claims of its own" delete_claim operator foreign
allowed "somebody else deletes a claim with a volume" delete_claim admin bound
# ------------------------------------------------------------------------------- the guard: account, role, binding, Lease
labels() { # instance
    echo "app.kubernetes.io/managed-by: sqledge-operator, app.kubernetes.io/name: sqledge, app.kubernetes.io/instance: $1, app.kubernetes.io/component: database"
}
account() { # name labels more
    printf '{apiVersion: v1, kind: ServiceAccount, metadata: {name: %s, namespace: policy-test, labels: {%s}}, %s}' "$1" "$2" "$3"
}
role() { # name labels rule
    printf '{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: %s, namespace: policy-test, labels: {%s}}, rules: [%s]}' "$1" "$2" "$3"
}
binding() { # name labels role subject
    printf '{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: %s, namespace: policy-test, labels: {%s}}, roleRef: {apiGroup: rbac.authorization.k8s.io, %s}, subjects: [%s]}' "$1" "$2" "$3" "$4"
}
lease() { # name labels spec
    printf '{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: %s, namespace: policy-test, labels: {%s}}, spec: {%s}}' "$1" "$2" "$3"
}
# as the operator does: one by server-side apply, the Lease by POST
applied() { # who manifest
    printf '%s' "$2" | "$1" apply --server-side --force-conflicts --field-manager=sqledge-operator --dry-run=server -f -
}
created() { # who manifest
    printf '%s' "$2" | "$1" create --dry-run=server -f -
}
closed='automountServiceAccountToken: false'
own='{apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [a-writer], verbs: [get, update]}'
to='kind: ServiceAccount, name: a-guard, namespace: policy-test'
for instance in a there; do
    {
        account "$instance-guard" "$(labels $instance)" "$closed"; echo; echo ---
        role "$instance-guard" "$(labels $instance)" "$(printf %s "$own" | sed "s/a-writer/$instance-writer/")"; echo; echo ---
        binding "$instance-guard" "$(labels $instance)" "kind: Role, name: $instance-guard" "{kind: ServiceAccount, name: $instance-guard, namespace: policy-test}"; echo; echo ---
        lease "$instance-writer" "$(labels $instance)" "holderIdentity: sealed"; echo
    } >"$work/$instance.yaml"
done
admin apply --server-side -f "$work/there.yaml" >/dev/null || exit 1
{
    account foreign-guard "app: other" "$closed"; echo; echo ---
    role foreign-guard "app: other" "$own"; echo; echo ---
    binding foreign-guard "app: other" "kind: Role, name: foreign-guard" "{$to}"; echo; echo ---
    lease foreign-writer "app: other" "holderIdentity: somebody"
} | admin apply --server-side -f - >/dev/null || exit 1

allowed "the account of an instance made" applied operator "$(account a-guard "$(labels a)" "$closed")"
allowed "the account of an instance applied again" applied operator "$(account there-guard "$(labels there)" "$closed")"
refused "an account without our labels made" "of its own instances" applied operator "$(account a-guard "app: other" "$closed")"
refused "an account of another name made" "of its own instances" applied operator "$(account default "$(labels a)" "$closed")"
refused "a foreign account taken over" "of its own instances" applied operator "$(account foreign-guard "$(labels foreign)" "$closed")"
refused "an account whose token is mounted everywhere" "mounted by itself" applied operator "$(account a-guard "$(labels a)" 'automountServiceAccountToken: true')"
refused "an account that says nothing about its token" "mounted by itself" applied operator "$(account a-guard "$(labels a)" 'imagePullSecrets: []')"
refused "an account with secrets" "give one secrets" applied operator "$(account a-guard "$(labels a)" "$closed, secrets: [{name: a-sa}]")"

allowed "the role of an instance made" applied operator "$(role a-guard "$(labels a)" "$own")"
allowed "the role of an instance applied again" applied operator "$(role there-guard "$(labels there)" "$(printf %s "$own" | sed 's/a-writer/there-writer/')")"
refused "a role without our labels made" "of its own instances" applied operator "$(role a-guard "app: other" "$own")"
refused "a role of another name made" "of its own instances" applied operator "$(role a-reader "$(labels a)" "$own")"
refused "a foreign role taken over" "of its own instances" applied operator "$(role foreign-guard "$(labels foreign)" "$(printf %s "$own" | sed 's/a-writer/foreign-writer/')")"
refused "a role about another Lease" "one Lease" applied operator "$(role a-guard "$(labels a)" "$(printf %s "$own" | sed 's/a-writer/b-writer/')")"
refused "a role about two Leases" "one Lease" applied operator "$(role a-guard "$(labels a)" "$(printf %s "$own" | sed 's/a-writer/a-writer, b-writer/')")"
refused "a role about every Lease" "one Lease" applied operator "$(role a-guard "$(labels a)" '{apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, update]}')"
refused "a role that patches its Lease" "one Lease" applied operator "$(role a-guard "$(labels a)" "$(printf %s "$own" | sed 's/update/patch/')")"
refused "a role with one more verb" "one Lease" applied operator "$(role a-guard "$(labels a)" "$(printf %s "$own" | sed 's/get, update/get, update, patch/')")"
refused "a role about secrets" "one Lease" applied operator "$(role a-guard "$(labels a)" '{apiGroups: [""], resources: [secrets], resourceNames: [a-writer], verbs: [get]}')"
refused "a role with a second rule" "one Lease" applied operator "$(role a-guard "$(labels a)" "$own, {apiGroups: [\"\"], resources: [pods], verbs: [list]}")"
refused "a role without a rule" "one Lease" applied operator "$(role a-guard "$(labels a)" "")"
refused "a role with a right that the operator has not" "not currently held" applied operator "$(role a-guard "$(labels a)" '{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}')"

allowed "the binding of an instance made" applied operator "$(binding there-guard "$(labels there)" 'kind: Role, name: there-guard' "$(printf '{%s}' "$to" | sed 's/a-guard/there-guard/')")"
refused "a binding without our labels made" "of its own instances" applied operator "$(binding a-guard "app: other" 'kind: Role, name: there-guard' "{$to}")"
refused "a foreign binding taken over" "of its own instances" applied operator "$(binding foreign-guard "$(labels foreign)" 'kind: Role, name: foreign-guard' '{kind: ServiceAccount, name: foreign-guard, namespace: policy-test}')"
bound() { # instance subject
    binding "$1-guard" "$(labels "$1")" "kind: Role, name: $1-guard" "$2"
}
refused "a role given to another account" "account only" applied operator "$(bound there '{kind: ServiceAccount, name: default, namespace: policy-test}')"
refused "a role given to the operator itself" "account only" applied operator "$(bound there '{kind: ServiceAccount, name: sqledge-operator, namespace: sqledge-system}')"
refused "a role given to the same name elsewhere" "account only" applied operator "$(bound there '{kind: ServiceAccount, name: there-guard, namespace: default}')"
refused "a role given to a user" "account only" applied operator "$(bound there '{kind: User, name: there-guard, apiGroup: rbac.authorization.k8s.io}')"
refused "a role given to one more account" "account only" applied operator "$(bound there '{kind: ServiceAccount, name: there-guard, namespace: policy-test}, {kind: ServiceAccount, name: default, namespace: policy-test}')"
refused "another role bound" "account only" applied operator "$(binding a-guard "$(labels a)" 'kind: Role, name: there-guard' "{$to}")"

allowed "the Lease of an instance made" created operator "$(lease a-writer "$(labels a)" "holderIdentity: sealed, leaseTransitions: 0")"
lease_patch() { # who name patch
    "$1" patch lease "$2" -n policy-test --dry-run=server --type=json -p "$3"
}
seal='[{"op":"replace","path":"/spec/holderIdentity","value":"for/x"}]'
allowed "the Lease of an instance changed" lease_patch operator there-writer "$seal"
allowed "orders on the Lease of an instance" lease_patch operator there-writer '[{"op":"add","path":"/metadata/annotations","value":{"sqledge.io/renew":"2/10/15"}}]'
refused "a Lease without our labels made" "of its own instances" created operator "$(lease a-writer "app: other" "holderIdentity: sealed")"
refused "a Lease of another name made" "of its own instances" created operator "$(lease sqledge-operator "$(labels a)" "holderIdentity: sealed")"
refused "a foreign Lease changed" "of its own instances" lease_patch operator foreign-writer "$seal"
refused "a foreign Lease labelled as its own" "of its own instances" lease_patch operator foreign-writer '[{"op":"add","path":"/metadata/labels","value":{"app.kubernetes.io/managed-by":"sqledge-operator","app.kubernetes.io/name":"sqledge","app.kubernetes.io/instance":"foreign","app.kubernetes.io/component":"database"}}]'
refused "a Lease given to another instance" "of its own instances" lease_patch operator there-writer '[{"op":"replace","path":"/metadata/labels/app.kubernetes.io~1instance","value":"a"}]'
cat <<NODELEASE | admin apply -f - >/dev/null || exit 1
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: policy-test, namespace: kube-node-lease}, spec: {holderIdentity: policy-test}}
NODELEASE
refused "a node's heartbeat forged" "of its own instances" operator patch lease policy-test -n kube-node-lease --dry-run=server --type=merge -p '{"spec":{"renewTime":"2030-01-01T00:00:00.000000Z"}}'
leader() { # verb
    printf '{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: sqledge-operator, namespace: sqledge-system}, spec: {holderIdentity: %s}}' "$1" \
        | operator create --dry-run=server -f -
}
allowed "the replicas' own Lease made" leader a
allowed "somebody else changes a foreign role" applied admin "$(role foreign-guard "app: other" '{apiGroups: [""], resources: [pods], verbs: [list]}')"

refused "a pod created" "cannot create resource" operator run policy-test -n policy-test --image=localhost/x:1 --dry-run=server
allowed "somebody else deletes a foreign pod" delete_pod admin foreign

# --------------------------------------------------------------------------------------- what no role may ever grant
no_right() { # verb resource
    answer=$(operator auth can-i "$@" -n policy-test 2>/dev/null)
    if [ "$answer" = no ]; then pass "no right: $*"; else fail "no right: $*" "can-i says '$answer'"; fi
}
no_right create pods
no_right create pods --subresource=exec
no_right deletecollection pods
no_right list secrets
no_right watch secrets
no_right delete secrets
no_right delete deployments.apps
no_right delete services
no_right patch sqledgeinstances.sqledge.io
no_right delete sqledgeinstances.sqledge.io
no_right patch nodes
no_right delete nodes
no_right delete leases.coordination.k8s.io
no_right delete serviceaccounts
no_right delete roles.rbac.authorization.k8s.io
no_right update roles.rbac.authorization.k8s.io
no_right delete rolebindings.rbac.authorization.k8s.io
no_right escalate roles.rbac.authorization.k8s.io
no_right bind roles.rbac.authorization.k8s.io
no_right create clusterroles.rbac.authorization.k8s.io
no_right create clusterrolebindings.rbac.authorization.k8s.io
no_right delete persistentvolumes
no_right patch persistentvolumes
no_right create volumeattachments.storage.k8s.io
no_right escalate clusterroles.rbac.authorization.k8s.io
no_right impersonate serviceaccounts
no_right create serviceaccounts --subresource=token

# --------------------------------------------------- the policies hold even where somebody grants the operator too much
admin create clusterrolebinding policy-test --clusterrole=cluster-admin --serviceaccount=sqledge-system:sqledge-operator >/dev/null || exit 1
deadline=$(($(date +%s) + 60))
until [ "$(operator auth can-i create pods 2>/dev/null)" = yes ] || [ "$(date +%s)" -ge "$deadline" ]; do sleep 0.2; done
refused "administrator: a pod created" "not create them" operator run policy-test -n policy-test --image=localhost/x:1 --dry-run=server
refused "administrator: a pod's status written" "subresources" operator patch pod running -n policy-test --subresource=status --dry-run=server --type=merge -p '{"status":{"phase":"Failed"}}'
refused "administrator: a command run in a pod" "subresources" operator exec running -n policy-test -- true
refused "administrator: a Node cordoned" "only the status" operator patch node policy-test --dry-run=server --type=merge -p '{"spec":{"unschedulable":true}}'
refused "administrator: a Node deleted" "only the status" operator delete node policy-test --dry-run=server
refused "administrator: a role of the whole cluster made" "whole cluster" operator create clusterrole policy-test-more --verb=get --resource=pods --dry-run=server
refused "administrator: itself made administrator" "whole cluster" operator create clusterrolebinding policy-test-more --clusterrole=cluster-admin --serviceaccount=sqledge-system:sqledge-operator --dry-run=server
refused "administrator: a role about everything" "one Lease" applied operator "$(role a-guard "$(labels a)" '{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}')"
refused "administrator: a role deleted" "not delete them" operator delete role there-guard -n policy-test --dry-run=server
refused "administrator: a binding deleted" "not delete them" operator delete rolebinding there-guard -n policy-test --dry-run=server
refused "administrator: an account deleted" "not delete them" operator delete serviceaccount there-guard -n policy-test --dry-run=server
refused "administrator: the token of an account" "not ask for their tokens" operator create token there-guard -n policy-test
refused "administrator: a Lease deleted" "not delete them" operator delete lease there-writer -n policy-test --dry-run=server

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
