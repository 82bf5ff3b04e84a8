#!/usr/bin/env bash
# test_golden_folders.sh: the tokenizers of the real models as a publisher's folder has them (tokenizer.json, made from
# the GGUF vocabulary): llama.cpp's token ids, and the digest that the GGUF file gives. FORERUN_MODELS names the models'
# folder; skipped without it.
LIMIT=300
. "$(dirname "$0")/../cluster/lib.sh"

[ -n "${FORERUN_MODELS:-}" ] || skip "FORERUN_MODELS names no folder with the models"

digest() { "$BIN/forerun" model inspect "$1" --json | json tokenizer.digest; }

for file in "$FORERUN_MODELS"/{qwen2.5-coder-0.5b,qwen2.5-coder-1.5b,smollm2-135m}-instruct-q4_*.gguf; do
    [ -f "$file" ] || skip "$file is not there"
    folder=$T/models/$(basename "$file") # a folder by the name that the golden file has
    merges=--text-merges
    [ -z "$(find "$T" -name tokenizer.json)" ] || merges= # of the others as pairs
    # shellcheck disable=SC2086
    python3 "$ROOT/deploy/models/tiny/export_safetensors.py" "$file" "$folder" --tokenizer-only $merges ||
        fail "cannot write $folder"
    [ "$(digest "$file")" = "$(digest "$folder")" ] || fail "$folder: not the tokenizer of the GGUF file"
done
FORERUN_MODELS=$T/models "$BIN/test_golden_tokenize" || fail "token ids differ"
