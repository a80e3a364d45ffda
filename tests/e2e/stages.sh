#!/usr/bin/env bash
# `make test`: every stage, cheapest first, until one fails; at the end how long each took and how many tests there were. One of them mostly
# waits (for nodes to be called NotReady); it runs beside those that mostly compute, and its words come when they are done.
#
#   tests/e2e/stages.sh CLUSTER     CLUSTER=0: without what needs root and nodes
set -uo pipefail
cd "$(dirname "$0")/../.."
cluster=$1
export CLUSTER=$cluster

everywhere=(format machine lints unit standin docs programs check-generated test-control-plane policies storage)
nodes=(sanity testbed-itself e2e soak-short)
beside=testbed-itself
stages=("${everywhere[@]}")
[ "$cluster" = 0 ] || stages+=("${nodes[@]}")

logs=target/test-logs
rm -rf "$logs"
mkdir -p "$logs"
summary=()
result=0
run() { make --no-print-directory "$1" CLUSTER="$cluster" 2>&1 </dev/null; }

# done_with STAGE STATUS SECONDS
done_with() {
  if [ "$2" -eq 0 ]; then
    summary+=("$(printf '%-20s ok      %5d s' "$1" "$3")")
  else
    summary+=("$(printf '%-20s FAILED  %5d s   %s' "$1" "$3" "$logs/$1.log")")
    result=1
  fi
}

# in a process group of its own, so that it can be ended as a whole; it leaves its time behind
begin_beside() {
  set -m
  (
    began=$SECONDS
    run "$beside" >"$logs/$beside.log"
    status=$?
    echo $((SECONDS - began)) >"$logs/$beside.seconds"
    exit $status
  ) &
  beside_pid=$!
  set +m
  trap 'kill -TERM -- "-$beside_pid"; exit 130' INT TERM
}
end_beside() {
  [ -n "${beside_pid:-}" ] || return 0
  wait "$beside_pid"
  status=$?
  beside_pid=
  trap - INT TERM
  printf '\n==== %s (beside the stages above)\n' "$beside"
  cat "$logs/$beside.log"
  done_with "$beside" "$status" "$(cat "$logs/$beside.seconds")"
}

for stage in "${stages[@]}"; do
  if [ "$stage" = "$beside" ]; then
    end_beside
  else
    [ "$stage" != test-control-plane ] || [ "$cluster" = 0 ] || begin_beside
    printf '\n==== %s\n' "$stage"
    began=$SECONDS
    run "$stage" | tee "$logs/$stage.log"
    done_with "$stage" "${PIPESTATUS[0]}" $((SECONDS - began))
  fi
  [ $result -eq 0 ] || break
done
# it takes its testbed down by itself
end_beside

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
