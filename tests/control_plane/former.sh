#!/usr/bin/env bash
# Builds the operator of the commit in former.commit, once: SQLEDGE_CACHE/former/COMMIT/sqledge-operator.
#
# The tests upgrade from it to the operator of this checkout. A later commit is chosen when a version is released.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
commit=$(cat "$here/former.commit")
folder=${SQLEDGE_CACHE:-$HOME/.cache/sqledge}/former/$commit
mkdir -p "$folder"
exec 9>"$folder/.lock"
flock 9
[ ! -x "$folder/sqledge-operator" ] || exit 0

git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null || {
  echo "commit $commit, whose operator the tests upgrade from, is not in this clone; fetch its history (git fetch --unshallow)" >&2
  exit 1
}
echo "building the operator of commit $commit, once"
source=$folder/source
rm -rf "$source"
mkdir "$source"
git -C "$root" archive "$commit" | tar -x -C "$source"
target=$(uname -m)-unknown-linux-gnu
# as the Makefile has it, so that the dependencies are the same
export RUSTFLAGS=${RUSTFLAGS--C target-feature=+crt-static}
results=${CARGO_TARGET_DIR:-$source/target}
# With another profile for this one crate its results stand beside those of the checkout, and the dependencies are shared; always the whole
# workspace: with fewer packages cargo would choose other features.
(cd "$source" && CARGO_TARGET_DIR=$results cargo build --quiet --locked --target "$target" --workspace --bin sqledge-operator \
  --config 'profile.dev.package.sqledge-operator.debug=0')
cp "$results/$target/debug/sqledge-operator" "$folder/sqledge-operator.new"
mv "$folder/sqledge-operator.new" "$folder/sqledge-operator"
rm -rf "$source"
