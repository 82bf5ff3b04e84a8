"""Training samples: one problem per row, score questions as side branches.

A row holds the prompt and a chain of steps (the trunk), then a few branches.
A branch sees the trunk up to the step it rates and nothing after, exactly what
the model sees when a score is asked for at inference time.
"""
import random
import re

import torch

import make_problems as mp
import tok

IGN = -100
BUCKETS = list(range(128, 1537, 64))
SCORE_WEIGHT = 4.0


class Maker:
    def __init__(self, seed, rollouts=None, roll_share=0.35):
        self.rng = random.Random(seed)
        self.tk = tok.load()
        self.offset = 0.0
        self.scores = True           # whether rows get score branches
        self.wrong = (0.5, 0.2)      # share of chains with mistakes, of steps in them
        self.rollouts, self.roll_share = rollouts or [], roll_share
        t = self.tk.token_to_id
        self.end, self.pad = t("<|im_end|>"), t("<|endoftext|>")
        self.sep = self.enc(".\n\n")
        assert len(self.sep) == 1
        self.dot = self.enc(".")[0]
        self.rate = self.enc(tok.rate_turn())
        self.close = self.enc(")")[0]
        self.digit = [self.enc(str(i))[0] for i in range(10)]

    def enc(self, s):
        return self.tk.encode(s, add_special_tokens=False).ids

    def chain(self, steps):
        """A problem with its paragraphs; some wrong, the next ones consistent."""
        rng = self.rng
        p = mp.make_problem(rng, steps)
        wrong_at = set()
        if rng.random() < self.wrong[0]:
            wrong_at = {i for i in range(1, steps + 2) if rng.random() < self.wrong[1]}
            wrong_at.add(rng.randint(1, steps + 1))
        v, out, said = p["start"], [], mp.clauses(p)
        for i in range(1, steps + 2):
            t = None
            if i in wrong_at:
                t = mp.corrupt(rng, i, v, p)
            if t is None:
                if i > steps:
                    t = mp.answer_text(v)
                else:
                    t = mp.step_text(i, said[i - 1], v, *p["ops"][i - 1])
            out.append(t)
            s, v, done = mp.grade(t, i, v, p)
            if done or not self.viable(p, i, v):
                break
        return p, out

    @staticmethod
    def viable(p, i, v):
        for op, n in p["ops"][i:]:
            v = mp.apply_op(v, op, n)
            if not 0 <= v <= mp.MAXV:
                return False
        return 0 <= v <= mp.MAXV

    def sample(self, lo, hi):
        rng = self.rng
        if self.rollouts and rng.random() < self.roll_share:
            p, paras = self.rollouts[rng.randrange(len(self.rollouts))]
        else:
            p, paras = self.chain(rng.randint(lo, hi))
        return self.row(p, paras)

    def row(self, p, paras):
        rng = self.rng
        system = rng.random() < 0.05
        n_ops, off = len(p["ops"]), 0
        if n_ops <= 12 and rng.random() < self.offset:
            off = rng.randint(1, mp.MAX_STEPS - n_ops)
        question = p["question"]
        if off:      # short rows that still use the high step numbers
            question = re.sub(r"\((\d+)\)", lambda m: "(%d)" % (int(m.group(1)) + off), question)
        ids = self.enc(tok.prompt(question, system))
        n0 = len(ids)
        label = [IGN] * (n0 - 1)
        weight_aux = [-1.0] * n0
        v, marks, said = p["start"], [], mp.clauses(p)
        src = [[-1] * n0 for _ in range(3)]
        at = self.run(ids, 0)[0]
        where = range(at, at + len(str(v)))
        at = 0
        for i, t in enumerate(paras, 1):
            last = t.startswith("The answer")
            good = (mp.answer_text(v) if i > len(p["ops"])
                    else mp.step_text(i, said[i - 1], v, *p["ops"][i - 1]))
            s, v, done = mp.grade(t, i, v, p)
            e = self.enc(shift(t, off) + ("" if last else "\n\n"))
            g = e if s == mp.SCORE_OK else self.enc(shift(good, off) + "\n\n")
            bad = len(e)
            if s != mp.SCORE_OK:
                bad = next((k for k, (x, y) in enumerate(zip(e, g)) if x != y), len(e) - 1)
            base = len(ids)
            for g in src:
                g += [-1] * len(e)
            if last:
                k = self.run(e, 0)[0]
                self.point(src[1], base + k - 1, where[:max(0, bad - k + 1)])
            elif i <= len(p["ops"]):
                c = self.enc(" (%d) %s" % (i + off, said[i - 1]))
                while ids[at:at + len(c)] != c:
                    at += 1
                skip = c.index(self.close) + 1
                keys = range(at + skip, at + len(c))
                self.point(src[0], base + skip, keys[:max(0, bad - skip - 1)])
                m = len(c) + 3                   # where the running value starts
                if bad > m:
                    self.point(src[1], base + m - 1, where[:bad - m])
                m += len(where) + 1              # where the operand starts
                num, k = str(p["ops"][i - 1][1]), self.run(c, skip)
                if bad > m and self.tk.decode(c[k[0]:k[1]]) == num:
                    self.point(src[2], base + m - 1, range(base + 1 + k[0], base + 1 + k[1])[:bad - m])
            ids += e
            if not last:
                where = range(len(ids) - 1 - len(str(v)), len(ids) - 1)
            label += e[:bad] + [IGN] * (len(e) - bad)
            weight_aux += [0.0] * bad + [1.0] * (len(e) - bad)
            marks.append((len(ids) - 1, s, last))
            if done:
                if s == mp.SCORE_OK:
                    ids.append(self.end)
                    label.append(self.end)
                    weight_aux.append(-1.0)
                break
            if s != mp.SCORE_OK and not self.viable(p, i, v):
                break                           # nothing sensible can follow
        label.append(IGN)                       # label[k] is what follows ids[k]
        n = len(ids)
        assert len(label) == n == len(weight_aux)
        row = dict(ids=ids, label=label, aux=weight_aux, w=[1.0] * n,
                   pos=list(range(n)), lo=list(range(1, n + 1)), own=list(range(1, n + 1)), src=src)
        if not self.scores:
            return row
        bad = [m for m in marks if m[1] != mp.SCORE_OK]
        ok = [m for m in marks if m[1] == mp.SCORE_OK]
        rng.shuffle(bad)
        rng.shuffle(ok)
        pick = bad[:min(3, 2 + n_ops // 4)] + ok[:2]
        for at, s, last in pick:
            body = list(self.rate)
            if not last and rng.random() < 0.5:  # the step without its blank line
                body = [self.dot] + body
                at -= 1
            body += [self.digit[s]]
            m = len(body)
            row["ids"] += body
            row["label"] += [IGN] * (m - 2) + [self.digit[s], self.end]
            row["w"] += [1.0] * (m - 2) + [SCORE_WEIGHT, 0.2]
            row["aux"] += [-1.0] * m
            row["pos"] += list(range(at + 1, at + 1 + m))
            row["own"] += [len(row["lo"])] * m
            row["lo"] += [at + 1] * m
        return row

    def run(self, ids, start):
        """(first, end) of the first run of digits at or after start."""
        k = start
        while k < len(ids) and ids[k] not in self.digit:
            k += 1
        e = k
        while e < len(ids) and ids[e] in self.digit:
            e += 1
        return k, e

    @staticmethod
    def point(guide, first, keys):
        """The tokens from first on are each followed by a copy of the next key."""
        guide[first:first + len(keys)] = keys

    def batches(self, span, tokens):
        """Endless batches of about `tokens` tokens; span() gives the step range."""
        queue = {b: [] for b in BUCKETS}
        while True:
            r = self.sample(*span())
            n = len(r["ids"])
            if n > BUCKETS[-1]:
                continue
            b = next(x for x in BUCKETS if x >= n)
            queue[b].append(r)
            if len(queue[b]) == max(1, tokens // b):
                yield collate(queue[b], b, self.pad)
                queue[b] = []


def shift(text, off):
    """The step with its number raised by off."""
    return re.sub(r"^Step \((\d+)\)", lambda m: "Step (%d)" % (int(m.group(1)) + off), text) if off else text


def collate(rows, T, pad):
    def stack(key, fill, dt):
        return torch.tensor([r[key] + [fill] * (T - len(r[key])) for r in rows], dtype=dt)
    # lo and own say what a token sees: see attend.c
    ids = stack("ids", pad, torch.long)
    label = stack("label", IGN, torch.long)
    w = stack("w", 0.0, torch.float) * (label != IGN)
    src = torch.tensor([[g + [-1] * (T - len(g)) for g in r["src"]] for r in rows])
    return dict(ids=ids, src=src, pos=stack("pos", 0, torch.long),
                lo=stack("lo", 0, torch.int32), own=stack("own", T, torch.int32),
                label=label.clamp(min=0), weight=w, aux=stack("aux", -1.0, torch.float))
