#!/usr/bin/env bash
# Bad input, each answered by exit code 2 and one line on stderr that names the file or the field; nothing crashes and
# nothing is left running.
LIMIT=240
. "$(dirname "$0")/lib.sh"

F=$BIN/forerun
bad() { # WHAT-THE-LINE-NAMES COMMAND...
    local word=$1 rc=0 lines
    shift
    "$@" >"$T/out" 2>"$T/err.log" </dev/null || rc=$?
    lines=$(grep -vc "warning: computing on the CPU: " "$T/err.log") # that, of a model before the bad one
    [ $rc = 2 ] || fail "exit code $rc, want 2: $*"
    [ "$lines" = 1 ] || fail "$lines lines on stderr, want 1: $*"
    grep -qF -- "$word" "$T/err.log" || fail "'$word' is not named: $(cat "$T/err.log")"
    grep -q "^$(basename "$1"): " "$T/err.log" || fail "not told by $(basename "$1"): $(cat "$T/err.log")"
    say "$(cut -c 1-150 "$T/err.log")"
}
gone() { [ -z "$(leftovers)" ]; }

# --- model files
head -c 20000 "$TINY_TARGET" >"$T/truncated-header.gguf"
head -c $(($(stat -c %s "$TINY_TARGET") - 100000)) "$TINY_TARGET" >"$T/truncated-data.gguf"
printf 'not a model at all' >"$T/text.gguf"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 7\n' 7 >"$T/pointer.gguf"
: >"$T/empty.gguf"
python3 - "$TINY_TARGET" "$T" <<'END'
import sys
data = open(sys.argv[1], "rb").read()
def write(name, content):
    open(sys.argv[2] + "/" + name, "wb").write(content)
write("version.gguf", data[:4] + (99).to_bytes(4, "little") + data[8:])
write("counts.gguf", data[:8] + b"\xff" * 16 + data[24:])
key = b"general.architecture"
at = data.index(key) + len(key) + 4 + 8   # the value: type, length, then the text
write("architecture.gguf", data[:at] + b"mamba" + data[at + 5:])
name = b"blk.0.attn_q.weight"
at = data.index(name) + len(name) + 4 + 2 * 8 # dimensions and their number, then the type
write("type.gguf", data[:at] + (16).to_bytes(4, "little") + data[at + 4:])
write("unknown-type.gguf", data[:at] + (77).to_bytes(4, "little") + data[at + 4:])
END
mkdir "$T/folder.gguf"
for file in missing truncated-header truncated-data text empty version counts architecture type unknown-type folder; do
    bad "$file.gguf" "$F" solve --policy target --target "$T/$file.gguf" x
done
bad "pointer.gguf: a Git LFS pointer" "$F" solve --policy target --target "$T/pointer.gguf" x
bad missing.gguf "$F" solve --target "$TINY_TARGET" --draft "$T/missing.gguf" x
bad text.gguf "$F" solve --ranks 2 --policy target --target "$T/text.gguf" x
bad no-such-name "$F" solve --target no-such-name x
bad --target "$F" solve --draft "$TINY_DRAFT" x
echo "{}" >"$T/golden.json"
for part in "inspect" "perplexity -f $0" "check --golden $T/golden.json" "perf"; do
    # shellcheck disable=SC2086
    bad truncated-header.gguf "$F" model $part "$T/truncated-header.gguf"
done
bad truncated-data.gguf "$F" model perf --ranks 2 "$T/truncated-data.gguf"
cp "$TINY_DRAFT" "$T/draft.gguf"
printf '7\nx\n' >"$T/draft.gguf.vocab"
bad draft.gguf.vocab:2 "$F" solve --target "$TINY_TARGET" --draft "$T/draft.gguf" --draft-vocab 300 x
bad draft.gguf.vocab:2 "$F" model perf "$TINY_TARGET" --draft "$T/draft.gguf" --draft-vocab 300
bad none.txt "$F" model vocab "$TINY_TARGET" --text "$T/none.txt"
bad empty.gguf "$F" model vocab "$TINY_TARGET" --text "$T/empty.gguf"

# --- what is asked for
bad nonsense "$F" solve --policy nonsense x
bad nonsense "$F" solve --policy step --judge nonsense x
bad threshold "$F" solve --policy step --threshold 77 x
bad --temperature "$F" solve --temperature hot x
bad --top-p "$F" solve --top-p 0 x
bad --ranks "$F" solve --ranks 0 x
bad --draft-vocab "$F" solve --draft-vocab many x
bad "--draft-weights: 'q3_0'" "$F" solve --draft-weights q3_0 x
bad "--draft-weights: 'q3_0'" "$F" model perf "$TINY_TARGET" --draft "$TINY_DRAFT" --draft-weights q3_0
bad "--draft-weights: 'q3_0'" "$BIN/forerun-worker" --model "$TINY_DRAFT" --role draft --draft-weights q3_0
bad "--draft-weights: a group of role target" "$BIN/forerun-worker" --model "$TINY_TARGET" --draft-weights q4_0
bad "--gpus: '0,'" "$F" solve --gpus 0, x
bad "--gpus: '1,1' has GPU 1 twice" "$F" model perf "$TINY_TARGET" --gpus 1,1
bad "--gpus: ''" "$BIN/forerun-worker" --model "$TINY_TARGET" --gpus ""
bad "--draft-gpu: '0,1'" "$F" solve --draft-gpu 0,1 x
bad "--draft-gpu: '-1'" "$F" model perf "$TINY_TARGET" --draft "$TINY_DRAFT" --draft-gpu -1
bad "--draft-gpu first: not a number from 0 to 1023" "$BIN/forerun-coordinator" --draft-gpu first
bad --text "$F" model vocab "$TINY_TARGET"
bad backend "$F" solve --backend nonsense x
for policy in step draft; do # in a cluster that never has a draft model
    bad "policy $policy: needs a --draft" "$F" solve --target "$TINY_TARGET" --policy $policy x
    bad "policy $policy: needs a --draft" "$F" bench --target "$TINY_TARGET" --policies target,$policy \
        --data "$ROOT/deploy/models/tiny/dev.jsonl"
done
bad "ranks work" "$F" solve --ranks 17 x
# Told before any rank starts: no mpirun is found here.
mkdir "$T/no-mpirun"
ln -s "$(command -v wc)" "$(command -v grep)" "$(command -v cat)" "$(command -v cut)" "$(command -v basename)" "$T/no-mpirun/"
PATH=$T/no-mpirun bad "ranks work" "$F" solve --ranks 17 x
PATH=$T/no-mpirun bad "ranks work" "$F" model perf --ranks 17 "$TINY_TARGET"
bad UTF-8 "$F" solve $'ab\xff'
bad empty "$F" solve ""
bad problem "$F" solve
bad context "$F" solve "$(printf '12345 %.0s' {1..2000})"
bad context "$F" solve --context 64 --policy target "$(question 1)"
bad JOB "$F" cancel seven
bad nonsense "$F" solve --connect nonsense x
bad "--ranks is for a private one" "$F" solve --connect tcp://127.0.0.1:1 --ranks 2 x
bad "--gpus is for a private one" "$F" solve --connect tcp://127.0.0.1:1 --gpus 1 x
bad "--draft is for a private one" "$F" solve --connect tcp://127.0.0.1:1 --draft "$TINY_DRAFT" x
bad "--placement sideways" "$BIN/forerun-worker" --model "$TINY_TARGET" --placement sideways
bad "--placement" "$BIN/forerun-worker" --model "$TINY_TARGET" --placement
bad "there are auto, on and off" "$BIN/forerun-coordinator" --overlap maybe
bad "--draft-threads 2000: not a number from 1 to 1024" "$BIN/forerun-coordinator" --draft-threads 2000
bad "--log loud" "$BIN/forerun-coordinator" --log loud
bad "--draft-weights: 'q3_0'" "$BIN/forerun-coordinator" --draft-weights q3_0
bad stray "$BIN/forerun-coordinator" stray
bad "--bind" "$BIN/forerun-coordinator" --bind
bad "--no-such-option" "$BIN/forerun-coordinator" --no-such-option
bad cpu_ref "$F" model perf "$TINY_TARGET" --backend x
if [ -n "${FORERUN_MODELS:-}" ] && [ -e "$FORERUN_MODELS/smollm2-135m-instruct-q4_1.gguf" ]; then
    bad tokenizer "$F" solve --policy token --target smollm2-135m-instruct-q4_1 --draft "$TINY_DRAFT" x
fi

# --- data and configuration
printf '{"id":"a","question":"q","answer":"1"}\n{"id":"b"}\n' >"$T/data.jsonl"
bad data.jsonl:2 "$F" bench --data "$T/data.jsonl" --policies target
bad none.jsonl "$F" bench --data "$T/none.jsonl" --policies target
bad nonsense "$F" bench --data "$ROOT/deploy/models/tiny/dev.jsonl" --limit 1 --policies nonsense
printf '[cluster]\nspeed = high\n' >"$T/x.ini"
bad x.ini:2 "$F" up "$T/x.ini"
printf '[group a]\nrole = target\nmodel = embedded\ngpus = 0,x\n' >"$T/x.ini"
bad "[group a] gpus: '0,x'" "$F" up "$T/x.ini"
printf '[group a]\nrole = target\nmodel = %s\n[cluster]\nrun_dir = %s\nbind = tcp://127.0.0.1:0\n' "$T/empty.gguf" "$T/run" >"$T/x.ini"
bad empty.gguf "$F" up --detach "$T/x.ini"
start_coordinator busy tcp://127.0.0.1:0
printf '[cluster]\nbind = %s\nrun_dir = %s\n[group a]\nrole = target\nmodel = embedded\n' "$EP" "$T/run" >"$T/x.ini"
bad "${EP#tcp://}" "$F" up --detach "$T/x.ini"
stop busy

wait_for 20 "all processes to be gone" gone
