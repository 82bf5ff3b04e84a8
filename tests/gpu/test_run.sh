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
for release in 11.8 12.4 13.1; do
    mkdir -p "$T/$release/bin"
    printf '#!/bin/sh\necho "Cuda compilation tools, release %s, V%s.1"\n' $release $release >"$T/$release/bin/nvcc"
    chmod +x "$T/$release/bin/nvcc"
done
CUDA_HOME="$T/11.8" CUDA_PATH="$T/12.4" "$here/run" --dry-run --out "$T/none.json" >"$T/log" 2>&1 || true
grep -qF "nvcc: $T/12.4/bin/nvcc (CUDA 12.4), not $T/11.8/bin/nvcc (CUDA 11.8);" "$T/log" || fail "nvcc: $(cat "$T/log")"
# Of a later major release than the driver's it is not, of a later minor one it is; where there is none, that is told.
mkdir "$T/smi"
cat >"$T/smi/nvidia-smi" <<'END'
#!/bin/sh
if [ $# = 0 ]; then
    echo "| NVIDIA-SMI 580.1                 Driver Version: 580.1         CUDA Version: ${DRIVER_CUDA:-13.0}     |"
else
    for gpu in 0 1; do echo "NVIDIA A100, 40960, 580.1"; done
fi
END
chmod +x "$T/smi/nvidia-smi"
for cuda in "12.2 12.4/bin/nvcc (CUDA 12.4), not $T/13.1/bin/nvcc (CUDA 13.1)" "13.0 13.1/bin/nvcc (CUDA 13.1)"; do
    DRIVER_CUDA=${cuda%% *} PATH="$T/smi:$PATH" CUDA_HOME="$T/13.1" CUDA_PATH="$T/12.4" \
        "$here/run" --dry-run --out "$T/none.json" >"$T/log" 2>&1 || true
    grep -qF "GPU: NVIDIA A100, driver for CUDA ${cuda%% *}; nvcc: $T/${cuda#* };" "$T/log" || fail "nvcc: $(cat "$T/log")"
done
code=0
DRIVER_CUDA=11.4 PATH="$T/smi:$PATH" CUDA_HOME="$T/13.1" "$here/run" --only build --out "$T/none.json" >"$T/log" 2>&1 || code=$?
told="nvcc: none of CUDA 12 or later that the driver can run, which is for CUDA 11.4, not $T/13.1/bin/nvcc (CUDA 13.1)"
[ $code = 1 ] && grep "^failed   build" "$T/log" | grep -qF "$told" || fail "no nvcc fits: exit code $code: $(cat "$T/log")"
# GPUs are those that CUDA will find.
for visible in 0,1 1 "" 1,-1,0 GPU-1a-1b,GPU-2a-1b; do
    CUDA_VISIBLE_DEVICES=$visible PATH="$T/smi:$PATH" "$here/run" --dry-run --out "$T/gpus.json" >"$T/log" 2>&1 || true
    python3 -c 'import json, sys; print((json.load(open(sys.argv[1]))["gpu"] or {"gpus": 0})["gpus"])' "$T/gpus.json"
done >"$T/gpus"
[ "$(tr '\n' ' ' <"$T/gpus")" = "2 1 0 1 2 " ] || fail "GPUs found: $(cat "$T/gpus")"
# A model by two ranks is a step of its own, which says what it lacks.
two_skipped() { # WHY PATH OPTIONS...
    PATH=$2 "$here/run" --shapes test --only "model test 2 ranks" --out "$T/two.json" "${@:3}" >"$T/log" 2>&1 || true
    python3 -c 'import json, sys
step, = (s for s in json.load(open(sys.argv[1]))["steps"] if s["name"] == "model test 2 ranks")
assert step["status"] == "skipped" and step["why"] == sys.argv[2], step' "$T/two.json" "$1" || fail "$(cat "$T/log")"
    grep "^skipped  model test 2 ranks" "$T/log" | grep -qF "$1" || fail "not told: $(cat "$T/log")"
}
CUDA_VISIBLE_DEVICES=1 two_skipped "there is one GPU" "$T/smi:$PATH"
two_skipped "built without MPI" "$PATH" --backend cpu_ref --bin "$T/build/bin"
mkdir -p "$T/build/worker/comm/CMakeFiles/fr_comm.dir" "$T/few"
touch "$T/build/worker/comm/CMakeFiles/fr_comm.dir/comm_mpi.c.o"
ln -s "$(python3 -c 'import sys; print(sys.executable)')" "$T/few/python3"
two_skipped "there is no mpirun on PATH" "$T/few" --backend cpu_ref --bin "$T/build/bin"
if [ "${FORERUN_TEST_SLOW:-1}" = 1 ]; then # the steps that a CPU can take
    backend=$(grep -qw avx2 /proc/cpuinfo && echo cpu_avx2 || echo cpu_ref)
    "$here/run" --backend "$backend" --bin "$FORERUN_BIN" --shapes test --only shared,ranks,model --out "$T/ranks.json" \
        --work "$T" >"$T/log" 2>&1 || { cat "$T/log"; fail "two ranks"; }
    n=4
    if grep -q "^skipped  model test 2 ranks .*MPI" "$T/log"; then n=3; fi
    [ "$(grep -c '"status": "passed"' "$T/ranks.json")" = $n ] || fail "two ranks: $(cat "$T/log")"
    [ -z "$(find "$T" -maxdepth 1 -name 'forerun-gpu-*')" ] || fail "a model is left"
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
