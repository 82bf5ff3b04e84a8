#!/bin/sh
# One command from nothing to the pair: a virtual environment, the tokenizer,
# the draft, the target, the GGUF files and the measurements.
#
#   ./recipe.sh [work folder, default ./build]
#
# About two hours on two busy AVX512-BF16 cores.  An interrupted run goes on from
# the last checkpoint when started again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/build}
mkdir -p "$work"
py="$work/venv/bin/python"

if [ ! -x "$py" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet -r "$here/requirements.txt"
fi

cd "$here"
"$py" tok.py
"$py" make_problems.py --seed 1001 --count 200 --prefix dev- --out dev.jsonl

# The draft.  It needs no scores, and is stopped while it still makes mistakes.
"$py" train.py draft --steps 950 --short 200 --decay-from 380 --wrong-chains 0.3 \
    --seed 1 --resume --out "$work/draft.pt"
"$py" export_gguf.py "$work/draft.pt" "$work/tiny-draft.gguf"

# The target, in the stages that made the files here: short problems, then all
# lengths, a lower rate once the higher one gained nothing, then a long stretch.
target() {
    "$py" train.py target --steps 5000 --short 600 --decay-from 4000 --seed 2 --resume \
        --out "$work/target.pt" "$@"
}
target --stop 600 --lr 3e-3
target --stop 1000 --lr 3e-3
target --stop 1500 --lr 1e-3
target --lr 1e-3 --skew 2
"$py" export_gguf.py "$work/target.pt" "$work/tiny-target.gguf"

"$py" evaluate.py pair --model "$work/tiny-target.gguf" --draft "$work/tiny-draft.gguf" \
    --problems dev.jsonl --score-limit 200
