#!/usr/bin/env bash
# test_worker_end.sh HANG_IN_MUNMAP: a worker that fails, while it serves or before, says why and ends, also when it
# cannot let its model go; the other ranks of its group hear why; and the line names each rank once.
set -uo pipefail
T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
trap 'rm -rf "$T"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

model=$(dirname "$0")/../../deploy/models/tiny/tiny-target.gguf
worker() { # LOG ARGS...: in the place of this shell; nobody listens where it connects to
    local log=$1
    shift
    exec timeout 40 "$FORERUN_BIN/forerun-worker" --no-mpi --backend cpu_ref --model "$model" --threads 1 \
        --connect tcp://127.0.0.1:1 --give-up-ms 300 "$@" 2>"$T/$log"
}
told() { # LOG CODE WANT WORDS: how the worker of that log ended
    [ "$2" = "$3" ] || fail "$1: exit code $2, want $3: $(cat "$T/$1")"
    grep -q -e "$4" "$T/$1" || fail "$1: it does not say \"$4\": $(cat "$T/$1")"
}
hung() { grep -q "^munmap hangs$" "$T/$1" || fail "$1: nothing hung: $(cat "$T/$1")"; }

(LD_PRELOAD=$1 worker serving)
told serving $? 3 "error: coordinator at tcp://127.0.0.1:1 was not heard from"
hung serving

# Rank 1 fails while the group's session opens.
(worker rank0 --leader "ipc://$T/opening" --ranks 2 --rank 0) &
rank0=$!
(LD_PRELOAD=$1 worker rank1 --leader "ipc://$T/opening" --ranks 2 --rank 1 --log info --kv-positions 2147483647)
told rank1 $? 2 "ends: rank 1: a KV cache of 2147483647 positions is too large"
hung rank1
wait $rank0
told rank0 $? 2 "error: a KV cache of 2147483647 positions is too large"

ends_after() { # RANK SIGNAL WORDS: rank 1 of a group that serves ends with these when that rank gets the signal
    local rank code pids=()
    for rank in 0 1; do
        worker "$2$rank" --leader "ipc://$T/$2" --ranks 2 --rank $rank --log info --give-up-ms 0 &
        pids+=($!)
    done
    for ((i = 0; i < 200; i++)); do
        grep -qs "rank 1: model loaded" "$T/${2}1" && break
        sleep 0.1
    done
    kill "-$2" "$(tr -d ' ' <"/proc/${pids[$1]}/task/${pids[$1]}/children")"
    wait "${pids[1]}"
    code=$?
    wait "${pids[0]}"
    told "${2}1" $code 1 "ends: $3"
}
ends_after 0 KILL "rank 1: rank 0 is gone$"
ends_after 1 TERM "rank 1: stopped while it waited for rank 0$"
