#!/usr/bin/env bash
# test_golden_reference.sh: small model folders of every family and every scaling of rotations against the published
# definition (reference.py), on one rank and on two. A wrong formula, or one left out, moves log-probabilities by 0.1
# and more; rounding by 0.002.
LIMIT=120
. "$(dirname "$0")/../cluster/lib.sh"

check() { # CASE RANKS
    "$BIN/forerun" model check "$T/$1" --golden "$T/$1/golden.json" --ranks "$2" --json >"$T/out" 2>"$T/err.log" ||
        fail "exit code $?: forerun model check $1 on $2 ranks"
    say "$1, $2 ranks: $(cat "$T/out")"
    [ "$(json tokenize_equal <"$T/out")" = 1 ] || fail "$1: other token ids"
    python3 -c 'import json, sys
said = json.load(sys.stdin)
sys.exit(not (said["mean_abs_dlogprob"] <= 0.01 and said["top1"] >= 0.93))' <"$T/out" ||
        fail "$1 on $2 ranks: not what the definition says"
}

cases=$(python3 "$ROOT/tests/golden/reference.py" --list) || fail "reference.py --list"
for case in $cases; do
    python3 "$ROOT/tests/golden/reference.py" "$T/$case" "$case" || fail "reference.py $case"
    for ranks in 1 2; do
        check "$case" "$ranks"
    done
done
