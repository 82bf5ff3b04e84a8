#!/usr/bin/env bash
# shared.sh BACKEND: two tensor-parallel ranks on one GPU, which no MPI started: their sums go through host memory. The text
# of policy `token` is that of `target`, greedy and at temperature 0.7. A step of tests/gpu/run; FORERUN_BIN names the programs.
LIMIT=120
. "$(dirname "$0")/../cluster/lib.sh"

backend=$1
PORT=$(free_port)
start_coordinator coordinator tcp://127.0.0.1:0 --draft "$TINY_DRAFT" --draft-backend "$backend"
for r in 0 1; do
    start rank$r "$BIN/forerun-worker" --leader "tcp://127.0.0.1:$PORT" --rank $r --ranks 2 --share-gpu \
        --backend "$backend" --model "$TINY_TARGET" --connect "$EP" --role target --name target
done
wait_for 60 "a target" serves target
for temperature in 0 0.7; do
    for n in 1 2 3; do
        want=$(solve --policy target --temperature $temperature --seed 7 "$(question $n)" | json text)
        have=$(solve --policy token --temperature $temperature --seed 7 "$(question $n)" | json text)
        [ -n "$want" ] && [ "$have" = "$want" ] ||
            fail "temperature $temperature, problem $n: the text of token is '$have', of target '$want'"
    done
done
say "two ranks: 6 texts are identical"
