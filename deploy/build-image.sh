#!/bin/sh
# Packs compiled programs into the operator's image, without a registry, a container engine or a network.
#
#   deploy/build-image.sh BINARIES ARCHIVE [IMAGE]
#
# BINARIES  folder with the static programs `sqledge-operator` and `sqledge-guard`
# ARCHIVE   file to write: a docker archive, as `ctr images import`, `docker load` and `podman load` read it
# IMAGE     name inside the archive (default localhost/sqledge-operator:dev)
#
# The image is the one of the Dockerfile: only its compile stage is replaced by BINARIES. Needs `buildah`, and root or a
# user that may create user namespaces.
set -eu

usage() {
    sed -n 's/^# \{0,1\}//; 2,8p' "$0" >&2
    exit 64
}
[ $# -ge 2 ] && [ $# -le 3 ] || usage
binaries=$1
archive=$2
image=${3:-localhost/sqledge-operator:dev}
root=$(cd "$(dirname "$0")/.." && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# the context stands in for the compile stage, so the programs lie where that stage would have put them
mkdir -p "$work/build/out"
for program in sqledge-operator sqledge-guard; do
    if [ ! -f "$binaries/$program" ]; then
        echo "$binaries/$program is missing: build it with a static target first (see the Dockerfile)" >&2
        exit 66
    fi
    # an image without libraries cannot start a dynamic program, and says only "no such file": better to fail here
    if ldd "$binaries/$program" 2>/dev/null | grep -q '=>'; then
        echo "$binaries/$program is linked dynamically: build it with RUSTFLAGS=\"-C target-feature=+crt-static\" and an explicit --target" >&2
        exit 65
    fi
    install -m 0755 "$binaries/$program" "$work/build/out/$program"
done

# A store of its own: an image left behind by another run can neither be used by mistake nor pile up.
store="--root $work/store --runroot $work/run --storage-driver vfs"
# shellcheck disable=SC2086 # $store is a list of options
buildah $store bud --quiet --isolation chroot --timestamp 0 \
    --build-context "build=$work/build" --tag "$image" "$root" >"$work/id"
rm -f "$archive"
# shellcheck disable=SC2086
buildah $store push --quiet "$image" "docker-archive:$archive:$image"
echo "$image -> $archive ($(cat "$work/id"))"
