#!/usr/bin/env bash
# Builds the test storage (tests/storage), which changes with the checkout and is therefore built each time; Go's own
# cache makes that a second. The result is replaced only when it differs, so that images made of it stay valid.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${SQLEDGE_CACHE:-$HOME/.cache/sqledge}/tools/test-storage
mkdir -p "$out" "$out/../bin"
exec 9>"$out/.lock"
flock 9
(cd "$here/../../storage" && CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$out/test-storage.new" .)
if cmp -s "$out/test-storage.new" "$out/test-storage"; then
  rm "$out/test-storage.new"
else
  mv "$out/test-storage.new" "$out/test-storage"
fi
ln -sfn "$out/test-storage" "$out/../bin/test-storage"
