#!/usr/bin/env bash
# An idle cluster leaves the CPU alone: coordinator, draft and a target of two ranks, each process below 1% of a core
# over three seconds, mpirun included; before the first job and after one.
LIMIT=90
. "$(dirname "$0")/lib.sh"

ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat"; } # user + system time of a process
check_idle() { # WHEN
    local pids pid before=() after share i=0 hertz
    hertz=$(getconf CLK_TCK)
    pids="$(pid_of coordinator) $(family "$(pid_of target)")"
    sleep 1 # what is under way ends
    for pid in $pids; do before+=("$(ticks "$pid")"); done
    sleep 3
    for pid in $pids; do
        after=$(ticks "$pid")
        share=$(((after - before[i]) * 1000 / (3 * hertz))) # per mille
        say "$1: $(cat "/proc/$pid/comm") $((share / 10)).$((share % 10))%"
        [ $share -lt 10 ] || fail "$1: $(cat "/proc/$pid/comm") uses $((share / 10)).$((share % 10))% of a core"
        i=$((i + 1))
    done
}

start_coordinator coordinator tcp://127.0.0.1:0 --draft "$TINY_DRAFT"
start_target target 2
wait_for 30 "a target" serves target
check_idle "before a job"
[ -n "$(solve --policy token "$(question 2)" | json text)" ] || fail "no text; $(cat "$T/solve.err")"
check_idle "after a job"
