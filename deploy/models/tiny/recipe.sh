#!/bin/sh
# One command from nothing to the pair: a virtual environment, the tokenizer,
# the draft, the target, the GGUF files and the measurements.
#
#   ./recipe.sh [work folder, default ./build]
#
# About three and a half hours on two busy AVX512-BF16 cores.  An interrupted run goes on from
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
    "$py" train.py target --short 600 --seed 2 --resume --out "$work/target.pt" "$@"
}
first="--steps 5000 --decay-from 4000"
target $first --stop 600 --lr 3e-3
target $first --stop 1000 --lr 3e-3
target $first --stop 1500 --lr 1e-3
target $first --lr 1e-3 --skew 2

# Then on with the draft's own chains, of all lengths, mixed in.
if [ ! -e "$work/rollouts.jsonl" ]; then
    "$py" evaluate.py rollouts --model "$work/tiny-draft.gguf" --count 1600 --seed 55 \
        --temperature 0.6 --out "$work/rollouts-1.jsonl"
    "$py" evaluate.py rollouts --model "$work/tiny-draft.gguf" --count 1000 --seed 56 \
        --out "$work/rollouts-2.jsonl"
    cat "$work/rollouts-1.jsonl" "$work/rollouts-2.jsonl" >"$work/rollouts.jsonl"
fi
# Three times from a high rate, at which nothing is gained that shows, down to nothing: from 144 of the
# 200 right to 162, 183 and 175, and of 240 others with 12 steps to 97 and 98% after the last two.
more() {
    target --lr 1e-3 --rollouts "$work/rollouts.jsonl" "$@"
}
more --steps 7900 --decay-from 6300 --skew 1.4
more --steps 11900 --decay-from 8200 --skew 1.3 --seed 3
more --steps 14700 --decay-from 12000 --skew 1.2 --seed 4
"$py" export_gguf.py "$work/target.pt" "$work/tiny-target.gguf"

"$py" evaluate.py pair --model "$work/tiny-target.gguf" --draft "$work/tiny-draft.gguf" \
    --problems dev.jsonl --score-limit 200
