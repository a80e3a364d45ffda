#!/bin/sh
# What administrators add to the vendor's manifests: a pod that cannot leave a node that is not Ready is deleted by force.
#
#   force-delete.sh KUBECTL SELECTOR     runs until it is killed
#
# Nothing here knows whether such a pod still writes.
kubectl=$1
selector=$2
while true; do
  ready=$("$kubectl" get nodes --output='jsonpath={range .items[?(@.status.conditions[-1:].status=="True")]}{.metadata.name}{"\n"}{end}')
  "$kubectl" get pods --all-namespaces --selector "$selector" \
    --output='jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.metadata.namespace} {.metadata.name} {.spec.nodeName}{"\n"}{end}' |
    while read -r namespace pod node; do
      if [ -n "$node" ] && ! echo "$ready" | grep -qx "$node"; then
        "$kubectl" delete pod "$pod" --namespace "$namespace" --force --grace-period=0
      fi
    done
  sleep 1
done
