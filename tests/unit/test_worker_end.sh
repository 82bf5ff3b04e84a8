#!/usr/bin/env bash
# test_worker_end.sh HANG_IN_MUNMAP: a worker that fails, while it serves or before, says why and ends, also when it
# cannot let its model go; and the other ranks of its group hear why.
set -uo pipefail
T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
trap 'rm -rf "$T"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

model=$(dirname "$0")/../../deploy/models/tiny/tiny-target.gguf
worker() { # LOG ARGS...: nobody listens where it connects to
    local log=$1
    shift
    timeout 40 "$FORERUN_BIN/forerun-worker" --no-mpi --backend cpu_ref --model "$model" --threads 1 \
        --connect tcp://127.0.0.1:1 --give-up-ms 300 "$@" 2>"$T/$log"
}
told() { # LOG CODE WANT WORDS: how the worker of that log ended
    [ "$2" = "$3" ] || fail "$1: exit code $2, want $3: $(cat "$T/$1")"
    grep -q -e "$4" "$T/$1" || fail "$1: it does not say \"$4\": $(cat "$T/$1")"
}
hung() { grep -q "^munmap hangs$" "$T/$1" || fail "$1: nothing hung: $(cat "$T/$1")"; }

LD_PRELOAD=$1 worker serving
told serving $? 3 "error: coordinator at tcp://127.0.0.1:1 was not heard from"
hung serving

# Rank 1 fails while the group's session opens.
group=(--leader "ipc://$T/leader" --ranks 2)
LD_PRELOAD=$1 worker rank1 "${group[@]}" --rank 1 --log info --kv-positions 2147483647 &
rank1=$!
worker rank0 "${group[@]}" --rank 0
told rank0 $? 2 "error: a KV cache of 2147483647 positions is too large"
wait $rank1
told rank1 $? 2 "ends: rank 1: a KV cache of 2147483647 positions is too large"
hung rank1
