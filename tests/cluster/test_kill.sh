#!/usr/bin/env bash
# Loss of a worker group, and of the coordinator, in the middle of many jobs: every job completes, with the same text as
# when nothing was lost. Sampled (temperature 0.7), so that a job that went wrong would show. And: Ctrl-C on `solve`
# leaves nothing behind.
LIMIT=300
. "$(dirname "$0")/lib.sh"

N=24
options=(--policy token --temperature 0.7 --max-tokens 400)
PORT=$(free_port)
PROBLEMS=("")
for ((i = 1; i <= N; i++)); do PROBLEMS+=("$(question $i)"); done
ENDPOINT=tcp://127.0.0.1:$PORT
coordinator() { start_coordinator coordinator "$ENDPOINT" --draft "$TINY_DRAFT" --store "$T/jobs.db" \
    --heartbeat-ms 200 --dead-after-ms 1000; }

submit_all() { # FILE: the ids of N jobs, one a line; all at once, so that they share the models
    local i pids=()
    for ((i = 1; i <= N; i++)); do
        "$BIN/forerun" submit --connect "$EP" "${options[@]}" --seed $i "${PROBLEMS[i]}" >"$T/id-$i" 2>>"$T/submit.log" &
        pids+=($!)
    done
    wait "${pids[@]}"
    for ((i = 1; i <= N; i++)); do cat "$T/id-$i"; done >"$1"
    [ "$(grep -c . "$1")" = $N ] || fail "submit: $(cat "$T/submit.log")"
}
texts_of() { # IDS TEXTS: waits for every job
    local id
    : >"$2"
    while read -r id; do
        "$BIN/forerun" watch --connect "$EP" --json "$id" 2>"$T/watch.err" | grep '"event": *"done"' | json text \
            >>"$2" || fail "job $id: $(cat "$T/watch.err")"
    done <"$1"
}
n_done() { "$BIN/forerun" list --connect "$EP" --json 2>/dev/null | grep -c '"state": *"done"'; }
some_done() { [ "$(n_done)" -ge $((BEFORE + 2)) ]; }
in_the_middle() { # returns when some of the jobs are done, and says so if all of them are
    wait_for 60 "the first jobs" some_done
    [ "$(n_done)" -lt $((BEFORE + N)) ] || say "all jobs were done before the kill: the machine was too fast"
}
compare() { # WHAT TEXTS
    cmp -s "$T/want" "$2" || fail "$1: texts differ: $(diff "$T/want" "$2" | head -n 4)"
    say "$1: $N texts identical"
}

say "without a loss"
coordinator
start_target one 1
start_target two 1
wait_for 30 "two targets" serves target 2
submit_all "$T/ids"
texts_of "$T/ids" "$T/want"
[ "$(sort -u "$T/want" | grep -c .)" -gt 10 ] || fail "the jobs' texts are not of many kinds"

say "a target group is killed"
BEFORE=$(n_done)
submit_all "$T/ids"
in_the_middle
kill_now one
texts_of "$T/ids" "$T/got"
compare "after the loss of a group" "$T/got"

say "the coordinator is killed and started again"
BEFORE=$(n_done)
submit_all "$T/ids"
in_the_middle
kill_now coordinator
coordinator
texts_of "$T/ids" "$T/got"
compare "after the loss of the coordinator" "$T/got"

say "all groups are killed, then one comes back"
BEFORE=$(n_done)
submit_all "$T/ids"
in_the_middle
kill_now two
start_target three 1
texts_of "$T/ids" "$T/got"
compare "after the loss of all groups" "$T/got"

stop three
stop coordinator

say "Ctrl-C on solve"
start solve "$BIN/forerun" solve --ranks 2 --policy token --max-tokens 400 --json "$(question 3)"
tokens_came() { grep -q '"event"' "$T/solve.log"; }
wait_for 30 "solve's first line" tokens_came
kill -INT "$(pid_of solve)" 2>/dev/null
gone() { [ -z "$(leftovers)" ]; }
wait_for 10 "solve's processes to be gone" gone
