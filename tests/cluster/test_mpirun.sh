#!/usr/bin/env bash
# The three ways to start a cluster on one machine, at 1, 2 and 4 target ranks: coordinator and workers under one mpirun,
# groups started apart, and `solve`'s private cluster. The text must be the same whichever way.
LIMIT=240
. "$(dirname "$0")/lib.sh"

problem=$(question 1)
want=
check_text() { # HOW TEXT
    [ -n "$2" ] || fail "$1: no text; $(cat "$T/solve.err" 2>/dev/null)"
    [ -n "$want" ] || want=$2
    [ "$2" = "$want" ] || fail "$1: the text differs: $2, want $want"
    say "$1: same text"
}

for ranks in 1 2 4; do
    rm -f "$T/ready"
    start whole "${MPIRUN[@]}" \
        -np 1 "$BIN/forerun-coordinator" --bind tcp://127.0.0.1:0 --draft "$TINY_DRAFT" --ready-file "$T/ready" : \
        -np $ranks "$BIN/forerun-worker" --model "$TINY_TARGET" --role target --name target --threads 1
    wait_for 30 "the ready file" test -s "$T/ready"
    EP=$(head -n 1 "$T/ready")
    wait_for 30 "a target" serves target
    for policy in target token; do
        check_text "one mpirun, $ranks ranks, $policy" "$(solve --policy $policy "$problem" | json text)"
    done
    stop whole
    [ -z "$(leftovers)" ] || fail "processes are left over after mpirun ended: $(leftovers)"
done

start_coordinator coordinator tcp://127.0.0.1:0
start_target target 2
start draft "$BIN/forerun-worker" --model "$TINY_DRAFT" --connect "$EP" --role draft --name draft --threads 1
wait_for 30 "a target" serves target
wait_for 30 "a draft" serves draft
check_text "started apart" "$(solve --policy token "$problem" | json text)"
result=$(solve --policy step "$problem")
[ -n "$(echo "$result" | json answer)" ] || fail "policy step: no answer; $result"

check_text "private cluster" "$("$BIN/forerun" solve --ranks 2 --policy token --json "$problem" 2>"$T/solve.err" |
    grep '"event": *"done"' | tail -n 1 | json text)"
