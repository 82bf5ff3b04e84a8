#!/usr/bin/env bash
# The client: help, private clusters, streams, jobs of a running cluster, benchmarks, models; and that nothing is left
# behind when it is interrupted or killed.
LIMIT=240
. "$(dirname "$0")/lib.sh"

F=$BIN/forerun
gone() { [ -z "$(leftovers)" ]; }
all_gone() { wait_for 20 "all processes to be gone" gone; }
code() { # WANT COMMAND...: runs it with output to $T/out and $T/err.log, and checks its exit code
    local want=$1 rc=0
    shift
    "$@" >"$T/out" 2>"$T/err.log" </dev/null || rc=$?
    [ $rc = "$want" ] || fail "exit code $rc, want $want: $*"
}
has() { grep -q -- "$1" "$T/out" || { cat "$T/out" >&2; fail "'$1' is not in the output"; }; }

say "help"
code 0 "$F" --help
for command in solve submit watch status list cancel up down bench model; do
    has "^  $command "
    "$F" "$command" --help >"$T/help" 2>"$T/err.log" || fail "$command --help"
    grep -q "^Usage: forerun $command" "$T/help" || fail "$command --help has no usage line"
done
for part in inspect tokenize perplexity check perf vocab; do
    "$F" model "$part" --help 2>"$T/err.log" | grep -q "^Usage: forerun model $part" || fail "model $part --help"
done
"$F" solve --help | grep -q "Examples:" || fail "no examples in solve --help"
for program in "$F" "$BIN/forerun-coordinator" "$BIN/forerun-worker"; do
    code 0 "$program" --version
    has "^forerun [0-9]"
done
code 2 "$F"
code 2 "$F" nonsense
grep -q "solve, submit" "$T/err.log" || fail "an unknown command does not list the known ones"

say "a private cluster"
code 0 "$F" solve --threads 1 "$(question 1)"
want=$(cat "$T/out")
answer=$(sed -n "s/^answer: //p" "$T/err.log")
[ -n "$answer" ] || fail "no answer"
[ "$answer" = "$(right_answer 1)" ] || say "note: the answer $answer is wrong"
grep -q "deploy/models" "$T/err.log" || fail "nothing is told about the embedded pair"
[ "$(grep -c $'\033' "$T/out")" = 0 ] || fail "escape sequences in a pipe"
question 1 | "$F" solve --threads 1 - >"$T/out" 2>"$T/err.log" || fail "problem from standard input"
[ "$(cat "$T/out")" = "$want" ] || fail "another text from standard input"
code 0 "$F" solve --threads 1 --ranks 2 --policy step --compare --json "$(question 2)"
tail -n 1 "$T/out" | python3 -c '
import json, sys
d = json.loads(sys.stdin.readline())
assert d["event"] == "done", d
for key in "job text answer seconds tokens steps passes policy seed speedup".split():
    assert key in d, key
for key in "chain drafted accepted target".split():
    assert key in d["tokens"], key
' || fail "the done event"
python3 -c 'import json, sys; [json.loads(l) for l in sys.stdin]' <"$T/out" || fail "not JSON lines"
all_gone
[ -z "$(find "${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}" -maxdepth 1 -name "forerun-run-$$-*" 2>/dev/null)" ] || fail "a folder is left"

say "GPUs that were named" # of a CPU: told, and passed on to the programs that are started
mkdir "$T/bin"
cp "$F" "$T/bin/"
for program in forerun-worker forerun-coordinator; do
    printf '#!/bin/sh\necho "$@" >>%s\nexec %s "$@"\n' "$T/$program.args" "$BIN/$program" >"$T/bin/$program"
    chmod +x "$T/bin/$program"
done
code 0 "$T/bin/forerun" solve --backend cpu_ref --threads 1 --gpus 2,0 --share-gpu --draft-gpu 1 "$(question 1)"
NOTHING="warning: computing on the CPU: a choice of GPUs means nothing there"
[ "$(grep -c "choice of GPUs" "$T/err.log")" = 1 ] && grep -q "$NOTHING" "$T/err.log" &&
    grep -q "warning: computing on the CPU: --share-gpu means nothing there" "$T/err.log" ||
    fail "the CPU is not told of once: $(cat "$T/err.log")"
grep -q -e "--gpus 2,0" "$T/forerun-worker.args" || fail "the group is told $(cat "$T/forerun-worker.args")"
grep -q -e "--draft-gpu 1" "$T/forerun-coordinator.args" ||
    fail "the coordinator is told $(cat "$T/forerun-coordinator.args")"
code 0 "$F" solve --backend cpu_ref --threads 1 --draft-gpu 1 "$(question 1)"
[ "$(grep -c "^forerun: $NOTHING" "$T/err.log")" = 1 ] || fail "the draft's CPU is not told of once: $(cat "$T/err.log")"
code 0 "$F" model perf "$TINY_TARGET" --draft "$TINY_DRAFT" --backend cpu_ref --threads 1 --runs 1 --context 64 \
    --gpus 1 --draft-gpu 0
[ "$(grep -c "$NOTHING" "$T/err.log")" = 1 ] || fail "not told once of both models: $(cat "$T/err.log")"
start_coordinator named tcp://127.0.0.1:0 --draft "$TINY_DRAFT" --draft-backend cpu_ref --draft-gpu 0
wait_for 20 "its draft" serves draft
grep -q "$NOTHING" "$T/named.log" || fail "the coordinator does not tell of the CPU: $(cat "$T/named.log")"
stop named
all_gone

say "a private cluster that does not start" # its programs' warnings are told too, and the reason once
rm "$T/bin/forerun-worker"
for reason in "error: there is no model" "warning: ends: rank 1: there is no model"; do
    printf '#!/bin/sh\necho "forerun-worker: warning: it is cold"\necho "forerun-worker: %s"\nexit 1\n' "$reason" \
        >"$T/bin/forerun-worker"
    chmod +x "$T/bin/forerun-worker"
    code 3 "$T/bin/forerun" solve --policy target --target "$TINY_TARGET" --threads 1 x
    printf 'forerun: warning: it is cold\nforerun: worker: %sthere is no model\n' "$(grep -o "rank 1: " <<<"$reason")" |
        cmp -s - "$T/err.log" || fail "a cluster that does not start says $(cat "$T/err.log")"
done
all_gone

say "a job that waits"
start_coordinator waits tcp://127.0.0.1:0
start_target alone 1
wait_for 20 "its target" serves target
code 0 "$F" submit --connect "$EP" --policy step "$(question 1)"
told() { "$F" "$@" --connect "$EP" | grep "queued: waiting for a draft group"; }
for command in "status" "status 1" "list"; do
    # shellcheck disable=SC2086
    wait_for 10 "$command to tell why the job waits" told $command
done
"$F" status --connect "$EP" --json | grep -q '"cause":"waiting for a draft group"' || fail "not told in JSON"
for command in "watch 1 --json" "solve --policy step x" \
    "bench --policies draft --limit 2 --data $ROOT/deploy/models/tiny/dev.jsonl"; do
    : >"$T/err.log" # of the command before, which waited too
    # shellcheck disable=SC2086
    "$F" $command --connect "$EP" >"$T/out" 2>"$T/err.log" </dev/null &
    client=$!
    wait_for 20 "$command to tell why it waits" grep -q "^forerun: job [123]: waiting for a draft group$" "$T/err.log"
    kill -INT $client
    wait $client
    if [ "${command%% *}" = watch ]; then # the job goes on
        [ ! -s "$T/out" ] || fail "an interrupted watch ends with $(cat "$T/out")"
        grep -q "^forerun: the watching of job 1 is ended; the job is left as it is$" "$T/err.log" ||
            fail "an interrupted watch says $(cat "$T/err.log")"
    else
        grep -q "^forerun: cancelled$" "$T/err.log" || fail "$command, interrupted, says $(cat "$T/err.log")"
    fi
done
stop waits
stop alone
all_gone

say "a disk that takes no more"
trap '' XFSZ # for the coordinator: writing fails
start_coordinator full tcp://127.0.0.1:0 --store "$T/full.db"
trap - XFSZ
prlimit --pid "$(pid_of full)" --fsize=0:
"$F" submit --connect "$EP" "$(question 1)" >"$T/submitted" 2>"$T/submit.log" </dev/null &
submission=$!
waits="waiting for the store to be written"
wait_for 20 "submit to tell what it waits for" grep -q "^forerun: job 1: $waits$" "$T/submit.log"
for command in "status" "status 1" "list"; do
    # shellcheck disable=SC2086
    code 0 "$F" $command --connect "$EP"
    has "queued: $waits"
done
"$F" cancel 1 --connect "$EP" >"$T/out" 2>"$T/err.log" </dev/null &
client=$!
wait_for 20 "cancel to tell what it waits for" grep -q "^forerun: job 1: it runs no more; its end waits for" "$T/err.log"
kill -INT $client
wait $client
[ ! -s "$T/out" ] || fail "an interrupted cancel prints $(cat "$T/out")"
grep -q "^forerun: interrupted before the cluster at .* said that job 1 is cancelled" "$T/err.log" ||
    fail "an interrupted cancel says $(cat "$T/err.log")"
code 2 "$F" cancel 1 --connect "$EP"
for command in "status 1" "list"; do
    # shellcheck disable=SC2086
    code 0 "$F" $command --connect "$EP"
    has "queued: it is over; its end waits for the store to be written"
done
prlimit --pid "$(pid_of full)" --fsize=unlimited:
wait $submission || fail "submit is not answered when the disk takes more"
[ "$(cat "$T/submitted")" = 1 ] || fail "submit prints $(cat "$T/submitted")"
code 0 "$F" cancel 1 --connect "$EP"
code 0 "$F" list --state cancelled --connect "$EP"
has "^1 "
stop full
all_gone

# A job that takes many seconds: so hot, the noise alone chooses, and this seed's finds no end for more than a thousand tokens
# whatever the embedded target was taught; the plain backend is slow.
long=(solve --json --raw --policy target --temperature 100 --seed 29 --backend cpu_ref --threads 1 --ranks 2
    --max-tokens 1900 aaaa)
say "interrupted"
for signal in INT TERM KILL; do
    : >"$T/out" # of the command before, which made progress too
    "$F" "${long[@]}" >"$T/out" 2>"$T/err.log" </dev/null &
    client=$!
    running() { grep -q progress "$T/out"; }
    wait_for 20 "the job to run" running
    kill -$signal $client
    rc=0
    wait $client 2>/dev/null || rc=$?
    if [ $signal = KILL ]; then expect=137; else expect=1; fi
    [ $rc = $expect ] || fail "exit code $rc after SIG$signal, want $expect"
    [ $signal = KILL ] || grep -q '"event":"failed"' "$T/out" || fail "no failed event after SIG$signal"
    all_gone
done

say "no cluster"
EP=tcp://127.0.0.1:$(free_port)
for command in "status" "list" "cancel 1" "watch 1" "submit x" "solve x"; do
    # shellcheck disable=SC2086
    code 3 "$F" ${command%% *} --connect "$EP" ${command#"${command%% *}"}
    grep -q "no cluster at $EP" "$T/err.log" || fail "$command does not name the endpoint"
done
code 3 "$F" down --run-dir "$T"

say "a cluster in the background"
cat >"$T/cluster.ini" <<END
[cluster]
bind = $EP
run_dir = $T/run
[coordinator]
draft = embedded
[group target]
role = target
model = embedded
threads = 1
backend = cpu_ref
END
code 0 "$F" up --detach "$T/cluster.ini"
has "cluster ready at $EP"
code 2 "$F" up "$T/cluster.ini" # it runs already
export FORERUN_CONNECT=$EP
code 0 "$F" solve "$(question 1)" --connect "$EP"
want=$(cat "$T/out")
answer=$(sed -n "s/^answer: //p" "$T/err.log")
code 0 "$F" submit --name first "$(question 1)"
job=$(cat "$T/out")
code 0 "$F" watch "$job"
[ "$(cat "$T/out")" = "$want" ] || fail "watch shows another text"
code 0 "$F" watch "$job" --from-step 1 --json
[ "$(json event <"$T/out")" = "done" ] || fail "watch --json has no end"
grep '"event":"step"' "$T/out" | grep -q '"index":0,' && fail "watch --from-step 1 shows step 0"
code 0 "$F" status
has target
code 0 "$F" status "$job" --json
[ "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["jobs"][0]["answer"])' <"$T/out")" = "$answer" ] ||
    fail "status of a job"
[ "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["jobs"][0]["text"])' <"$T/out")" = "$want" ] ||
    fail "the text of a job"
code 0 "$F" list --json
grep -q '"answer"' "$T/out" || fail "list --json has no answer"
grep -q '"text"' "$T/out" && fail "list --json shows a text that it has not"
code 0 "$F" list --state done
has first
code 0 "$F" submit --policy target --temperature 8 --max-tokens 1900 --json "$(question 3)"
job=$(json job <"$T/out")
code 0 "$F" cancel "$job"
code 1 "$F" watch "$job"
code 2 "$F" status 999999
code 2 "$F" watch 999999
code 2 "$F" submit --policy nonsense x
code 0 "$F" solve --policy step --json "$(question 4)"
[ -n "$(json answer <"$T/out")" ] || fail "no answer with policy step"

say "benchmark"
code 0 "$F" bench --connect "$EP" --data "$ROOT/deploy/models/tiny/dev.jsonl" --limit 3 --concurrency 2 \
    --policies target,token --json "$T/bench.json" --html "$T/bench.html"
has "^token "
python3 - "$T/bench.json" <<'END' || fail "bench JSON"
import json, sys
d = json.load(open(sys.argv[1]))
assert set(d) >= {"policies", "data", "limit", "machine"}, d
token = d["policies"]["token"]
for key in "accuracy wall_s chain_tokens tok_s accepted_share tokens_per_pass speedup identical_to_target".split():
    assert key in token, key
assert token["identical_to_target"] == 1 and token["speedup"] > 0, token
for key in "cpu cores memory_gb ranks threads models".split():
    assert key in d["machine"], key
assert d["machine"]["ranks"] == 1 and d["machine"]["threads"] > 0, d["machine"]  # the cluster's, not this command's
END
grep -q "</html>" "$T/bench.html" || fail "bench page"
unset FORERUN_CONNECT
code 0 "$F" down "$T/cluster.ini"
all_gone

say "models"
code 0 "$F" model inspect "$TINY_TARGET" --json
python3 -c 'import json, sys; d = json.load(sys.stdin); assert d["tensors"] and d["tokenizer"]["chat"]' <"$T/out" ||
    fail "inspect --json"
code 0 "$F" model tokenize "$TINY_TARGET" "12 + 34" --json
python3 -c 'import json, sys; assert json.load(sys.stdin)["ids"]' <"$T/out" || fail "tokenize --json"
for i in 1 2 3 4 5 6 7 8; do question $i; done >"$T/text"
for ranks in 1 2; do
    code 0 "$F" model perplexity "$TINY_TARGET" -f "$T/text" --ctx 64 --threads 1 --ranks $ranks --json
    cp "$T/out" "$T/perplexity-$ranks"
done
python3 - "$T"/perplexity-? <<'END' || fail "perplexity of 1 and 2 ranks"
import json, sys
one, two = (json.load(open(p)) for p in sys.argv[1:])
assert one["chunks"] == two["chunks"] > 2 and abs(one["perplexity"] / two["perplexity"] - 1) < 0.01, (one, two)
END
code 2 "$F" model perf "$TINY_TARGET" --batch-invariant perhaps
grep -q -- "--batch-invariant perhaps: there are on and off" "$T/err.log" || fail "--batch-invariant perhaps: $(cat "$T/err.log")"
code 0 "$F" model perf "$TINY_TARGET" --draft "$TINY_DRAFT" --threads 1 --runs 1 --context 300 --batch-invariant off --json
python3 - "$T/out" <<'END' || fail "perf JSON"
import json, sys
d = json.load(open(sys.argv[1]))
assert set(d["verify_ms"]) == {"1", "2", "4", "8", "16", "32"} and d["decode_tok_s"] > 0 and d["prefill_tok_s"] > 0
assert d["context"] == 300 and d["read_gb_s"] > 0 and d["decode_gb_s"] > 0 and d["load_s"] > 0
assert 0 < d["rss_mb"] <= d["rss_peak_mb"] < 200, d  # a tiny model: neither the draft nor what reads memory counts
assert all(x["tok_s"] > 0 and x["tokens_per_pass"] >= 1 for x in d["spec_tok_s"].values()) and "4" in d["spec_tok_s"]
END

say "a draft that chooses from few tokens"
cp "$TINY_DRAFT" "$T/draft.gguf"
code 0 "$F" model vocab "$T/draft.gguf" --text "$T/text" --text "$T/text" --size 40 --json
python3 -c '
import json, sys
d = json.load(sys.stdin)
lines = open(d["file"]).read().split()
assert d["size"] == len(lines) == len(set(lines)) == 40 and 0 < d["distinct"] and 0 < d["covered"] < 1, d
' <"$T/out" || fail "model vocab --json"
code 0 "$F" model perf "$TINY_TARGET" --draft "$T/draft.gguf" --draft-vocab 300 --threads 1 --runs 1
for policy in token step draft; do
    for size in 0 1; do
        code 0 "$F" solve --threads 1 --target "$TINY_TARGET" --draft "$T/draft.gguf" --draft-vocab $size \
            --policy $policy --temperature 2 --seed 5 "$(question 1)"
        cp "$T/out" "$T/text-$size"
    done
    cmp -s "$T/text-0" "$T/text-1" || fail "policy $policy: another text"
done
all_gone

say "a draft whose weights are quantised once more"
code 0 "$F" model perf "$TINY_TARGET" --draft "$TINY_DRAFT" --draft-weights q4_0 --threads 1 --runs 1
for policy in target token; do
    code 0 "$F" solve --threads 1 --draft-weights q4_0 --policy $policy --temperature 2 --seed 5 "$(question 1)"
    cp "$T/out" "$T/text-$policy"
done
cmp -s "$T/text-target" "$T/text-token" || fail "draft weights in Q4_0: another text"
all_gone
cat >"$T/cluster.ini" <<END
[cluster]
bind = $EP
run_dir = $T/run
[coordinator]
draft = embedded
draft_threads = 1
draft_weights = q4_0
[group target]
role = target
model = embedded
threads = 1
[group draft]
role = draft
model = embedded
threads = 1
draft_weights = q4_0
END
code 0 "$F" model inspect "$TINY_DRAFT" --json
file=$(json digest <"$T/out")
code 0 "$F" up --detach "$T/cluster.ini"
drafts() { "$F" status --connect "$EP" --json | python3 -c '
import json, sys
print(*sorted(g["model_digest"] for g in json.load(sys.stdin)["groups"] if g["role"] == "draft"))'; }
both() { [ "$(drafts | wc -w)" = 2 ]; }
wait_for 20 "both drafts, which serve the same model" both
[ "$(drafts | tr ' ' '\n' | uniq)" != "$file" ] || fail "the draft's weights are the file's"
code 0 "$F" down "$T/cluster.ini"
all_gone
