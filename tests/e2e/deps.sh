#!/usr/bin/env bash
# Installs what the demo and the tests need and this machine lacks: Debian packages, and only as root.
#
#   tests/e2e/deps.sh CLUSTER     CLUSTER=0: without what only nodes need
set -euo pipefail

# a file or program each package brings, so that a machine that has it from elsewhere is left alone
everywhere='gcc:gcc ld:binutils make:make git:git /etc/ssl/certs/ca-certificates.crt:ca-certificates cmake:cmake
  /usr/include/stdlib.h:libc6-dev openssl:openssl nsenter:util-linux flock:util-linux curl:curl'
nodes='ip:iproute2 nft:nftables conntrack:conntrack iptables:iptables mount:mount losetup:mount containerd:containerd runc:runc socat:socat
  nbdkit:nbdkit nbdfuse:libnbd-bin fusermount3:fuse3 mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs busybox:busybox-static modprobe:kmod
  /usr/lib/cni/bridge:containernetworking-plugins buildah:buildah'
PATH=$PATH:/usr/sbin:/sbin

for program in cargo go; do
  command -v $program >/dev/null || { echo "$program is missing: install it from its makers (Rust 1.89 or newer, Go 1.26 or newer)" >&2; exit 1; }
done

wanted=$everywhere
[ "$1" = 0 ] || wanted="$wanted $nodes"
missing=
for pair in $wanted; do
  thing=${pair%%:*} package=${pair#*:}
  case $thing in
    /*) [ -e "$thing" ] || missing="$missing $package" ;;
    *) command -v "$thing" >/dev/null || missing="$missing $package" ;;
  esac
done
# an interpreter alone is not enough: Debian ships what `python3 -m venv` needs apart from it
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
[ -n "$missing" ] || exit 0
missing=$(tr ' ' '\n' <<<"$missing" | sort -u | xargs)
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "these Debian packages, or what they bring, are missing; install them as root:" >&2
  echo "  apt-get install --no-install-recommends $missing" >&2
  exit 1
fi
echo "installing: $missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
