#!/usr/bin/env bash
# Programs with the GPU backend on a machine without a GPU: they start, a group computes on the CPU and says so once,
# whatever the number of its ranks, as it does of what only a GPU has a use for; and being told to use the GPU is one
# clear error.
LIMIT=120
. "$(dirname "$0")/../cluster/lib.sh"

[ ! -e /dev/nvidia0 ] || skip "this machine has a GPU"
for program in forerun forerun-coordinator forerun-worker; do
    "$BIN/$program" --help >/dev/null || fail "$program --help: exit code $?"
done
code=0
"$BIN/forerun" model perf "$TINY_DRAFT" --backend none 2>"$T/backends" || code=$?
grep -q "there are.*cuda" "$T/backends" || fail "the backend cuda is not built in: $(cat "$T/backends")"

NO_GPU="warning: computing on the CPU: this machine cannot run backend cuda: it has no GPU, or no driver for one"
told() { # TIMES WORDS FILES...: all of them together tell it so often
    local want=$1 words=$2
    shift 2
    [ "$(cat "$@" | grep -c -e "$words")" = "$want" ] || fail "\"$words\" is not told $want times: $(cat "$@")"
}
rank() { # R ARGS...: of two without MPI
    start "rank$1" "$BIN/forerun-worker" --leader "tcp://127.0.0.1:$PORT" --rank "$1" --ranks 2 --model "$TINY_TARGET" \
        --connect "$EP" --threads 1 "${@:2}"
}

start_coordinator coordinator tcp://127.0.0.1:0
start target "$BIN/forerun-worker" --model "$TINY_TARGET" --connect "$EP" --threads 1
wait_for 30 "a target" serves target
result=$(solve --policy target "$(question 1)")
[ -n "$(echo "$result" | json text)" ] || fail "no text: $result"
told 1 "$NO_GPU" "$T/target.log"
stop target

PORT=$(free_port)
for r in 0 1; do rank $r --log info --gpus 0,1 --share-gpu --batch-invariant off; done
wait_for 30 "a target" serves target
told 1 "no GPU" "$T"/rank[01].log
for choice in "a choice of GPUs" --share-gpu "--batch-invariant off"; do
    told 1 "warning: computing on the CPU: $choice means nothing there" "$T"/rank[01].log
done
stop rank0
stop rank1

rm "$T"/rank[01].log
PORT=$(free_port)
for r in 0 1; do rank $r --backend cpu_ref; done
wait_for 30 "a target" serves target
told 0 "computing on the CPU" "$T"/rank[01].log # as it was asked to
stop rank0
stop rank1
stop coordinator

"$BIN/forerun" solve --policy target "$(question 1)" >/dev/null 2>"$T/solve.err" || fail "solve: exit code $?"
told 1 "forerun: $NO_GPU" "$T/solve.err"
"$BIN/forerun" model perf "$TINY_TARGET" --draft "$TINY_DRAFT" --runs 1 --context 64 >/dev/null 2>"$T/perf.err" ||
    fail "model perf: exit code $?"
told 1 "forerun: $NO_GPU" "$T/perf.err"

code=0
"$BIN/forerun" model perf "$TINY_DRAFT" --backend cuda 2>"$T/cuda.log" || code=$?
[ $code = 2 ] && [ "$(wc -l <"$T/cuda.log")" = 1 ] && grep -q "no GPU" "$T/cuda.log" ||
    fail "--backend cuda: exit code $code: $(cat "$T/cuda.log")"
