#!/usr/bin/env bash
# Programs with the GPU backend on a machine without a GPU: they start, a group computes on the CPU and says so once, and
# being told to use the GPU is one clear error.
LIMIT=120
. "$(dirname "$0")/../cluster/lib.sh"

[ ! -e /dev/nvidia0 ] || skip "this machine has a GPU"
for program in forerun forerun-coordinator forerun-worker; do
    "$BIN/$program" --help >/dev/null || fail "$program --help: exit code $?"
done
code=0
"$BIN/forerun" model perf "$TINY_DRAFT" --backend none 2>"$T/backends" || code=$?
grep -q "there are.*cuda" "$T/backends" || fail "the backend cuda is not built in: $(cat "$T/backends")"

start_coordinator coordinator tcp://127.0.0.1:0
start target "$BIN/forerun-worker" --model "$TINY_TARGET" --connect "$EP" --threads 1 --log info
wait_for 30 "a target" serves target
result=$(solve --policy target "$(question 1)")
[ -n "$(echo "$result" | json text)" ] || fail "no text: $result"
[ "$(grep -c "no GPU" "$T/target.log")" = 1 ] || fail "the worker does not say once that there is no GPU"
stop target
stop coordinator

code=0
"$BIN/forerun" model perf "$TINY_DRAFT" --backend cuda 2>"$T/cuda.log" || code=$?
[ $code = 2 ] && [ "$(wc -l <"$T/cuda.log")" = 1 ] && grep -q "no GPU" "$T/cuda.log" ||
    fail "--backend cuda: exit code $code: $(cat "$T/cuda.log")"
