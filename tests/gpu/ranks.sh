#!/usr/bin/env bash
# ranks.sh BACKEND [OPTIONS]: two tensor-parallel ranks, which no MPI started, with a GPU each, so that their sums go
# over NCCL, or (--share-gpu --gpus 0) with one between them, and then through host memory. The text of policy `token`
# is that of `target`, greedy and at temperature 0.7. Prints a digest of the texts: sums are the same to the bit either
# way, and so are they. Two steps of tests/gpu/run; FORERUN_BIN names the programs.
LIMIT=120
. "$(dirname "$0")/../cluster/lib.sh"

backend=$1
PORT=$(free_port)
start_coordinator coordinator tcp://127.0.0.1:0 --draft "$TINY_DRAFT" --draft-backend "$backend"
for r in 0 1; do
    start rank$r "$BIN/forerun-worker" --leader "tcp://127.0.0.1:$PORT" --rank $r --ranks 2 "${@:2}" \
        --backend "$backend" --model "$TINY_TARGET" --connect "$EP" --role target --name target
done
wait_for 60 "a target" serves target
for temperature in 0 0.7; do
    for n in 1 2 3; do
        want=$(solve --policy target --temperature $temperature --seed 7 "$(question $n)" | json text)
        have=$(solve --policy token --temperature $temperature --seed 7 "$(question $n)" | json text)
        [ -n "$want" ] && [ "$have" = "$want" ] ||
            fail "temperature $temperature, problem $n: the text of token is '$have', of target '$want'"
        echo "$want" >>"$T/texts"
    done
done
say "two ranks: 6 texts are identical"
echo "texts $(sha256sum "$T/texts" | cut -c 1-16)"
