"""Llama-shaped language model: RMSNorm, interleaved RoPE, GQA, SwiGLU, tied head."""
import ctypes
import os
import subprocess

import torch
import torch.nn as nn
import torch.nn.functional as F

# ffn/4, dim/4 and vocab/4 stay multiples of 32 for the target, so a four-way
# tensor split keeps whole Q8_0 blocks; the draft splits two ways.
SIZES = {
    "target": dict(dim=256, layers=6, heads=8, kv_heads=4, ffn=512, early=3),
    "draft": dict(dim=128, layers=3, heads=4, kv_heads=2, ffn=256),
}
CONTEXT = 2048
EPS = 1e-5
THETA = 10000.0
GUIDE_WEIGHT = 0.2
GUIDE = 1            # the block whose heads are shown where to look


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * w in few passes; the reciprocal root is kept for backward."""

    @staticmethod
    def forward(ctx, x, w):
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = r.square_().div_(x.shape[-1]).add_(EPS).rsqrt_()
        ctx.save_for_backward(x, w, r)
        return x * r * w

    @staticmethod
    def backward(ctx, g):
        x, w, r = ctx.saved_tensors
        n = x * r
        dw = (g * n).flatten(0, -2).sum(0)
        gw = g * w
        dot = (gw * n).mean(-1, keepdim=True)
        return gw.addcmul_(n, dot, value=-1).mul_(r), dw


class Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return RmsNorm.apply(x.float(), self.weight)


class SwiGLU(torch.autograd.Function):
    """silu(g) * u with one saved pair instead of a chain of temporaries."""

    @staticmethod
    def forward(ctx, g, u):
        ctx.save_for_backward(g, u)
        return F.silu(g).mul_(u)

    @staticmethod
    def backward(ctx, d):
        g, u = ctx.saved_tensors
        return torch.ops.aten.silu_backward(d * u, g), F.silu(g).mul_(d)


def rope(x, cis):
    """x [B,T,H,D]; pairs (2i, 2i+1) rotate together, as GGUF arch llama does."""
    z = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(z * cis).flatten(-2)


def dense(lo, own):
    """The boolean mask [B,1,T,T] of what attend.c describes by two numbers."""
    T = lo.shape[1]
    j = torch.arange(T)
    i = j[:, None]
    lo, own = lo[:, :, None], own[:, :, None]
    return ((j < lo) | ((j >= own) & (j <= i)) | ((lo == 0) & (j == i)))[:, None]


class Attend(torch.autograd.Function):
    """Attention of whole training rows through attend.c."""

    @staticmethod
    def forward(ctx, q, k, v, lo, own):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, lse = torch.empty_like(q), torch.empty(q.shape[:3])
        ctx.save_for_backward(q, k, v, lo, own, out, lse)
        Attend.call(KERNEL.attend_forward, q, k, v, lo, own, q, k, out, lse)
        return out

    @staticmethod
    def backward(ctx, g):
        q, k, v, lo, own, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        Attend.call(KERNEL.attend_backward, q, k, v, lo, own, q, k, out, lse,
                    g.contiguous(), dq, dk, dv)
        return dq, dk, dv, None, None

    @staticmethod
    def call(function, q, k, v, lo, own, shape_q, shape_k, *rest):
        sizes = shape_q.shape[0], shape_q.shape[1], shape_k.shape[1], shape_q.shape[2]
        function(*(pointer(t) for t in (q, k, v, lo, own)), *sizes, *(pointer(t) for t in rest))


def pointer(t):
    return ctypes.c_void_p(t.data_ptr())


def load_kernel():
    """attend.c compiled beside this file; None without a compiler or AVX-512."""
    here = os.path.dirname(os.path.abspath(__file__))
    lib, src = os.path.join(here, "build", "attend.so"), os.path.join(here, "attend.c")
    try:
        if not os.path.exists(lib) or os.path.getmtime(lib) < os.path.getmtime(src):
            os.makedirs(os.path.dirname(lib), exist_ok=True)
            subprocess.run([os.environ.get("CC", "cc"), "-O3", "-mavx512f", "-shared", "-fPIC",
                            src, "-o", lib, "-lm"], check=True)
        kernel = ctypes.CDLL(lib)
    except (OSError, subprocess.CalledProcessError):
        return None
    return kernel if kernel.attend_supported() else None


KERNEL = load_kernel()


def attend(q, k, v, see):
    """see is a boolean mask, or (lo, own) for whole training rows."""
    if isinstance(see, tuple) and KERNEL and q.shape[-1] == 32:
        return Attend.apply(q, k, v, *see)
    mask = dense(*see) if isinstance(see, tuple) else see
    r = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k.repeat_interleave(r, 1), v.repeat_interleave(r, 1),
                                          attn_mask=mask)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.h, self.kv = c["dim"], c["heads"], c["kv_heads"]
        self.hd = d // self.h
        self.guided, self.seen = False, None
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.attn_norm, self.ffn_norm = Norm(d), Norm(d)
        self.q, self.k = lin(d, d), lin(d, self.kv * self.hd)
        self.v, self.o = lin(d, self.kv * self.hd), lin(d, d)
        self.gate, self.up, self.down = lin(d, c["ffn"]), lin(d, c["ffn"]), lin(c["ffn"], d)

    def forward(self, x, cis, mask, cache=None):
        B, T, d = x.shape
        r = self.h // self.kv
        y = self.attn_norm(x)
        q = rope(self.q(y).view(B, T, self.h, self.hd), cis).transpose(1, 2)
        k = rope(self.k(y).view(B, T, self.kv, self.hd), cis).transpose(1, 2)
        v = self.v(y).view(B, T, self.kv, self.hd).transpose(1, 2).float()
        if cache is not None:
            k, v = cache.put(self, k, v)
            if T == 1:                             # query heads of a group as rows
                a = F.scaled_dot_product_attention(q.view(B, self.kv, r, self.hd), k, v, attn_mask=mask)
                x = x + self.o(a.reshape(B, 1, d))
                y = self.ffn_norm(x)
                return x + self.down(SwiGLU.apply(self.gate(y), self.up(y)))
        if self.guided:
            self.seen = q, k
        a = attend(q, k, v, mask)
        x = x + self.o(a.transpose(1, 2).reshape(B, T, d))
        y = self.ffn_norm(x)
        return x + self.down(SwiGLU.apply(self.gate(y), self.up(y)))


class LM(nn.Module):
    def __init__(self, c, vocab):
        super().__init__()
        self.c, self.hd = c, c["dim"] // c["heads"]
        self.embed = nn.Embedding(vocab, c["dim"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = Norm(c["dim"])
        self.early = c.get("early", 0)         # blocks before the early prediction
        if self.early:
            self.early_norm = Norm(c["dim"])   # training only, not exported
            self.local = nn.Linear(c["dim"], 1)
        self.aux = nn.Linear(c["dim"], 1)      # training only, not exported
        f = 1.0 / (THETA ** (torch.arange(0, self.hd, 2).float() / self.hd))
        t = torch.outer(torch.arange(CONTEXT).float(), f)
        self.register_buffer("cis", torch.polar(torch.ones_like(t), t), persistent=False)
        std = 0.02 * (256 / c["dim"]) ** 0.5
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=std if isinstance(m, nn.Embedding)
                                else 0.6 * m.weight.shape[1] ** -0.5)
        self.blocks[GUIDE].guided = True
        for b in self.blocks:
            b.o.weight.data.mul_((2 * c["layers"]) ** -0.5)
            b.down.weight.data.mul_((2 * c["layers"]) ** -0.5)

    def hidden(self, ids, pos, mask, cache=None, taps=None):
        x = self.embed(ids)
        cis = self.cis[pos][:, :, None]
        for b in self.blocks:
            x = b(x, cis, mask, cache)
            if taps is not None:
                taps.append(x)
        return self.norm(x)

    def logits(self, h):
        return F.linear(h, self.embed.weight)

    def guide(self, src):
        """Three heads of one block are told which token holds the next one: in
        the question's clause, in the running value, in the copied operand."""
        q, k = self.blocks[GUIDE].seen
        self.blocks[GUIDE].seen = None
        h, kv = q.shape[1], k.shape[1]
        loss, n = 0.0, 0
        for b in range(q.shape[0]):
            for g in range(3):
                at = (src[b, g] >= 0).nonzero()[:, 0]
                if not len(at):
                    continue
                head = g * h // 3
                z = q[b, head, at] @ k[b, head * kv // h].t() * self.hd ** -0.5
                z = z.masked_fill(torch.arange(z.shape[1]) > at[:, None], float("-inf"))
                loss = loss + F.cross_entropy(z, src[b, g, at], reduction="sum")
                n += len(at)
        return loss / max(1, n)

    def forward(self, ids, pos, lo, own, label, weight, aux, src):
        """Weighted next-token loss, and the loss of the mistake detector.

        With `early` set, the first blocks also have to predict the next token,
        and the detector reads the block before the last: a prediction made
        early can be compared with what was written, and the comparison can
        still be read by the score position."""
        taps = []
        h = self.hidden(ids, pos, (lo, own), taps=taps)
        w = weight.flatten()

        def ce(x, w):
            c = F.cross_entropy(self.logits(x).float().flatten(0, 1), label.flatten(), reduction="none")
            return (c * w).sum() / w.sum()

        def detect(head, x, y, m):
            z = head(x).float().squeeze(-1)
            m = m.float() * (1 + 3 * y)
            b = F.binary_cross_entropy_with_logits(z, y, reduction="none")
            return (b * m).sum() / m.sum().clamp(min=1)

        loss = ce(h, w)
        y = aux.clamp(min=0)
        with torch.autocast("cpu", enabled=False):
            guide = GUIDE_WEIGHT * self.guide(src)
        if not self.early:
            return loss, guide + 0.5 * detect(self.aux, h, y, aux >= 0)
        extra = guide + 0.3 * ce(self.early_norm(taps[self.early - 1]), w * (w == 1.0))
        # the token that goes wrong, found one block after the early prediction;
        # then the step that holds it, found before the last block
        later = (aux == 1) & (F.pad(aux[:, :-1], (1, 0), value=-1.0) == 1)
        extra = extra + detect(self.local, taps[self.early], y, (aux >= 0) & ~later)
        return loss, extra + 0.5 * detect(self.aux, taps[-2], y, aux >= 0)


class Cache:
    """Key/value store for batched decoding, one column per generated position."""

    def __init__(self, model, batch, length):
        b = model.blocks[0]
        shape = (batch, b.kv, length, b.hd)
        self.k = {id(m): torch.zeros(shape) for m in model.blocks}
        self.v = {id(m): torch.zeros(shape) for m in model.blocks}
        self.at, self.n = 0, 0

    def put(self, blk, k, v):
        i = id(blk)
        self.k[i][:, :, self.at:self.at + k.shape[2]] = k
        self.v[i][:, :, self.at:self.at + v.shape[2]] = v
        self.n = self.at + k.shape[2]
        return self.k[i][:, :, :self.n], self.v[i][:, :, :self.n]
