#!/usr/bin/env python3
"""Measures llama.cpp, or its fork ik_llama.cpp, on a GGUF model the way `forerun model perf` measures Forerun: the same
passes over as many tokens, and the same greedy speculation on the same prompt. Prints one JSON object with the same fields.

    python3 -m venv VENV && VENV/bin/pip install llama-cpp-python    # builds llama.cpp: some 10 minutes on 2 cores
    VENV/bin/python tests/bench/peer_llama.py MODEL.gguf [--draft DRAFT.gguf] [--threads 2] [--runs 5]

The fork. The package's own library knows AVX2 only, so it is given one that is built for this machine (20 minutes):
    python3 -m venv VENV && VENV/bin/pip install --no-deps ik-llama-cpp-python && VENV/bin/pip install numpy
    VENV/bin/pip download --no-deps --no-binary :all: ik-llama-cpp-python && tar xzf ik_llama_cpp_python-*.tar.gz
    cmake -S ik_llama_cpp_python-*/vendor/ik_llama.cpp -B BUILD -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \\
        -DBUILD_SHARED_LIBS=ON && cmake --build BUILD --target llama
    export IK_LLAMA_CPP_LIB_PATH=BUILD/src/libllama.so LD_LIBRARY_PATH=BUILD/ggml/src
    VENV/bin/python tests/bench/peer_llama.py MODEL.gguf [--repack]  # weights repacked at load, its option -rtr

Needs nothing but one of these packages and numpy; the library is called through its C functions."""
import argparse
import ctypes
import importlib.metadata
import json
import statistics
import sys
import time

import numpy

try:
    import llama_cpp as llama
    FORK = False
except ImportError:
    from ik_llama_cpp import _ctypes_api as llama
    FORK = True

# As in coordinator/client/model_perf_run.c.
CONTEXT = 64
DECODED = 32
PREFILL = 256
SPEC_TOKENS = 96
WIDTHS = (1, 2, 4, 8, 16, 32)
DEPTHS = (0, 2, 3, 4, 8)
PROMPT = ("<|im_start|>user\nA bakery sells 48 loaves in the morning and half as many in the afternoon. Each loaf costs 3 "
          "dollars. The ingredients of a loaf cost 1 dollar, and the rent of the shop is 60 dollars a day. How much money "
          "is left at the end of the day? Please reason step by step.<|im_end|>\n<|im_start|>assistant\n")


def remove_positions(context, n):
    """Of sequence 0, from n on."""
    if FORK:
        remove = llama._lib.llama_kv_cache_seq_rm
        remove.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
        remove(context, 0, n, -1)
    else:
        llama.llama_memory_seq_rm(llama.llama_get_memory(context), 0, n, -1)


def be_silent():
    """The callback is returned: it must outlive the library's use of it."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    silent = kind(lambda level, text, user: None)
    library = llama._lib if FORK else ctypes.CDLL(llama.llama_cpp._lib._name)
    library.llama_log_set(silent, ctypes.c_void_p(0))
    return silent


def version():
    name = "ik-llama-cpp-python" if FORK else "llama-cpp-python"
    return name + " " + importlib.metadata.version(name.replace("-", "_"))


class Sequence:
    """A model with one sequence: tokens are appended, looked at, and cut off again."""

    def __init__(self, path, threads, repack):
        start = time.perf_counter()
        model_params = llama.llama_model_default_params()
        if repack:
            model_params.repack_tensors, model_params.use_mmap = True, False
        self.model = llama.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            sys.exit(f"peer_llama: cannot load {path}")
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 2048, 512, 512
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"peer_llama: no context for {path}")
        self.load_s = time.perf_counter() - start
        vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(vocab)
        self.tokenizer = self.model if FORK else vocab
        self.batch = llama.llama_batch_init(512, 0, 1)
        self.n = 0

    def tokens(self, text):
        raw = text.encode()
        out = (llama.llama_token * (len(raw) + 8))()
        n = llama.llama_tokenize(self.tokenizer, raw, len(raw), out, len(out), False, True)
        return list(out[:n])

    def append(self, tokens, all_rows=False):
        """One pass; the logits of the last token, or of all, are computed."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, self.n + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = all_rows or i == len(tokens) - 1
        if llama.llama_decode(self.context, batch):
            sys.exit("peer_llama: llama_decode failed")
        self.n += len(tokens)

    def cut(self, n):
        if n < self.n:
            remove_positions(self.context, n)
            self.n = n

    def best(self, row):
        logits = llama.llama_get_logits_ith(self.context, row)
        return int(numpy.ctypeslib.as_array(logits, (self.n_vocab,)).argmax())


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_decode(s, text):
    s.cut(0)
    s.append(text[:CONTEXT])
    times, token = [], s.best(-1)
    for _ in range(DECODED):
        start = time.perf_counter()
        s.append([token])
        token = s.best(-1)
        times.append(time.perf_counter() - start)
    s.cut(CONTEXT)
    return 1 / statistics.median(times)


def measure_verify(s, text, runs):
    """From a context of CONTEXT tokens; the widths take turns."""
    times = {n: [] for n in WIDTHS}

    def verify(n):
        s.append(text[CONTEXT:CONTEXT + n], True)
        for row in range(n):
            s.best(row)

    for _ in range(runs):
        for n in WIDTHS:
            times[n].append(seconds(lambda: verify(n)))
            s.cut(CONTEXT)
    return {str(n): 1e3 * statistics.median(t) for n, t in times.items()}


def measure_prefill(s, text, runs):
    times = []
    for _ in range(runs):
        s.cut(0)
        times.append(seconds(lambda: s.append(text[:PREFILL])))
    return PREFILL / statistics.median(times)


def write_draft(draft, chain, depth):
    """Lets the draft catch up with the chain and write `depth` tokens."""
    draft.append(chain[draft.n:])
    drafted = [draft.best(-1)]
    while len(drafted) < depth:
        draft.append(drafted[-1:])
        drafted.append(draft.best(-1))
    return drafted


def speculate(target, draft, depth):
    """Tokens a second, and tokens a target pass, of strict greedy speculation. Depth 0: none."""
    chain = target.tokens(PROMPT)
    target.cut(0)
    target.append(chain)
    draft.cut(0)
    draft.append(chain)
    chain.append(target.best(-1))
    first, passes, start = len(chain), 0, time.perf_counter()
    while len(chain) - first < SPEC_TOKENS:
        n = len(chain)
        drafted = write_draft(draft, chain, depth) if depth else []
        target.append(chain[-1:] + drafted, True)
        own = [target.best(row) for row in range(len(drafted) + 1)]
        kept = 0
        while kept < len(drafted) and drafted[kept] == own[kept]:
            kept += 1
        chain += own[:kept + 1]
        target.cut(n + kept)
        draft.cut(n + kept)
        passes += 1
    made = len(chain) - first
    return {"tok_s": made / (time.perf_counter() - start), "tokens_per_pass": made / passes}


def rss_mb():
    with open("/proc/self/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--draft", help="also measure speculation with this draft model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--repack", action="store_true", help="ik_llama.cpp: repack the weights at load")
    args = parser.parse_args()
    if args.repack and not FORK:
        parser.error("--repack is an option of ik_llama.cpp, which is not in this environment")
    silent = be_silent()
    llama.llama_backend_init()
    s = Sequence(args.model, args.threads, args.repack)
    text = s.tokens(PROMPT)
    text *= PREFILL // len(text) + 1
    s.append(text[:8])  # the first pass also makes the compute buffers
    out = {"engine": "ik_llama.cpp" if FORK else "llama.cpp", "version": version(), "threads": args.threads,
           "decode_tok_s": measure_decode(s, text), "verify_ms": measure_verify(s, text, args.runs),
           "prefill_tok_s": measure_prefill(s, text, args.runs), "load_s": s.load_s, "rss_mb": rss_mb()}
    if args.draft:
        draft = Sequence(args.draft, args.threads, args.repack)
        out["spec_tok_s"] = {str(k): speculate(s, draft, k) for k in DEPTHS}
    print(json.dumps(out))
    del silent


if __name__ == "__main__":
    main()
