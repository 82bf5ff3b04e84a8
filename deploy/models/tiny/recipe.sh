#!/bin/sh
# One command from nothing to the pair: a virtual environment, the tokenizer,
# the draft, its chains, the target, the GGUF files and the measurements.
#
#   ./recipe.sh [work folder, default ./build]
#
# About 100 minutes on two AVX512-BF16 cores.  An interrupted run goes on from
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

# The draft first: it learns the format, and its chains are what the target learns to rate.
"$py" train.py draft --steps 1500 --out "$work/draft.pt" --seed 1 --resume
"$py" evaluate.py rollouts --model "$work/draft.pt" --count 3000 --seed 55 --out "$work/rollouts.jsonl"
"$py" train.py target --steps 5000 --out "$work/target.pt" --rollouts "$work/rollouts.jsonl" \
    --seed 2 --low 4 --mix 0.15 --skew 1.4 --lr 1e-3 --resume
"$py" export_gguf.py "$work/draft.pt" "$work/tiny-draft.gguf"
"$py" export_gguf.py "$work/target.pt" "$work/tiny-target.gguf"
"$py" evaluate.py pair --model "$work/tiny-target.gguf" --draft "$work/tiny-draft.gguf" \
    --problems dev.jsonl --limit 100 --score-limit 60
