#!/usr/bin/env bash
# Builds the programs that the test cluster consists of, each once, outside the checkout.
#
#   tests/testbed/tools/build.sh [NAME...]     build the named modules (default: all), print their folders
#
# A module is a folder beside this script with a go.mod whose `tool` lines list the programs. Its output
# lands in $SQLEDGE_CACHE/tools/NAME-KEY/, KEY being made from go.mod, go.sum, the Go version and the flags, so that a
# second run, or another checkout with the same sums, builds nothing. `$SQLEDGE_CACHE/tools/bin` links to the
# programs of the last run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${SQLEDGE_CACHE:-$HOME/.cache/sqledge}/tools
kubernetes_version=$(sed -n 's|^replace k8s.io/api => k8s.io/api v0\.\(.*\)$|1.\1|p' "$here/kubernetes/go.mod")
minor=${kubernetes_version#1.}; minor=${minor%%.*}
component=k8s.io/component-base/version
ldflags="-s -w -X $component.gitVersion=v$kubernetes_version -X $component.gitMajor=1 -X $component.gitMinor=$minor -X $component.gitTreeState=clean"
export CGO_ENABLED=0
mkdir -p "$cache/bin"

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(etcd kubernetes attacher provisioner resizer metallb helm csi-sanity)
count=0
for name in "${names[@]}"; do
  count=$((count + 1))
  module=$here/$name
  key=$({ cat "$module/go.mod" "$module/go.sum"; go version; echo "$ldflags"; } | sha256sum | cut -c1-16)
  out=$cache/$name-$key
  exec 9>"$cache/.lock-$name"
  flock 9   # two testbeds may ask for the same module at once
  if [ ! -e "$out/.complete" ]; then
    echo "[$count/${#names[@]}] building $name (once; kept in $out)" >&2
    began=$SECONDS
    rm -rf "$out"; mkdir -p "$out"
    tools=$(cd "$module" && go list -f '{{.ImportPath}}' tool)
    total=$(wc -w <<<"$tools"); n=0
    for tool in $tools; do
      n=$((n + 1))
      base=$(basename "$tool")
      # etcd's main package is the module itself and would be called v3
      [ "$name" = etcd ] && base=etcd
      # the bare words `controller` and `speaker` say nothing once they stand in one bin folder
      [ "$name" = metallb ] && base=metallb-$base
      echo "    $n/$total $base" >&2
      (cd "$module" && go build -buildvcs=false -trimpath -ldflags "$ldflags" -o "$out/$base" "$tool")
    done
    touch "$out/.complete"
    echo "    done in $((SECONDS - began)) s" >&2
  fi
  exec 9>&-
  for program in "$out"/*; do ln -sfn "$program" "$cache/bin/$(basename "$program")"; done
  echo "$out"
done
