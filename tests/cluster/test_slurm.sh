#!/usr/bin/env bash
# deploy/slurm on a real Slurm: the cluster as a batch job on two nodes with a client; a hanging mpirun, which is ended;
# the cluster serving a client outside, requeued in the middle of jobs: they go on from the store and end with the same
# text; then drained by SIGTERM.
LIMIT=400
. "$(dirname "$0")/lib.sh"
. "$HERE/slurm.sh"
slurm_possible || skip "Slurm is not installed"

slurm_up 3 4
export FORERUN_BIN=$BIN FORERUN_TARGET=$TINY_TARGET FORERUN_DRAFT=$TINY_DRAFT OMPI_MCA_btl=tcp,self
export OMPI_MCA_mpi_yield_when_idle=1
state_of() { squeue -h -j "$1" -o %T 2>/dev/null; }
in_state() { [ "$(state_of "$1")" = "$2" ]; }
batch() { sbatch --parsable --nodes="$1" -o "$T/batch-%j.log" "${@:2}"; }

say "reference"
N=6
options=(--policy token --temperature 0.7 --max-tokens 400)
text_of() { grep '"event": *"done"' | tail -n 1 | json text; }
for ((i = 1; i <= N; i++)); do
    "$BIN/forerun" solve --ranks 2 --json "${options[@]}" --seed $i "$(question $i)" 2>>"$T/solve.err.log" | text_of
done >"$T/want"
[ "$(grep -c . "$T/want")" = $N ] || fail "no reference"

answer=$("$BIN/forerun" solve --ranks 2 --policy token --json "$(question 1)" 2>>"$T/solve.err.log" |
    grep '"event": *"done"' | json answer)
[ -n "$answer" ] || fail "no reference answer"

for launch in srun mpirun link; do
    say "a batch job with its client, groups by $launch"
    export FORERUN_STATE=$T/state-$launch FORERUN_LAUNCH=$launch FORERUN_TARGET_RANKS=2
    id=$(batch 3 "$ROOT/deploy/slurm/forerun.sbatch" "$ROOT/deploy/slurm/client-example.sh" "$(question 1)")
    wait_for 60 "the batch job's end" eval '[ -z "$(state_of $id)" ] || in_state $id COMPLETED'
    scontrol show job "$id" | grep -q 'JobState=COMPLETED' || fail "batch job: $(scontrol show job "$id" | grep State)"
    grep -qF "answer: $answer" "$T/batch-$id.log" || fail "batch job: answer $answer is missing"
    ! grep -q "Killed\|forcing job termination" "$T/batch-$id.log" || fail "batch job: a step was killed, not drained"
done

say "an mpirun that hangs when its ranks are gone"
export FORERUN_STATE=$T/state-hung FORERUN_LAUNCH=mpirun
export FORERUN_BACKEND=cpu_ref
id=$(batch 2 "$ROOT/deploy/slurm/forerun.sbatch")
endpoint() { EP=$(head -n 1 "$FORERUN_STATE/endpoint" 2>/dev/null) && [ -n "$EP" ]; }
wait_for 30 "the endpoint" endpoint
wait_for 30 "a target" serves target
sleep 6 # until the script has seen it
target_processes() { # NAME: their pids
    local pid
    for pid in $(pgrep "$1"); do
        grep -qz "^$EP$" "/proc/$pid/cmdline" && grep -qz "^target$" "/proc/$pid/cmdline" && echo "$pid"
    done
}
for pid in $(target_processes forerun-worker); do
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- '--backend cpu_ref ' || fail "FORERUN_BACKEND is not told to rank $pid"
done
unset FORERUN_BACKEND
# shellcheck disable=SC2046
kill -STOP $(target_processes mpirun) || fail "no mpirun of the target"
# shellcheck disable=SC2046
kill -KILL $(target_processes forerun-worker) || fail "no rank of the target"
wait_for 30 "the target to be missed" eval '! serves target'
wait_for 70 "another target" serves target
grep -q "mpirun of target runs, but its group has been gone" "$T/batch-$id.log" ||
    fail "it was not ended: $(cat "$T/batch-$id.log")"
scancel --batch --signal=TERM "$id"
wait_for 30 "the drained job's end" eval '[ -z "$(state_of $id)" ] || in_state $id COMPLETED'

say "serving, requeued in the middle"
export FORERUN_STATE=$T/state-serve FORERUN_LAUNCH=srun
id=$(batch 2 "$ROOT/deploy/slurm/forerun.sbatch")
wait_for 30 "the endpoint" endpoint
EP=$(head -n 1 "$FORERUN_STATE/endpoint")
wait_for 30 "a target" serves target
for ((i = 1; i <= N; i++)); do
    "$BIN/forerun" submit --connect "$EP" --json "${options[@]}" --seed $i "$(question $i)" 2>>"$T/submit.log" | json job
done >"$T/ids"
scontrol requeue "$id" || fail "requeue"
wait_for 30 "the requeued job to leave the nodes" eval '! in_state $id RUNNING'
wait_for 60 "the job to run again" in_state "$id" RUNNING
wait_for 30 "the endpoint" endpoint
wait_for 30 "a target" serves target
while read -r job; do
    "$BIN/forerun" watch --connect "$EP" --json "$job" 2>>"$T/watch.log" | text_of
done <"$T/ids" >"$T/got"
cmp -s "$T/want" "$T/got" || fail "after a requeue the texts differ: $(diff "$T/want" "$T/got" | head -n 4)"
say "$N texts identical"

say "drained"
scancel --batch --signal=TERM "$id"
wait_for 30 "the drained job's end" eval '[ -z "$(state_of $id)" ] || in_state $id COMPLETED'
scontrol show job "$id" | grep -q 'JobState=COMPLETED' || fail "drained: $(scontrol show job "$id" | grep State)"
[ -z "$(leftovers)" ] || fail "processes are left over: $(leftovers)"
