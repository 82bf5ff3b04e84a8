#!/usr/bin/env bash
# test_worker_end.sh HANG_IN_MUNMAP: a worker that fails while it serves says why and ends, also when it cannot let its
# model go.
set -uo pipefail
T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
trap 'rm -rf "$T"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

# Nobody listens there.
model=$(dirname "$0")/../../deploy/models/tiny/tiny-target.gguf
LD_PRELOAD=$1 timeout 40 "$FORERUN_BIN/forerun-worker" --no-mpi --backend cpu_ref --model "$model" --threads 1 \
    --connect tcp://127.0.0.1:1 --give-up-ms 300 2>"$T/log"
code=$?
[ $code = 3 ] || fail "exit code $code, want 3: $(cat "$T/log")"
grep -q "^munmap hangs$" "$T/log" || fail "nothing hung: $(cat "$T/log")"
grep -q "error: coordinator at tcp://127.0.0.1:1 was not heard from" "$T/log" ||
    fail "it does not say why: $(cat "$T/log")"
