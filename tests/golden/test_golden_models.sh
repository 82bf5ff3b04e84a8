#!/usr/bin/env bash
# test_golden_models.sh check MODEL RANKS TOP1 | perplexity MODEL RANKS WANT | identity: a real model against llama.cpp on
# the same file, and policy `token` against `target` on the real pair.
#   check       MODEL.json of this folder: all token ids, top-1 agreement of TOP1 or more, log-probabilities
#   perplexity  of perplexity.txt (texts of MATH, MIT licence) within 1.5 % of WANT, which is llama.cpp's
#   identity    two problems of GSM8K, 60 tokens of each: the same texts
# ctest runs the shorter ones: all of the text takes the 1.5B minutes, where it is 2.6839.
# FORERUN_MODELS names the models' folder; skipped without it.
LIMIT=900
. "$(dirname "$0")/../cluster/lib.sh"

GOLDEN=$ROOT/tests/golden
[ -n "${FORERUN_MODELS:-}" ] || skip "FORERUN_MODELS names no folder with the models"

model() { # NAME: its file
    local file
    for file in "$FORERUN_MODELS/$1-instruct-q4_"*.gguf; do
        [ -f "$file" ] && { echo "$file"; return; }
    done
    return 1
}
# True when what the JSON object in $T/out says satisfies a Python condition on its fields.
holds() { # CONDITION
    python3 -c 'import json, sys
sys.exit(not eval(sys.argv[2], {}, json.load(open(sys.argv[1]))))' "$T/out" "$1"
}
ask() { # ARGUMENTS OF forerun...: its answer in $T/out
    "$BIN/forerun" "$@" >"$T/out" 2>"$T/err.log" </dev/null || fail "exit code $?: forerun $*"
    say "$(cat "$T/out")"
}

what=$1
case "$what" in
check)
    file=$(model "$2") || skip "$2 is not in $FORERUN_MODELS"
    ask model check "$file" --golden "$GOLDEN/$2.json" --ranks "$3" --json
    holds "tokenize_equal == tokenize_total > 0" || fail "$2: token ids differ"
    holds "top1 >= $4" || fail "$2: top-1 agreement is less than $4"
    holds "mean_abs_dlogprob <= 0.04" || fail "$2: log-probabilities differ by more than 0.04"
    ;;
perplexity)
    file=$(model "$2") || skip "$2 is not in $FORERUN_MODELS"
    ask model perplexity "$file" -f "$GOLDEN/perplexity.txt" --ctx 512 --ranks "$3" --json
    holds "abs(perplexity / $4 - 1) <= 0.015" || fail "$2: perplexity is not within 1.5 % of $4"
    ;;
identity)
    target=$(model qwen2.5-coder-1.5b) || skip "the real pair is not in $FORERUN_MODELS"
    draft=$(model qwen2.5-coder-0.5b) || skip "the real pair is not in $FORERUN_MODELS"
    ask bench --data "$ROOT/tests/bench/gsm8k-20.jsonl" --limit 2 --max-tokens 60 --policies target,token \
        --temperature 0 --ranks 2 --target "$target" --draft "$draft" --json -
    holds "policies['token']['identical_to_target'] == 1" || fail "the texts of token are not those of target"
    holds "policies['token']['failed'] == policies['target']['failed'] == 0" || fail "a problem failed"
    ;;
*)
    fail "no test is called $what"
    ;;
esac
