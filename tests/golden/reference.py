#!/usr/bin/env python3
"""reference.py DIR CASE | --list

Writes a small model folder with random weights (config.json, model.safetensors, the embedded pair's tokenizer) and
golden.json beside it: what the architecture's published definition says after a prompt, computed here in double
precision and plain Python, apart from the engine (Hugging Face transformers: modeling_llama, modeling_qwen2,
modeling_qwen3, modeling_rope_utils). `forerun model check DIR --golden DIR/golden.json` compares."""
import json
import math
import os
import random
import shutil
import struct
import sys

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/models/tiny")
PROMPT, WRITTEN = "3141592653589793", 32  # digits are one token each; tokens written after them
EPS = 1e-5

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CASES = {  # family, weights, head tied to the embedding, rotation's base, its scaling
    "llama": ("llama", "F32", False, 10000.0, None),
    "llama-tied-bf16": ("llama", "BF16", True, 500000.0, None),
    "llama-llama3": ("llama", "F32", False, 500000.0, LLAMA3),
    "llama-linear": ("llama", "F32", False, 10000.0, {"type": "linear", "factor": 4.0}),
    "qwen2": ("qwen2", "F32", False, 1000000.0, None),
    "qwen2-yarn": ("qwen2", "F32", False, 10000.0, YARN),
    "qwen2-f16": ("qwen2", "F16", True, 1000000.0, None),
    "qwen3": ("qwen3", "F32", False, 1000000.0, None),
    "qwen3-tied-bf16": ("qwen3", "BF16", True, 1000000.0, None),
    "qwen3-yarn": ("qwen3", "F32", True, 1000000.0, YARN),
}


def config_of(case):
    family, dtype, tied, base, scaling = CASES[case]
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    config = {"architectures": [names[family] + "ForCausalLM"], "model_type": family, "hidden_size": 64,
              "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": EPS, "rope_theta": base,
              "rope_scaling": scaling, "hidden_act": "silu", "tie_word_embeddings": tied, "eos_token_id": 511,
              "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]}
    if family == "qwen3":  # its heads need not add up to the hidden size
        config["head_dim"] = 32
    return config


def shapes_of(c):
    """(name, [rows, columns] or [values]) of all tensors."""
    hidden, ff, head = c["hidden_size"], c["intermediate_size"], head_of(c)
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", [c["vocab_size"], hidden]
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", [hidden]
        yield at + "post_attention_layernorm.weight", [hidden]
        for part, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("o", hidden, q)):
            yield f"{at}self_attn.{part}_proj.weight", [rows, columns]
            if c["model_type"] == "qwen2" and part != "o":
                yield f"{at}self_attn.{part}_proj.bias", [rows]
        if c["model_type"] == "qwen3":
            yield at + "self_attn.q_norm.weight", [head]
            yield at + "self_attn.k_norm.weight", [head]
        for part, rows, columns in (("gate", ff, hidden), ("up", ff, hidden), ("down", hidden, ff)):
            yield f"{at}mlp.{part}_proj.weight", [rows, columns]
    yield "model.norm.weight", [hidden]
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", [c["vocab_size"], hidden]


def head_of(c):
    return c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])


def stored(values, dtype):
    """Bytes as the file holds them, and the values that those are."""
    if dtype == "BF16":
        data = b"".join(struct.pack("<f", v)[2:] for v in values)
        return data, [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    form = f"<{len(values)}{'e' if dtype == 'F16' else 'f'}"
    data = struct.pack(form, *values)
    return data, list(struct.unpack(form, data))


def write_weights(path, c, dtype):
    """The weights as written, name to rows (or to values). Norms far from 1, biases far from 0: none can be left out."""
    rng, header, at, all_data, weights = random.Random(1), {}, 0, [], {}
    for name, shape in shapes_of(c):
        n = math.prod(shape)
        if "norm" in name:
            values = [rng.uniform(0.5, 2) for _ in range(n)]
        else:
            spread = 1 if "bias" in name or "embed" in name else 1.5 / math.sqrt(shape[1])
            values = [rng.gauss(0, spread) for _ in range(n)]
        data, values = stored(values, dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
        all_data.append(data)
        columns = shape[-1]
        weights[name] = values if len(shape) == 1 else [values[i:i + columns] for i in range(0, n, columns)]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(all_data))
    return weights


# --- the definition ---

def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def product(matrix, x):
    return [dot(row, x) for row in matrix]


def rms_norm(x, weight):
    scale = 1 / math.sqrt(dot(x, x) / len(x) + EPS)
    return [v * scale * w for v, w in zip(x, weight)]


def rotation_of(c):
    """The angles that a position adds to each pair, and what sines and cosines are multiplied by."""
    n, base, scaling = head_of(c), c["rope_theta"], c["rope_scaling"]
    angles = [base ** (-2 * i / n) for i in range(n // 2)]
    kind = scaling and scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        return [a / scaling["factor"] for a in angles], 1
    if kind == "llama3":
        old, low, high = (scaling[k] for k in ("original_max_position_embeddings", "low_freq_factor",
                                               "high_freq_factor"))
        out = []
        for a in angles:
            wavelength = 2 * math.pi / a
            smooth = (old / wavelength - low) / (high - low)
            if wavelength > old / low:
                a /= scaling["factor"]
            elif wavelength >= old / high:
                a = (1 - smooth) * a / scaling["factor"] + smooth * a
            out.append(a)
        return out, 1
    if kind == "yarn":
        factor, old = scaling["factor"], scaling["original_max_position_embeddings"]
        low, high = (n * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1))
        low, high = max(math.floor(low), 0), min(math.ceil(high), n - 1)
        out = []
        for i, a in enumerate(angles):
            kept = 1 - min(max((i - low) / (high - low), 0), 1)
            out.append(a / factor * (1 - kept) + a * kept)
        return out, 0.1 * math.log(factor) + 1
    return angles, 1


def rotated(x, position, rotation):
    angles, magnitude = rotation
    half = len(x) // 2
    out = [0.0] * len(x)
    for i, angle in enumerate(angles):
        cos, sin = math.cos(position * angle) * magnitude, math.sin(position * angle) * magnitude
        out[i] = x[i] * cos - x[i + half] * sin
        out[i + half] = x[i + half] * cos + x[i] * sin
    return out


def attend(q, keys, values):
    scores = [dot(q, k) / math.sqrt(len(q)) for k in keys]
    most = max(scores)
    weights = [math.exp(s - most) for s in scores]
    return [dot(weights, column) / sum(weights) for column in zip(*values)]


class Model:
    """One sequence; position by position, keys and values kept."""

    def __init__(self, c, weights):
        self.c, self.w, self.rotation = c, weights, rotation_of(c)
        self.past = [[([], []) for _ in range(c["num_key_value_heads"])] for _ in range(c["num_hidden_layers"])]
        self.position = 0

    def heads(self, at, part, x):
        """The heads' queries, keys or values, normalised and rotated where they are to be."""
        y, head = product(self.w[f"{at}{part}_proj.weight"], x), head_of(self.c)
        if f"{at}{part}_proj.bias" in self.w:
            y = [a + b for a, b in zip(y, self.w[f"{at}{part}_proj.bias"])]
        out = [y[i:i + head] for i in range(0, len(y), head)]
        if f"{at}{part}_norm.weight" in self.w:
            out = [rms_norm(h, self.w[f"{at}{part}_norm.weight"]) for h in out]
        return out if part == "v" else [rotated(h, self.position, self.rotation) for h in out]

    def attention(self, layer, x):
        at, past = f"model.layers.{layer}.self_attn.", self.past[layer]
        for group, k, v in zip(past, self.heads(at, "k", x), self.heads(at, "v", x)):
            group[0].append(k)
            group[1].append(v)
        queries, out = self.heads(at, "q", x), []
        for i, q in enumerate(queries):
            out += attend(q, *past[i * len(past) // len(queries)])
        return product(self.w[at + "o_proj.weight"], out)

    def feed_forward(self, layer, x):
        at = f"model.layers.{layer}.mlp."
        gate, up = product(self.w[at + "gate_proj.weight"], x), product(self.w[at + "up_proj.weight"], x)
        return product(self.w[at + "down_proj.weight"], [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])

    def log_probabilities(self, token):
        """Feeds a token: the log-probabilities of the next one."""
        x = self.w["model.embed_tokens.weight"][token]
        for layer in range(self.c["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            y = self.attention(layer, rms_norm(x, self.w[at + "input_layernorm.weight"]))
            x = [a + b for a, b in zip(x, y)]
            y = self.feed_forward(layer, rms_norm(x, self.w[at + "post_attention_layernorm.weight"]))
            x = [a + b for a, b in zip(x, y)]
        self.position += 1
        head = self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"])
        logits = product(head, rms_norm(x, self.w["model.norm.weight"]))
        most = max(logits)
        total = most + math.log(sum(math.exp(v - most) for v in logits))
        return [v - total for v in logits]


def write_golden(path, model, prompt_ids):
    for token in prompt_ids:
        says = model.log_probabilities(token)
    tokens = []
    for _ in range(WRITTEN):
        best = max(range(len(says)), key=says.__getitem__)
        tokens.append({"id": best, "logprob": says[best]})
        says = model.log_probabilities(best)
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"reference": "reference.py",
                   "greedy": [{"prompt": PROMPT, "prompt_ids": prompt_ids, "tokens": tokens}]}, f)


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(CASES))
        return
    if len(sys.argv) != 3 or sys.argv[2] not in CASES:
        sys.exit("usage: reference.py DIR CASE | --list")
    folder, case = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    config = config_of(case)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"eos_token": "<|im_end|>", "add_bos_token": False}, f)
    with open(shutil.copy(os.path.join(TINY, "tokenizer.json"), folder), encoding="utf-8") as f:
        vocab = json.load(f)["model"]["vocab"]
    weights = write_weights(os.path.join(folder, "model.safetensors"), config, CASES[case][1])
    write_golden(os.path.join(folder, "golden.json"), Model(config, weights), [vocab[digit] for digit in PROMPT])


if __name__ == "__main__":
    main()
