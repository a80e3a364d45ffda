#!/usr/bin/env bash
# `make test`: every stage, cheapest first, until one fails; at the end how long each took and how many tests there were.
#
#   tests/e2e/stages.sh CLUSTER     CLUSTER=0: without what needs root and nodes
set -uo pipefail
cd "$(dirname "$0")/../.."
cluster=$1
export CLUSTER=$cluster

everywhere=(format machine lints unit standin docs programs check-generated test-control-plane policies storage)
nodes=(sanity testbed-itself e2e)
stages=("${everywhere[@]}")
[ "$cluster" = 0 ] || stages+=("${nodes[@]}")

logs=target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
summary=()
result=0
for stage in "${stages[@]}"; do
  echo
  echo "==== $stage"
  began=$SECONDS
  make --no-print-directory "$stage" CLUSTER="$cluster" 2>&1 </dev/null | tee "$logs/$stage.log"
  status=${PIPESTATUS[0]}
  took=$((SECONDS - began))
  if [ "$status" -eq 0 ]; then
    summary+=("$(printf '%-20s ok      %5d s' "$stage" "$took")")
  else
    summary+=("$(printf '%-20s FAILED  %5d s   %s' "$stage" "$took" "$logs/$stage.log")")
    result=1
    break
  fi
done

# cargo's lines, those of our own scripts and of csi-sanity count single tests; `go test` one line for each package
counted=$(cat "$logs"/*.log | sed 's/\x1b\[[0-9;]*m//g' | awk '
  /^test result:/          { passed += $4; failed += $6 }
  /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
  /^ok  *\t/               { passed += 1 }
  /^FAIL\t/                { failed += 1 }
  / Passed \| .* Failed/   { for (i = 2; i <= NF; i++) { if ($i == "Passed") passed += $(i - 1); if ($i == "Failed") failed += $(i - 1) } }
  END { print passed + 0, failed + 0 }')
read -r passed failed <<<"$counted"
[ $result -eq 0 ] || [ "$failed" -gt 0 ] || failed=1

echo
echo "==== summary"
printf '%s\n' "${summary[@]}"
if [ "$cluster" = 0 ]; then
  echo
  echo "!!!! LEFT OUT, because of CLUSTER=0: ${nodes[*]}, and the tests of storage on a node."
  echo "!!!! Nothing above shows that a failover works. Run \`make test\` as root on a machine that can make nodes."
fi
echo "$SECONDS s in all"
echo "$passed passed, $failed failed"
exit $result
