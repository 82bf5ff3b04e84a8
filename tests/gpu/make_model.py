#!/usr/bin/env python3
"""make_model.py DIR --shape NAME [--tp N] [--list]

Writes a model folder of a real model's shape with random bf16 weights: it says nothing, but every pass over it costs what
one over the real model does. model.safetensors, config.json, and the embedded pair's tokenizer with its vocabulary padded
to the shape's. --tp N: what one of N tensor-parallel ranks holds, as a model of its own: heads, feed-forward width and
vocabulary divided by N. Needs nothing but Python; 16 GB take about 10 s where the disk does."""
import argparse
import json
import os
import random
import struct
import sys

TOKENIZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/models/tiny/tokenizer.json")
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
            "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

# hidden, layers, heads, KV heads, head size, feed-forward, vocabulary, context, head tied to the embedding
FIELDS = ("hidden", "layers", "heads", "kv_heads", "head", "ff", "vocab", "context", "tied", "kind")
SHAPES = {
    "qwen2.5-0.5b": (896, 24, 14, 2, 64, 4864, 151936, 32768, True, "Qwen2"),
    "qwen3-1.7b": (2048, 28, 16, 8, 128, 6144, 151936, 40960, True, "Qwen3"),
    "qwen3-8b": (4096, 36, 32, 8, 128, 12288, 151936, 40960, False, "Qwen3"),
    "qwen3-32b": (5120, 64, 64, 8, 128, 25600, 151936, 40960, False, "Qwen3"),
    "test": (64, 2, 4, 2, 16, 96, 1024, 512, False, "Qwen3"),  # of this script itself
}
BLOCK = (32 << 20) + 2  # bytes of weights that repeat; no multiple of a row, so that no two rows are alike
STRIDE = 1599638  # from where in the block one tensor starts to where the next does: layers differ
ONE = struct.pack("<H", 0x3F80)  # bf16


def shape_of(name, tp):
    """The fields of a shape, or of one rank's slice of it."""
    s = dict(zip(FIELDS, SHAPES[name]))
    for field in ("heads", "kv_heads", "ff", "vocab"):
        if s[field] % tp:
            sys.exit(f"make_model.py: {name} has {s[field]} {field}: not divisible by {tp}")
        s[field] //= tp
    return s


def tensors(s):
    """(name, shape) of all, in the order they are written."""
    q, kv = s["heads"] * s["head"], s["kv_heads"] * s["head"]
    yield "model.embed_tokens.weight", [s["vocab"], s["hidden"]]
    for layer in range(s["layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", [s["hidden"]]
        for part, rows, cols in (("q", q, s["hidden"]), ("k", kv, s["hidden"]), ("v", kv, s["hidden"]),
                                 ("o", s["hidden"], q)):
            yield f"{at}self_attn.{part}_proj.weight", [rows, cols]
            if s["kind"] == "Qwen2" and part != "o":
                yield f"{at}self_attn.{part}_proj.bias", [rows]
        if s["kind"] == "Qwen3":
            yield at + "self_attn.q_norm.weight", [s["head"]]
            yield at + "self_attn.k_norm.weight", [s["head"]]
        yield at + "post_attention_layernorm.weight", [s["hidden"]]
        for part, rows, cols in (("gate", s["ff"], s["hidden"]), ("up", s["ff"], s["hidden"]),
                                 ("down", s["hidden"], s["ff"])):
            yield f"{at}mlp.{part}_proj.weight", [rows, cols]
    yield "model.norm.weight", [s["hidden"]]
    if not s["tied"]:
        yield "lm_head.weight", [s["vocab"], s["hidden"]]


def bytes_of(shape):
    n = 2
    for size in shape:
        n *= size
    return n


def random_block():
    """bf16 of either sign and magnitudes from 1/128 to 1/32: sums stay small, and none is a NaN."""
    block = bytearray(random.Random(1).randbytes(BLOCK))
    block[1::2] = block[1::2].translate(bytes(0x3C | (b & 0x80) for b in range(256)))
    return memoryview(bytes(block))


def write_cycled(f, block, n, start):
    """n bytes of the block repeated, from `start` on."""
    while n > 0:
        piece = block[start:start + n]
        f.write(piece)
        n -= len(piece)
        start = 0


def write_weights(path, s):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(s):
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + bytes_of(shape)]}
        at += bytes_of(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block, start = random_block(), 0
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors(s):
            if "norm" in name:
                f.write(ONE * shape[0])
            else:
                write_cycled(f, block, bytes_of(shape), start)
                start = (start + STRIDE) % BLOCK
    return 8 + len(text) + at


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)


def write_tokenizer(folder, n_vocab):
    with open(TOKENIZER, encoding="utf-8") as f:
        tokenizer = json.load(f)
    vocab, taken = tokenizer["model"]["vocab"], {t["id"] for t in tokenizer["added_tokens"]}
    for i in range(len(vocab) + len(taken), n_vocab):
        vocab[f"padding{i}"] = i
    write_json(os.path.join(folder, "tokenizer.json"), tokenizer)
    write_json(os.path.join(folder, "tokenizer_config.json"),
               {"eos_token": "<|im_end|>", "add_bos_token": False, "chat_template": TEMPLATE})


def write_config(folder, s):
    write_json(os.path.join(folder, "config.json"), {
        "architectures": [s["kind"] + "ForCausalLM"], "model_type": s["kind"].lower(), "torch_dtype": "bfloat16",
        "hidden_size": s["hidden"], "num_hidden_layers": s["layers"], "num_attention_heads": s["heads"],
        "num_key_value_heads": s["kv_heads"], "head_dim": s["head"], "intermediate_size": s["ff"],
        "vocab_size": s["vocab"], "max_position_embeddings": s["context"], "tie_word_embeddings": s["tied"],
        "rms_norm_eps": 1e-6, "rope_theta": 1000000, "hidden_act": "silu", "eos_token_id": 511})


def main():
    p = argparse.ArgumentParser(usage=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("dir", nargs="?")
    p.add_argument("--shape", choices=SHAPES)
    p.add_argument("--tp", type=int, default=1)
    p.add_argument("--list", action="store_true")
    args = p.parse_args()
    if args.list:
        for name in SHAPES:
            s = shape_of(name, 1)
            print(f"{name}: {sum(bytes_of(shape) for _, shape in tensors(s)) / 1e9:.2f} GB")
        return
    if not args.dir or not args.shape or args.tp < 1:
        p.error("a folder and a --shape are needed")
    s = shape_of(args.shape, args.tp)
    os.makedirs(args.dir, exist_ok=True)
    write_config(args.dir, s)
    write_tokenizer(args.dir, s["vocab"])
    size = write_weights(os.path.join(args.dir, "model.safetensors"), s)
    print(f"make_model.py: {args.dir}: {args.shape}, 1 of {args.tp} ranks, {size / 1e9:.2f} GB")


main()
