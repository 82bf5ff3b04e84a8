#!/usr/bin/env bash
# A target group of three processes that no MPI started: the text is that of one rank; a rank that is killed ends the
# group, whose leader names it to the coordinator, idle or in the middle of a pass; one that hangs there does so within
# --rank-timeout-ms, or a SIGTERM ends the wait for it; the job goes on in another group. A rank that never comes is named
# too, and so is one that was started otherwise than the leader.
LIMIT=180
. "$(dirname "$0")/lib.sh"

problem=$(question 1)
start_coordinator coordinator tcp://127.0.0.1:0 --draft "$TINY_DRAFT"
rank() { # NAME R N [ARGS...]: one rank of the group whose leader has $PORT, as srun would tell it
    local name=$1 r=$2 n=$3
    shift 3
    start "$name" env SLURM_PROCID="$r" SLURM_NTASKS="$n" "$BIN/forerun-worker" --no-mpi --leader "tcp://127.0.0.1:$PORT" \
        --model "$TINY_TARGET" --connect "$EP" --role target --name target --threads 1 "$@"
}
ended() { ! alive "$1"; }

start alone "$BIN/forerun-worker" --model "$TINY_TARGET" --connect "$EP" --role target --name alone --threads 1
wait_for 30 "a target" serves target
want=$(solve --policy token "$problem" | json text)
[ -n "$want" ] || fail "no text; $(cat "$T/solve.err")"
stop alone

PORT=$(free_port)
for r in 2 0 1; do rank "rank$r" $r 3; done
wait_for 30 "a target" serves target
for policy in target token; do
    text=$(solve --policy $policy "$problem" | json text)
    [ "$text" = "$want" ] || fail "three ranks, $policy: the text differs: $text, want $want"
done
say "three ranks without MPI: same text"

kill_now rank1 # there is no job, so the leader has nothing to ask of it
wait_for 10 "the leader to end" ended rank0
wait_for 10 "the other rank to end" ended rank2
grep -q "rank 0: rank 1 is gone" "$T/rank0.log" || fail "the leader does not name the rank"
[ "$(grep -c "error:\|ends:" "$T/rank0.log")" = 1 ] || fail "the leader tells more than one reason"
grep -q "warning: ends: rank 2: .*rank 0: rank 1 is gone" "$T/rank2.log" || fail "the other rank does not tell why it ends"
code=0
wait "$(pid_of rank0)" || code=$?
[ $code = 1 ] || fail "the leader's exit code is $code"
wait_for 10 "the coordinator to hear of it" grep -q "(target) is lost .*: rank 0: rank 1 is gone" "$T/coordinator.log"
unset "SESSION[rank0]" "SESSION[rank2]"
say "a killed rank ends its group, also while it is idle, and is named"

hang_in_a_job() { # TIMEOUT_MS: ranks of a new group, of which rank 1 does not go on while there is a job
    PORT=$(free_port)
    rm -f "$T/rank0.log"
    rank rank0 0 2 --rank-timeout-ms "$1"
    rank rank1 1 2 --rank-timeout-ms "$1"
    wait_for 30 "a target" serves target
    kill -STOP "$(pid_of rank1)"
    solve --policy target "$problem" >"$T/job.log" &
    SOLVE=$!
    wait_for 30 "the group to be silent" silent
}
silent() { ! serves target; } # the leader waits in a pass, or has ended
job_goes_on() { # in another group, to the same text
    start next "$BIN/forerun-worker" --model "$TINY_TARGET" --connect "$EP" --role target --name next --threads 1
    wait $SOLVE
    text=$(json text <"$T/job.log")
    [ "$text" = "$want" ] || fail "the job of the lost group: $text, want $want"
    stop next
}

hang_in_a_job 2000
wait_for 10 "the leader to end" ended rank0
grep -q "rank 0: no word from rank 1 in 2000 ms" "$T/rank0.log" || fail "the leader does not name the rank that hangs"
unset "SESSION[rank0]"
kill_now rank1
job_goes_on
say "a rank that hangs in a pass ends its group in time, and the job goes on elsewhere"

hang_in_a_job 600000
kill_now rank1
wait_for 5 "the leader to end" ended rank0
grep -q "rank 0: rank 1 is gone" "$T/rank0.log" || fail "the leader does not name the rank that was killed"
unset "SESSION[rank0]"
job_goes_on
say "a rank that is killed in a pass ends its group at once"

hang_in_a_job 600000
kill -TERM "$(pid_of rank0)"
wait_for 5 "the leader to end" ended rank0
grep -q "rank 0: stopped while it waited for rank 1" "$T/rank0.log" || fail "the leader does not tell what it waited for"
unset "SESSION[rank0]"
kill_now rank1
job_goes_on
say "a signal ends a rank that waits for another"

ends_with() { # NAME CODE WORDS: in time, and in one line
    local code=0
    wait_for 10 "$1 to end" ended "$1"
    wait "$(pid_of "$1")" || code=$?
    [ $code = "$2" ] || fail "$1: exit code $code, want $2"
    grep -q -e "error: $3" "$T/$1.log" || fail "$1 does not say \"$3\""
    [ "$(wc -l <"$T/$1.log")" = 1 ] || fail "$1: not one line"
    unset "SESSION[$1]"
}

PORT=$(free_port)
rank leader 0 2
rank stranger 1 3
ends_with leader 2 "rank 1 was started as one of 3 ranks, rank 0 as one of 2"
ends_with stranger 2 "rank 1 was started as one of 3 ranks, rank 0 as one of 2"
say "a rank of another group is refused"

PORT=$(free_port)
rank first 1 3
rank second 1 3
rank doubled 0 3
ends_with doubled 2 "two processes came as rank 1"
wait_for 10 "one of them to end" ended first
wait_for 10 "the other to end" ended second
grep -q "two processes came as rank 1" "$T/first.log" || fail "one does not tell"
grep -q "two processes came as rank 1" "$T/second.log" || fail "the other does not tell"
unset "SESSION[first]" "SESSION[second]"
PORT=$(free_port)
for r in 0 1; do rank "whole$r" $r 2; done
wait_for 30 "a target" serves target
rank late 1 2
ends_with late 2 "a process came as rank 1 of 2, but the group of 2 is whole"
text=$(solve --policy target "$problem" | json text)
[ "$text" = "$want" ] || fail "the group that one more came to: $text, want $want"
for r in 0 1; do stop "whole$r"; done
say "a second process of one rank is refused, also where the group serves, which goes on"

differs() { # WORDS ARGS...: refused by rank 0, in one line, when rank 1 is given these
    local words=$1 r code
    shift
    PORT=$(free_port)
    rm -f "$T"/differs[01].log
    rank differs0 0 2
    rank differs1 1 2 "$@"
    for r in 0 1; do
        wait_for 30 "rank $r to end" ended "differs$r"
        code=0
        wait "$(pid_of "differs$r")" || code=$?
        [ $code = 2 ] || fail "$*: rank $r: exit code $code"
        unset "SESSION[differs$r]"
    done
    grep -q -e "error: $words" "$T/differs0.log" || fail "$*: rank 0 does not say \"$words\""
    [ "$(wc -l <"$T/differs0.log")" = 1 ] || fail "$*: not one line"
}
differs "rank 1 has a KV cache of 32 positions, rank 0 of [0-9]* (--kv-positions)" --kv-positions 32
differs "rank 1 has passes of 8 rows, rank 0 of 256 (--max-rows)" --max-rows 8
differs "rank 1 has another model (tiny-draft.gguf, .*than rank 0 (tiny-target.gguf, " --model "$TINY_DRAFT"
differs "rank 1 holds its weights as q4_0, rank 0 as file (--draft-weights)" --role draft --draft-weights q4_0
say "a rank that was started otherwise is refused"

env -u SLURM_PROCID "$BIN/forerun-worker" --leader "tcp://127.0.0.1:$PORT" --model "$TINY_TARGET" --connect "$EP" \
    2>"$T/usage.err"
[ $? = 2 ] || fail "without a rank: not exit code 2"
grep -q "neither --rank nor SLURM_PROCID" "$T/usage.err" || fail "without a rank: $(cat "$T/usage.err")"

refused() { # WANT ARGS...: at once, though no other rank is there
    local want=$1
    shift
    timeout 20 "$BIN/forerun-worker" "$@" 2>"$T/usage.err"
    [ $? = 2 ] || fail "$*: not exit code 2"
    grep -q -e "$want" "$T/usage.err" || fail "$*: $(cat "$T/usage.err")"
    [ "$(wc -l <"$T/usage.err")" = 1 ] || fail "$*: not one line: $(cat "$T/usage.err")"
}
LEADER="tcp://127.0.0.1:$PORT"
refused "--model FILE is missing" --leader "$LEADER" --rank 0 --ranks 2 --connect "$EP"
refused "--connect ENDPOINT is missing" --leader "$LEADER" --rank 1 --ranks 2 --model "$TINY_TARGET"
refused "--leader: no endpoint" --leader "" --rank 0 --ranks 2 --model "$TINY_TARGET" --connect "$EP"
refused "--rank: is of a group with --leader" --rank 0 --model "$TINY_TARGET" --connect "$EP"
refused "--ranks: is of a group with --leader" --ranks 2 --model "$TINY_TARGET" --connect "$EP"
say "a wrong command line is told at once"
