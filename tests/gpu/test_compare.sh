#!/usr/bin/env bash
# tests/gpu/compare: what it says of programs that were built, which are stand-ins here; and of none.
set -euo pipefail
here=$(dirname "$0")
T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
trap 'rm -rf "$T"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
export PYTHONDONTWRITEBYTECODE=1
code_of() { code=0; "$here/compare" "$@" >"$T/log" 2>&1 || code=$?; }

# Of three runs each: 10, 30, 20 us, and 5, 15, 10; asked for one operation.
stand_in() { # NAME COMMANDS
    mkdir -p "$T/dir/$1"
    printf '#!/bin/sh\n%s\n' "$2" >"$T/dir/$1/bench_ops"
    chmod +x "$T/dir/$1/bench_ops"
}
turn='echo "$0 $*" >>"$0.runs"; n=$(wc -l <"$0.runs")'
line='echo "{\"shape\":\"8b\",\"op\":\"down\",\"rows\":1,\"us\":$1,\"gb_s\":1}"'
stand_in old "$turn; set -- 10 30 20; shift \$((n - 1)); $line"
stand_in new "$turn; set -- 5 15 10; shift \$((n - 1)); $line"
echo '["old", "new"]' >"$T/dir/order.json"
code_of run "$T/dir" --what down --out "$T/out.json"
[ $code = 0 ] || fail "exit code $code: $(cat "$T/log")"
grep -Eq '^8b down 1 +20\.00 +0\.500$' "$T/log" || fail "$(cat "$T/log")"
[ "$(cut -d ' ' -f 2- <"$T/dir/new/bench_ops.runs" | sort -u)" = "cuda down" ] || fail "asked: $(cat "$T/dir/new/bench_ops.runs")"
python3 -c 'import json, sys
row, = json.load(open(sys.argv[1]))["operations"]
assert row == {"shape": "8b", "op": "down", "rows": 1, "us": 20, "ratios": {"new": 0.5}}, row' "$T/out.json"

stand_in new 'echo "bench_ops: GPU: a pass: illegal address" >&2; exit 1'
rm "$T/dir/old/bench_ops.runs"
code_of run "$T/dir"
[ $code = 1 ] && grep -q "compare: new: exit code 1: bench_ops: GPU: a pass: illegal address" "$T/log" || fail "$code: $(cat "$T/log")"
stand_in old 'exit 77'
code_of run "$T/dir"
[ $code = 77 ] && grep -q "compare: there is no GPU" "$T/log" || fail "$code: $(cat "$T/log")"
code_of build "$T/dir" main
[ $code = 2 ] && grep -q "main: not NAME=REVISION" "$T/log" || fail "$code: $(cat "$T/log")"
if git -C "$here" rev-parse --git-dir >"$T/log" 2>&1; then
    code_of build "$T/dir" one=no-such-revision --nvcc /bin/sh
    [ $code = 2 ] && grep -q "no-such-revision" "$T/log" || fail "$code: $(cat "$T/log")"
fi
code_of build "$T/dir" a=HEAD --nvcc "$T/nvcc"
[ $code = 2 ] && grep -q "compare: $T/nvcc: there is no such program" "$T/log" || fail "$code: $(cat "$T/log")"
code_of build "$T/dir" a=HEAD a=HEAD --nvcc /bin/sh
[ $code = 2 ] && grep -q "compare: a name is there twice" "$T/log" || fail "$code: $(cat "$T/log")"
code_of run "$T/dir" --rounds 0
[ $code = 2 ] || fail "--rounds 0: $code: $(cat "$T/log")"
code_of run "$T/none"
[ $code = 2 ] && grep -q "compare: $T/none: nothing was built there" "$T/log" || fail "$code: $(cat "$T/log")"
