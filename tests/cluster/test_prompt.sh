#!/usr/bin/env bash
# The default prompt is the target model's, not the moment's: jobs and a benchmark that are submitted before any target
# is there give what they give afterwards, over a restart of the coordinator too.
LIMIT=120
. "$(dirname "$0")/lib.sh"

F=$BIN/forerun
ENDPOINT=tcp://127.0.0.1:$(free_port)
coordinator() { start_coordinator coordinator "$ENDPOINT" --store "$T/jobs.db"; }
submit() { # ARGS...: the job's number
    "$F" submit --connect "$EP" --policy target "$@" "$(question 1)" 2>"$T/submit.err" || fail "$(cat "$T/submit.err")"
}
text_of() { # JOB
    "$F" watch --connect "$EP" --json "$1" 2>"$T/watch.err" | grep '"event": *"done"' | json text
}
bench() { # OUT
    "$F" bench --connect "$EP" --data "$ROOT/deploy/models/tiny/dev.jsonl" --limit 4 --policies target --json "$1"
}
measured() { # OUT: what of it no clock has a part in
    python3 -c '
import json, sys
p = json.load(open(sys.argv[1]))["policies"]["target"]
print(p["accuracy"], p["chain_tokens"])' "$1"
}

coordinator
before=$(submit)
explicit=$(submit --system "" --prompt-suffix "")
other=$(submit --prompt-suffix " Please.")
kill_now coordinator
coordinator
start bench bash -c "$(declare -f bench); F='$F' EP='$EP' ROOT='$ROOT' bench '$T/before.json'"
submitted() { [ "$("$F" list --connect "$EP" --json | grep -c '"state": *"queued"')" = 4 ]; }
wait_for 20 "the benchmark's first job" submitted
serves target && fail "a target is there already"
start_target target 1
wait_for 30 "a target" serves target

after=$(submit)
want=$(text_of "$after")
[ -n "$want" ] || fail "no text: $(cat "$T/watch.err")"
[ "$(text_of "$before")" = "$want" ] || fail "submitted before the target came: $(text_of "$before"), want $want"
[ "$(text_of "$explicit")" = "$want" ] || fail "the embedded pair wants no prompt: $(text_of "$explicit"), want $want"
[ "$(text_of "$other")" != "$want" ] || fail "a suffix that was given changes nothing"
say "jobs: the same text before and after"

wait "$(pid_of bench)" || fail "the benchmark"
unset "SESSION[bench]"
bench "$T/after.json" >"$T/bench-after.log" 2>&1 || fail "the second benchmark"
[ "$(measured "$T/before.json")" = "$(measured "$T/after.json")" ] ||
    fail "begun before the target came: $(measured "$T/before.json"), afterwards $(measured "$T/after.json")"
say "a benchmark: the same accuracy and tokens before and after"
