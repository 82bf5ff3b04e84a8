#!/usr/bin/env bash
# The embedded pair as model folders, as publishers ship them: the texts of the GGUF files with the same values, on one
# rank and on two, a folder's model speculating with a file's, by the name in FORERUN_MODELS too; and bad folders.
LIMIT=240
. "$(dirname "$0")/lib.sh"

F=$BIN/forerun
export FORERUN_MODELS=$T/models
mkdir "$T/models"
convert() { python3 "$ROOT/deploy/models/tiny/export_safetensors.py" "$@" || fail "export_safetensors.py $*"; }
convert "$TINY_TARGET" "$T/models/target" --f16-gguf "$T/target.gguf"
convert "$TINY_DRAFT" "$T/models/draft" --shards 3 --text-merges --f16-gguf "$T/draft.gguf"

ask() { # ARGUMENTS OF forerun model...: its object
    "$F" model "$@" --json 2>"$T/err.log" || fail "exit code $?: forerun model $*"
}
# The digest of the tokenizer is that of the pair, so the four go together.
digest() { ask inspect "$1" | json tokenizer.digest; }
for model in "$T/models/target" "$T/models/draft" "$T/target.gguf" "$T/draft.gguf"; do
    [ "$(digest "$model")" = "$(digest "$TINY_TARGET")" ] || fail "$model: another tokenizer"
done

# Log-probabilities over a text: those of the GGUF file with the same values, on one rank and on two.
for line in $(seq 1 12); do
    question "$line"
    echo
done >"$T/text"
perplexity() { ask perplexity "$1" -f "$T/text" --ctx 64 --threads 1 "${@:2}" | json perplexity; }
near() { python3 -c 'import sys
a, b = map(float, sys.argv[1:])
sys.exit(abs(a / b - 1) > 2e-3)' "$1" "$2"; }
for name in target draft; do
    want=$(perplexity "$T/$name.gguf")
    for ranks in 1 2; do
        have=$(perplexity "$T/models/$name" --ranks $ranks)
        say "$name, $ranks ranks: perplexity $have, of the GGUF file $want"
        near "$have" "$want" || fail "$name on $ranks ranks: perplexity $have, of the GGUF file $want"
    done
done

# Texts: a folder's, drafted for by a folder and by a file; and a file's drafted for by a folder.
ask_solve() { # ARGUMENTS OF forerun solve...: the text
    "$F" solve --threads 1 --temperature 0 --max-tokens 120 --json "$@" "$(question 3)" 2>"$T/err.log" |
        grep '"event": *"done"' | json text
}
text=$(ask_solve --policy target --target "$T/target.gguf")
[ -n "$text" ] || fail "the GGUF file wrote nothing"
same() { # ARGUMENTS OF forerun solve...
    [ "$(ask_solve "$@")" = "$text" ] || fail "not the text of the GGUF file: $*"
}
same --policy target --target "$T/models/target"
same --policy token --target target --draft draft --ranks 2
same --policy token --target target --draft "$T/draft.gguf"
same --policy token --target "$T/target.gguf" --draft "$T/models/draft/model.safetensors.index.json"

# --- bad folders: exit code 2, one line that names what is wrong
bad() { # WHAT-THE-LINE-NAMES MODEL SOLVE-OPTIONS...
    local rc=0
    "$F" solve --policy target --target "$2" "${@:3}" x >"$T/out" 2>"$T/err.log" </dev/null || rc=$?
    [ $rc = 2 ] || fail "exit code $rc, want 2: $2"
    [ "$(wc -l <"$T/err.log")" = 1 ] || fail "not one line: $(cat "$T/err.log")"
    grep -qF -- "$1" "$T/err.log" || fail "'$1' is not named: $(cat "$T/err.log")"
    say "$(cut -c 1-170 "$T/err.log")"
}
spoil() { cp -r "$T/models/$1" "$T/$2"; } # MODEL NAME
mkdir "$T/models/nothing"
bad "$T/models/nothing: a folder without config.json is no model" nothing
mkdir "$T/here"
cd "$T" || fail "cd $T"
bad "here: a folder without config.json is no model" here
for part in inspect perf; do
    "$F" model $part here >"$T/out" 2>"$T/err.log" && fail "model $part takes a folder without config.json"
    grep -qF "here: a folder without config.json is no model" "$T/err.log" || fail "model $part: $(cat "$T/err.log")"
done
cd "$OLDPWD" || fail "cd $OLDPWD"
spoil draft no-shard
rm "$T/no-shard/model-00002-of-00003.safetensors"
bad "model-00002-of-00003.safetensors" "$T/no-shard"
spoil target shape
sed -i 's/"intermediate_size": 512/"intermediate_size": 256/' "$T/shape/config.json"
bad "tensor model.layers.0.mlp.gate_proj.weight has shape [512, 256], config.json wants [256, 256]" "$T/shape"
spoil target lies
python3 - "$T/lies/model.safetensors" "$T/models/target/model.safetensors" <<'END'
import sys
data = open(sys.argv[2], "rb").read()
open(sys.argv[1], "wb").write(data[:-2])
END
bad "(truncated?)" "$T/lies"
spoil target nan
python3 - "$T/nan/model.safetensors" <<'END'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack_from("<Q", data)[0]
begin = json.loads(data[8:8 + n])["model.layers.2.self_attn.v_proj.weight"]["data_offsets"][0]
at = 8 + n + begin + 2 * (100 * 256 + 33)
data[at:at + 2] = struct.pack("<e", float("nan"))
open(sys.argv[1], "wb").write(data)
END
for ranks in 1 2; do
    bad "tensor model.layers.2.self_attn.v_proj.weight: row 100, column 33 is not a finite number" "$T/nan" --ranks $ranks
done
[ -z "$(leftovers)" ] || fail "left running: $(leftovers)"
