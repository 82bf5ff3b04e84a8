#!/usr/bin/env bash
# tests/gpu/run and make_model.py where no GPU is: a dry run reports every step as skipped; what it would write as a model
# is laid out as safetensors files are; wrong arguments are told.
set -euo pipefail
here=$(dirname "$0")
T=$(mktemp -d "${TMPDIR:-/tmp}/forerun-test.XXXXXX")
trap 'rm -rf "$T"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
export PYTHONDONTWRITEBYTECODE=1

code=0
"$here/run" --dry-run --out "$T/gpu.json" >"$T/log" 2>&1 || code=$?
cat "$T/log"
[ $code = 77 ] || fail "a dry run ends with exit code $code, want 77"
code=0
"$here/run" --dry-run --only frobnicate --out "$T/none.json" >"$T/log" 2>&1 || code=$?
[ $code = 2 ] && grep -q "there is no frobnicate" "$T/log" || fail "--only frobnicate: exit code $code"
# The first nvcc that is new enough is taken, and said.
for release in 11.8 12.4; do
    mkdir -p "$T/$release/bin"
    printf '#!/bin/sh\necho "Cuda compilation tools, release %s, V%s.1"\n' $release $release >"$T/$release/bin/nvcc"
    chmod +x "$T/$release/bin/nvcc"
done
CUDA_HOME="$T/11.8" CUDA_PATH="$T/12.4" "$here/run" --dry-run --out "$T/none.json" >"$T/log" 2>&1 || true
grep -qF "nvcc: $T/12.4/bin/nvcc (CUDA 12.4), not $T/11.8/bin/nvcc (CUDA 11.8);" "$T/log" || fail "nvcc: $(cat "$T/log")"
# GPUs are those that CUDA will find.
mkdir "$T/smi"
printf '#!/bin/sh\nfor gpu in 0 1; do echo "NVIDIA A100, 40960, 580.1"; done\n' >"$T/smi/nvidia-smi"
chmod +x "$T/smi/nvidia-smi"
for visible in 0,1 1 "" 1,-1,0 GPU-1a-1b,GPU-2a-1b; do
    CUDA_VISIBLE_DEVICES=$visible PATH="$T/smi:$PATH" "$here/run" --dry-run --out "$T/gpus.json" >"$T/log" 2>&1 || true
    python3 -c 'import json, sys; print((json.load(open(sys.argv[1]))["gpu"] or {"gpus": 0})["gpus"])' "$T/gpus.json"
done >"$T/gpus"
[ "$(tr '\n' ' ' <"$T/gpus")" = "2 1 0 1 2 " ] || fail "GPUs found: $(cat "$T/gpus")"
if [ "${FORERUN_TEST_SLOW:-1}" = 1 ]; then # the steps that a CPU can take
    backend=$(grep -qw avx2 /proc/cpuinfo && echo cpu_avx2 || echo cpu_ref)
    "$here/run" --backend "$backend" --bin "$FORERUN_BIN" --only shared,ranks --out "$T/ranks.json" >"$T/log" 2>&1 ||
        { cat "$T/log"; fail "two ranks"; }
    [ "$(grep -c '"status": "passed"' "$T/ranks.json")" = 2 ] || fail "two ranks: $(cat "$T/log")"
fi
"$here/make_model.py" "$T/whole" --shape test
"$here/make_model.py" "$T/half" --shape test --tp 2
if "$here/make_model.py" "$T/third" --shape test --tp 3 2>"$T/log"; then fail "4 heads were split over 3 ranks"; fi
grep -q "heads: not divisible by 3" "$T/log" || fail "--tp 3: $(cat "$T/log")"

python3 - "$T" <<'END'
import json
import struct
import sys

report = json.load(open(sys.argv[1] + "/gpu.json"))
assert len(report["steps"]) >= 12 and all(s["status"] == "skipped" and s["why"] for s in report["steps"]), report
assert report["goals"] and all(g["value"] is None and g["reached"] is None for g in report["goals"]), report

for name, ff in ("whole", 96), ("half", 48):
    folder = f"{sys.argv[1]}/{name}/"
    config, tokenizer = (json.load(open(folder + f)) for f in ("config.json", "tokenizer.json"))
    ids = sorted([*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])])
    assert ids == list(range(config["vocab_size"])), len(ids)
    data = open(folder + "model.safetensors", "rb").read()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    del header["__metadata__"]
    at = 0
    for tensor in header.values():
        n = 2
        for dim in tensor["shape"]:
            n *= dim
        assert tensor["dtype"] == "BF16" and tensor["data_offsets"] == [at, at + n], tensor
        at += n
    assert len(data) == 8 + size + at
    assert header["model.layers.1.mlp.up_proj.weight"]["shape"] == [ff, 64], header
    values = struct.unpack(f"<{at // 2}H", data[8 + size:])
    assert not any(v & 0x7f80 == 0x7f80 for v in values), "a value is no number"
END
