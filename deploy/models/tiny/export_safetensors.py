#!/usr/bin/env python3
"""Write a GGUF file of this pair as a model folder, as Hugging Face's publishers ship them. Needs nothing but Python.

    export_safetensors.py tiny-draft.gguf FOLDER [--type f32|f16|bf16] [--shards N] [--text-merges] [--f16-gguf FILE]
    export_safetensors.py ANY.gguf FOLDER --tokenizer-only

Q8_0, F16 and F32 tensors are read. GGUF files of llama hold the rows of Q and K permuted; here they are put back.
--f16-gguf writes the same values once more, as GGUF: what a test compares the folder with. --tokenizer-only writes the
tokenizer of any GGUF file beside one layer of zeros."""
import argparse
import json
import math
import mmap
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = {0: "<I", 1: "<i", 2: "<H", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")


class Gguf:
    """The metadata of a GGUF file, and its tensors as (type, dims, bytes)."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self.at = 8
        n_tensors, n_meta = self.number("<Q"), self.number("<Q")
        self.meta = {}
        for _ in range(n_meta):
            key = self.text()
            self.meta[key] = self.value(self.number("<I"))
        entries = [(self.text(), [self.number("<Q") for _ in range(self.number("<I"))], self.number("<I"),
                    self.number("<Q")) for _ in range(n_tensors)]
        align = self.meta.get("general.alignment", 32)
        start = (self.at + align - 1) // align * align
        self.tensors = {name: (kind, dims, start + offset) for name, dims, kind, offset in entries}

    def number(self, code):
        v = struct.unpack_from(code, self.data, self.at)[0]
        self.at += struct.calcsize(code)
        return v

    def text(self):
        n = self.number("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, n = self.number("<I"), self.number("<Q")
            return [self.value(inner) for _ in range(n)]
        return self.number({0: "<B", 1: "<b", 3: "<h"}.get(kind) or SIZES[kind])

    def rows(self, name):
        """The tensor's rows as lists of numbers."""
        kind, dims, at = self.tensors[name]
        cols, n = dims[0], dims[1] if len(dims) > 1 else 1
        if kind == 8:                               # blocks of an F16 scale and 32 numbers
            size = cols // 32 * 34
            for r in range(n):
                row = []
                for b in range(at + r * size, at + (r + 1) * size, 34):
                    scale, *q = struct.unpack_from("<e32b", self.data, b)
                    row += [scale * v for v in q]
                yield row
        else:
            code, size = {0: ("f", 4), 1: ("e", 2)}[kind]
            for r in range(n):
                yield list(struct.unpack_from("<%d%s" % (cols, code), self.data, at + r * cols * size))


def pack(row, kind):
    if kind == "bf16":                              # round to nearest even
        raw = struct.unpack("<%dI" % len(row), struct.pack("<%df" % len(row), *row))
        return struct.pack("<%dH" % len(row), *((v + 0x7fff + (v >> 16 & 1)) >> 16 for v in raw))
    return struct.pack("<%d%s" % (len(row), {"f32": "f", "f16": "e"}[kind]), *row)


def their_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, end = name.split(".")
    return "model.layers.%s.%s.%s" % (layer, NAMES[part], end)


def permute(rows, heads):
    """Pairs (2i, 2i+1) of each head become (i, i + n/2)."""
    size = len(rows) // heads
    half = size // 2
    order = [i * 2 if i < half else (i - half) * 2 + 1 for i in range(size)]
    return [rows[h * size + i] for h in range(heads) for i in order]


def tensors(g, arch, kind):
    """(name, type, shape, bytes) of each tensor; vectors stay F32."""
    heads = {"attn_q": g.meta[arch + ".attention.head_count"], "attn_k": g.meta[arch + ".attention.head_count_kv"]}
    for name, (_, dims, _) in g.tensors.items():
        if name == "rope_freqs.weight":
            continue
        rows = list(g.rows(name))
        part = name.split(".")[2] if name.startswith("blk.") else ""
        if arch == "llama" and part in heads and len(dims) == 2:
            rows = permute(rows, heads[part])
        k = kind if len(dims) > 1 else "f32"
        yield their_name(name), k.upper(), dims[::-1], b"".join(pack(r, k) for r in rows)


def write_shard(path, list_):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, kind, shape, data in list_:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, _, data in list_))


def write_weights(folder, all_, shards):
    if shards == 1:
        write_shard(os.path.join(folder, "model.safetensors"), all_)
        return
    weight_map = {}
    for i in range(shards):
        name = "model-%05d-of-%05d.safetensors" % (i + 1, shards)
        part = all_[len(all_) * i // shards:len(all_) * (i + 1) // shards]
        write_shard(os.path.join(folder, name), part)
        weight_map.update({tensor[0]: name for tensor in part})
    total = sum(len(tensor[3]) for tensor in all_)
    write_json(folder, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)


def config(g, arch, kind):
    m = lambda key: g.meta[arch + "." + key]
    heads, dim = m("attention.head_count"), m("embedding_length")
    c = {"architectures": [ARCHITECTURES[arch]], "hidden_size": dim, "num_hidden_layers": m("block_count"),
         "num_attention_heads": heads, "num_key_value_heads": m("attention.head_count_kv"), "hidden_act": "silu",
         "intermediate_size": m("feed_forward_length"), "rms_norm_eps": m("attention.layer_norm_rms_epsilon"),
         "max_position_embeddings": m("context_length"), "rope_theta": g.meta.get(arch + ".rope.freq_base", 10000.0),
         "rope_scaling": None, "vocab_size": g.tensors["token_embd.weight"][1][1],
         "tie_word_embeddings": "output.weight" not in g.tensors,
         "torch_dtype": {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[kind]}
    if arch + ".attention.key_length" in g.meta:
        c["head_dim"] = m("attention.key_length")
    return c


def write_stub(g, folder):
    """A llama of one layer, 16 wide, all zeros, with as many tokens as the file has."""
    n = len(g.meta["tokenizer.ggml.tokens"])
    write_json(folder, "config.json", {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 16, "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "vocab_size": n,
        "tie_word_embeddings": True})
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {"token_embd.weight": [n, 16], "output_norm.weight": [16], "blk.0.attn_norm.weight": [16],
              "blk.0.ffn_norm.weight": [16], **{"blk.0.%s.weight" % part: [16, 16] for part in square}}
    write_weights(folder, [(their_name(name), "F16", shape, bytes(2 * math.prod(shape)))
                           for name, shape in shapes.items()], 1)


def pre_tokenizer(name):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    if name == "smollm":
        steps = [{"type": "Digits", "individual_digits": True}, dict(byte_level, use_regex=True)]
    else:
        regex = {"qwen2": LLAMA3.replace("DIGITS", r"\p{N}"), "llama-bpe": LLAMA3.replace("DIGITS", r"\p{N}{1,3}"),
                 "gpt-2": GPT2}[name]
        steps = [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}, byte_level]
    return {"type": "Sequence", "pretokenizers": steps}


def tokenizer(g, pairs):
    """tokenizer.json from a GGUF vocabulary; merges as pairs, or as texts."""
    names, kinds = g.meta["tokenizer.ggml.tokens"], g.meta["tokenizer.ggml.token_type"]
    merges = g.meta["tokenizer.ggml.merges"]
    added = [{"id": i, "content": t, "special": kinds[i] == 3} for i, t in enumerate(names) if kinds[i] in (3, 4)]
    return {"version": "1.0", "added_tokens": added, "normalizer": None,
            "pre_tokenizer": pre_tokenizer(g.meta["tokenizer.ggml.pre"]), "post_processor": None,
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for i, t in enumerate(names) if kinds[i] == 1},
                      "merges": [m.split(" ") for m in merges] if pairs else merges}}


def write_tokenizer(g, folder, pairs):
    write_json(folder, "tokenizer.json", tokenizer(g, pairs))
    names = g.meta["tokenizer.ggml.tokens"]
    bos, eos = g.meta["tokenizer.ggml.bos_token_id"], g.meta["tokenizer.ggml.eos_token_id"]
    settings = {"add_bos_token": g.meta.get("tokenizer.ggml.add_bos_token", False), "bos_token": names[bos],
                "eos_token": {"content": names[eos], "special": True},
                "chat_template": g.meta.get("tokenizer.chat_template")}
    write_json(folder, "tokenizer_config.json", settings)
    write_json(folder, "generation_config.json", {"bos_token_id": bos, "eos_token_id": [eos]})


def write_gguf(g, path, arch):
    """The file once more with F16 matrices; metadata and order as they were."""
    def text(s):
        raw = s.encode()
        return struct.pack("<Q", len(raw)) + raw
    first = 24
    for name in g.tensors:                          # the metadata end where the first tensor's entry begins
        first = g.data.find(text(name))
        break
    head, data = [], []
    at = 0
    for name, (_, dims, _) in g.tensors.items():
        kind = "f16" if len(dims) > 1 else "f32"
        raw = b"".join(pack(r, kind) for r in g.rows(name))
        head.append(text(name) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, 1 if kind == "f16" else 0, at))
        data.append(raw + b"\0" * (-len(raw) % 32))
        at += len(data[-1])
    top = g.data[:first] + b"".join(head)
    with open(path, "wb") as f:
        f.write(top + b"\0" * (-len(top) % 32) + b"".join(data))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("gguf")
    ap.add_argument("folder")
    ap.add_argument("--type", default="f16", choices=["f32", "f16", "bf16"])
    ap.add_argument("--shards", type=int, default=1)
    ap.add_argument("--text-merges", action="store_true", help="merges as texts, not as pairs")
    ap.add_argument("--tokenizer-only", action="store_true")
    ap.add_argument("--f16-gguf")
    a = ap.parse_args()
    g = Gguf(a.gguf)
    arch = g.meta["general.architecture"]
    os.makedirs(a.folder, exist_ok=True)
    write_tokenizer(g, a.folder, not a.text_merges)
    if a.tokenizer_only:
        write_stub(g, a.folder)
        return
    write_json(a.folder, "config.json", config(g, arch, a.type))
    write_weights(a.folder, list(tensors(g, arch, a.type)), a.shards)
    if a.f16_gguf:
        write_gguf(g, a.f16_gguf, arch)


if __name__ == "__main__":
    main()
