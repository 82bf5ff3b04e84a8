"""Llama-shaped language model: RMSNorm, interleaved RoPE, GQA, SwiGLU, tied head."""
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


class Attend(torch.autograd.Function):
    """Masked causal attention by query blocks, so the keys after a block are
    skipped, and gradients go straight to their place.

    In float32: on the CPU used here that beats bfloat16 for small heads."""
    STEP = 128

    @staticmethod
    def forward(ctx, q, k, v, mask):
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        out, lse = torch.empty_like(q), []
        for c in range(0, q.shape[2], Attend.STEP):
            e = min(c + Attend.STEP, q.shape[2])
            o, m = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q[:, :, c:e], k[:, :, :e], v[:, :, :e], attn_mask=mask[:, :, c:e, :e])
            out[:, :, c:e] = o
            lse.append(m)
        ctx.save_for_backward(q, k, v, mask, out, *lse)
        return out

    @staticmethod
    def backward(ctx, g):
        q, k, v, mask, out, *lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for c, m in zip(range(0, q.shape[2], Attend.STEP), lse):
            e = min(c + Attend.STEP, q.shape[2])
            a, b, d = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                g[:, :, c:e], q[:, :, c:e], k[:, :, :e], v[:, :, :e], out[:, :, c:e], m,
                0.0, False, attn_mask=mask[:, :, c:e, :e])
            dq[:, :, c:e] = a
            dk[:, :, :e] += b
            dv[:, :, :e] += d
        return dq, dk, dv, None


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
        n = k.shape[2]
        k = k[:, :, None].expand(B, self.kv, r, n, self.hd).reshape(B, self.h, n, self.hd)
        v = v[:, :, None].expand(B, self.kv, r, n, self.hd).reshape(B, self.h, n, self.hd)
        a = Attend.apply(q, k, v, mask) if cache is None else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
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

    def guide(self, src, mask):
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
                z = q[b, head, at] @ k[b, head * kv // h].t() * self.hd ** -0.5 + mask[b, 0, at]
                loss = loss + F.cross_entropy(z, src[b, g, at], reduction="sum")
                n += len(at)
        return loss / max(1, n)

    def forward(self, ids, pos, mask, label, weight, aux, src):
        """Weighted next-token loss, and the loss of the mistake detector.

        With `early` set, the first blocks also have to predict the next token,
        and the detector reads the block before the last: a prediction made
        early can be compared with what was written, and the comparison can
        still be read by the score position."""
        taps = []
        h = self.hidden(ids, pos, mask, taps=taps)
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
            guide = GUIDE_WEIGHT * self.guide(src, mask)
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
