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

stop target
stop draft

# On a machine said to be two NUMA nodes of a core each, the ranks are bound to theirs, unless they are told not to be.
placed() { # NAME OPTIONS...: how many ranks of the target say where they are bound, with these options
    local name=$1
    shift
    start "$name" "${MPIRUN[@]}" -x HWLOC_SYNTHETIC="numa:2 core:1 pu:1" -np 2 "$BIN/forerun-worker" \
        --model "$TINY_TARGET" --connect "$EP" --role target --name "$name" --threads 1 --log info "$@"
    wait_for 30 "a target" serves target
    check_text "target $name" "$(solve --policy target "$problem" | json text)"
    stop "$name"
    n_placed=$(grep -cE "rank ([01]) of 2 here: 1 thread on CPU \1 of NUMA node \1$" "$T/$name.log")
}
if taskset -c 0,1 true 2>/dev/null; then
    placed auto
    [ "$n_placed" = 2 ] || fail "placement auto: $n_placed ranks are bound, want 2"
    placed off --placement off
    [ "$n_placed" = 0 ] || fail "placement off: $n_placed ranks are bound"
    say "ranks are bound as they are told to be"
fi

check_text "private cluster" "$("$BIN/forerun" solve --ranks 2 --policy token --json "$problem" 2>"$T/solve.err" |
    grep '"event": *"done"' | tail -n 1 | json text)"
