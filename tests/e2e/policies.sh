#!/usr/bin/env bash
# Runs deploy/test-policies.sh against an etcd and an API server of its own: no root, no nodes, nothing left behind.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${SQLEDGE_CACHE:-$HOME/.cache/sqledge}/tools/bin
work=$(mktemp -d)
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

# ports that nobody listens on right now; taken again at once, so that a second run beside this one finds others
read -r client peer secure < <(python3 - <<'PY'
import socket
held = [socket.socket() for _ in range(3)]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
)
cd "$work"
openssl genrsa -out accounts.key 2048 2>/dev/null
token=$(openssl rand -hex 16)
(umask 077; echo "$token,admin,admin,system:masters" >tokens.csv)
"$bin/etcd" --data-dir data --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --unsafe-no-fsync --log-level warn >etcd.log 2>&1 &
pids+=($!)
# the advertised address is one of those reserved for documentation: nothing is sent there, it only stands in an Endpoints object
"$bin/kube-apiserver" --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --advertise-address 192.0.2.1 \
  --secure-port "$secure" --cert-dir certs --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file accounts.key --service-account-signing-key-file accounts.key --token-auth-file tokens.csv \
  --authorization-mode RBAC,Node --service-cluster-ip-range 10.250.0.0/16 >api.log 2>&1 &
pids+=($!)
(umask 077; cat >kubeconfig <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: bare, cluster: {server: "https://127.0.0.1:$secure", certificate-authority: "$work/certs/apiserver.crt"}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: bare, context: {cluster: bare, user: admin}}]
current-context: bare
CONFIG
)
export KUBECONFIG=$work/kubeconfig
deadline=$((SECONDS + 120))
until "$bin/kubectl" get --raw /readyz >/dev/null 2>&1; do
  [ $SECONDS -lt $deadline ] || { echo "the API server is not ready after 120 s:" >&2; tail -n 5 etcd.log api.log >&2; exit 1; }
  sleep 0.2
done
"$bin/kubectl" apply --server-side --filename "$root/deploy/install.yaml" >/dev/null
"$root/deploy/test-policies.sh" "$bin/kubectl"
