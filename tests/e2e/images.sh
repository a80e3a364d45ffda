#!/usr/bin/env bash
# Packs what was compiled into the images that the cluster runs, and only what has changed since the last time.
#
#   tests/e2e/images.sh PROGRAMS ARCHIVES
#
# PROGRAMS  folder with the static programs of this workspace
# ARCHIVES  folder for the archives: operator.tar (of the Dockerfile), operator-next.tar (the same under another name, as a new version
#           would have), standin.tar
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
programs=$1
mkdir -p "$2"
archives=$(cd "$2" && pwd)
exec 9>"$archives/.lock"
flock 9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for program in sqledge-operator sqledge-guard sqledge-standin; do
  # symbols make an image ten times as large, and it goes to three nodes
  strip -o "$work/$program" "$programs/$program"
done

# changed ARCHIVE FILE...: whether the archive must be made anew
changed() {
  local archive=$1
  shift
  key=$(cat "$@" "$here/images.sh" | sha256sum | cut -c1-32)
  [ ! -e "$archives/$archive" ] || [ "$(cat "$archives/$archive.key" 2>/dev/null)" != "$key" ]
}
done_with() { echo "$key" >"$archives/$1.key"; }

operator=("$work/sqledge-operator" "$work/sqledge-guard" "$here/../../Dockerfile" "$here/../../deploy/build-image.sh")
if changed operator.tar "${operator[@]}"; then
  "$here/../../deploy/build-image.sh" "$work" "$archives/operator.tar" localhost/sqledge-operator:dev
  done_with operator.tar
fi
if changed operator-next.tar "${operator[@]}"; then
  "$here/../../deploy/build-image.sh" "$work" "$archives/operator-next.tar" localhost/sqledge-operator:next
  done_with operator-next.tar
fi
if changed standin.tar "$work/sqledge-standin"; then
  "$programs/testbed" images build --reference localhost/sqledge-standin:dev --user 10001 \
    --program "$work/sqledge-standin:/opt/mssql/bin/sqlservr" --folder /var/opt/mssql:10001:770 \
    --entrypoint /opt/mssql/bin/sqlservr --output "$archives/standin.tar"
  echo "localhost/sqledge-standin:dev -> $archives/standin.tar"
  done_with standin.tar
fi
