"""Writes a small GGUF model of random weights in the types that Q4_K_M files hold: nothing to talk to, but passes over
it run the kernels that matter, and it is the same for ever (models that are trained come and go)."""
import random
import struct

DIM, FF, HEADS, KV_HEADS, LAYERS, VOCAB = 512, 1024, 8, 2, 2, 2048
U32, F32, STRING, ARRAY = 4, 6, 8, 9

# Name: GGUF's number, values and bytes of a block, and how one is made: codes of any value, scales that keep sums small.
TYPES = {
    "F32": (0, 1, 4, lambda r: struct.pack("<f", 1)),
    "Q5_0": (6, 32, 22, lambda r: struct.pack("<e", 0.004) + r.randbytes(20)),
    "Q8_0": (8, 32, 34, lambda r: struct.pack("<e", 0.0005) + r.randbytes(32)),
    "Q4_K": (12, 256, 144, lambda r: struct.pack("<ee", 0.0002, 0.001) + r.randbytes(140)),
    "Q6_K": (14, 256, 210, lambda r: r.randbytes(208) + struct.pack("<e", 0.00002)),
}


def tensors():
    """(name, type, rows, columns) of all; rows 0 for a vector."""
    kv = DIM // HEADS * KV_HEADS
    yield "token_embd.weight", "Q8_0", VOCAB, DIM
    yield "output.weight", "Q6_K", VOCAB, DIM
    yield "output_norm.weight", "F32", 0, DIM
    for layer in range(LAYERS):
        for part, kind, rows, cols in (
                ("attn_norm", "F32", 0, DIM), ("ffn_norm", "F32", 0, DIM), ("attn_q", "Q4_K", DIM, DIM),
                ("attn_k", "Q5_0", kv, DIM), ("attn_v", "Q6_K", kv, DIM), ("attn_output", "Q4_K", DIM, DIM),
                ("ffn_gate", "Q4_K", FF, DIM), ("ffn_up", "Q8_0", FF, DIM), ("ffn_down", "Q6_K", DIM, FF)):
            yield f"blk.{layer}.{part}.weight", kind, rows, cols


def spellings():
    """GPT-2's characters for the 256 bytes, then made-up tokens."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    other = [b for b in range(256) if b not in plain]
    letters = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(other)}
    return [letters[b] for b in range(256)] + [f"token{i}" for i in range(256, VOCAB)]


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def metadata():
    def value(key, kind, packed):
        return string(key) + struct.pack("<I", kind) + packed

    def strings(key, texts):
        return value(key, ARRAY, struct.pack("<IQ", STRING, len(texts)) + b"".join(map(string, texts)))

    numbers = {"block_count": LAYERS, "context_length": 512, "embedding_length": DIM, "feed_forward_length": FF,
               "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS}
    entries = [value("general.architecture", STRING, string("llama"))]
    entries += [value("llama." + key, U32, struct.pack("<I", n)) for key, n in numbers.items()]
    entries += [value("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
                value("tokenizer.ggml.model", STRING, string("gpt2")),
                strings("tokenizer.ggml.tokens", spellings()), strings("tokenizer.ggml.merges", [])]
    return entries


def write(path):
    r = random.Random(4)
    infos, data = b"", b""
    n = 0
    for name, kind, rows, cols in tensors():
        number, values, size, make = TYPES[kind]
        dims = [cols, rows] if rows else [cols]
        data += bytes(-len(data) % 32)
        infos += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, len(data))
        data += b"".join(make(r) for _ in range(cols * max(rows, 1) // values))
        n += 1
    entries = metadata()
    head = b"GGUF" + struct.pack("<IQQ", 3, n, len(entries)) + b"".join(entries) + infos
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + data)
