#!/usr/bin/env bash
# `forerun up` runs a cluster as configured (what it is told of GPUs goes on to the programs, which warn on CPUs) and
# restarts a group that is killed, or hangs; `forerun down` ends all of it.
LIMIT=120
. "$(dirname "$0")/lib.sh"

EP=tcp://127.0.0.1:$(free_port)
cat >"$T/cluster.ini" <<END
[cluster]
bind = $EP
run_dir = $T/run
heartbeat_ms = 200
dead_after_ms = $((600 * SLOW))

[coordinator]
draft = $TINY_DRAFT
draft_gpu = 1

[group target]
role = target
model = $TINY_TARGET
ranks = 2
threads = 1
gpus = 2,0
END
start up "$BIN/forerun" up "$T/cluster.ini"
wait_for 30 "a target" serves target
want=$(solve --policy token "$(question 4)" | json text)
[ -n "$want" ] || fail "no text; $(cat "$T/solve.err")"

workers() { leftovers | while read -r p; do
    [ "$(cat "/proc/$p/comm" 2>/dev/null)" = forerun-worker ] && echo "$p"; done; }
worker() { workers | head -n 1; }
victim=$(worker)
[ -n "$victim" ] || fail "no worker is running"
told() { # PID OPTION VALUE: on its command line
    local line
    line=$(tr '\0' ' ' <"/proc/$1/cmdline")
    grep -q -e " $2 $3 " <<<"$line" || fail "$2 $3 is not told: $line"
}
for pid in $(workers); do told "$pid" --gpus 2,0; done
told "$(leftovers | while read -r p; do
    grep -q ^forerun-coordin "/proc/$p/comm" && echo "$p"; done)" --draft-gpu 1
kill -9 "$victim"
came_back() { ! kill -0 "$victim" 2>/dev/null && serves target && [ -n "$(worker)" ]; }
wait_for 10 "the death to be seen" eval '! kill -0 $victim'
wait_for 40 "the group to come back" came_back
got=$(solve --policy token "$(question 4)" | json text)
[ "$got" = "$want" ] || fail "the text differs after the restart: $got, want $want"

victim=$(worker)
kill -STOP $(workers) # the leader among them, which tells the coordinator that it lives
wait_for 60 "the hang to be seen" eval '! kill -0 $victim'
wait_for 40 "the group to come back" came_back
grep -q "target runs, but its group has been gone" "$T/up.log" || fail "the log does not tell of the hang"
got=$(solve --policy token "$(question 4)" | json text)
[ "$got" = "$want" ] || fail "the text differs after the hang: $got, want $want"

"$BIN/forerun" down "$T/cluster.ini" || fail "down"
gone() { [ -z "$(leftovers)" ]; }
wait_for 15 "all processes to be gone" gone
