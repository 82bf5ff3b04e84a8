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
