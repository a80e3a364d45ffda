#!/usr/bin/env bash
# Runs csi-sanity against this driver: host, controller and node in network, mount and process namespaces that end with this script.
#
#   tests/storage/sanity.sh          csi-sanity is taken from the tools' folder and built there first if it is missing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" != inside ]; then
  [ "$(id -u)" = 0 ] || { echo "sanity.sh needs root: it makes namespaces and mounts" >&2; exit 1; }
  for needed in nbdfuse mkfs.ext4 e2fsck mkfs.xfs xfs_growfs unshare ip; do
    command -v "$needed" >/dev/null || { echo "sanity.sh needs $needed (Debian: libnbd-bin fuse3 e2fsprogs xfsprogs util-linux iproute2)" >&2; exit 1; }
  done
  [ -e /dev/fuse ] && [ -e /dev/loop-control ] || { echo "sanity.sh needs /dev/fuse and /dev/loop-control" >&2; exit 1; }
  tools=$("$here/../testbed/tools/build.sh" csi-sanity)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  (cd "$here" && CGO_ENABLED=0 go build -o "$work/test-storage" ./)
  cp "$tools/csi-sanity" "$work/"
  unshare --net --mount --pid --fork --kill-child --mount-proc -- "$0" inside "$work"
  exit
fi

work=$2
cd "$work"
ip link set lo up
mount -t tmpfs tmpfs /run
host=127.0.0.1:7000 driver=sanity.storage.test
./test-storage host --listen $host --data data --log storage.log 2>host.log &
./test-storage controller --driver $driver --endpoint "unix://$work/controller.sock" --host $host 2>controller.log &
./test-storage node --driver $driver --node n1 --endpoint "unix://$work/node.sock" --host $host 2>node.log &
deadline=$((SECONDS + 30))
until [ -S controller.sock ] && [ -S node.sock ] && ./test-storage ctl --host $host state 2>/dev/null | grep -q '"n1"'; do
  [ $SECONDS -lt $deadline ] || { echo "host, controller or node did not start:" >&2; tail -n 5 ./*.log >&2; exit 1; }
  sleep 0.05
done
result=0
./csi-sanity --ginkgo.no-color --csi.endpoint "unix://$work/node.sock" --csi.controllerendpoint "unix://$work/controller.sock" \
  --csi.mountdir "$work/mount" --csi.stagingdir "$work/stage" --csi.testvolumesize $((320 << 20)) --csi.testvolumeexpandsize $((640 << 20)) || result=1
[ $result = 0 ] || tail -n 40 controller.log node.log >&2
if grep -E ' (fuse|ext4) ' /proc/self/mounts | grep -F -e " $work/" -e " /run/test-storage/"; then
  echo "the driver left these mounts behind" >&2
  result=1
fi
# nobody may have written out of turn, whatever csi-sanity thinks
./test-storage check --log storage.log || result=1
exit $result
