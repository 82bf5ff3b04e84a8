#!/usr/bin/env python3
"""Measure the pair, or sample the draft's chains for the target's training.

    evaluate.py chains   --model tiny-target.gguf --problems heldout.jsonl
    evaluate.py pair     --model tiny-target.gguf --draft tiny-draft.gguf --problems heldout.jsonl
    evaluate.py rollouts --model draft.pt --count 3000 --seed 55 --out rollouts.jsonl
"""
import argparse
import collections
import json
import random
import time

import torch

import make_problems as mp
import model as M
import tok

TK = None


def enc(s):
    return TK.encode(s, add_special_tokens=False).ids


def load(path):
    """A model from a training checkpoint or from the weights in a GGUF file."""
    global TK
    TK = TK or tok.load()
    if path.endswith(".gguf"):
        import export_gguf
        cfg, state = export_gguf.read_state(path)
        net = M.LM(cfg, tok.VOCAB)
        net.load_state_dict(state, strict=False)
    else:
        ck = torch.load(path, weights_only=True)
        net = M.LM(ck["cfg"], tok.VOCAB)
        net.load_state_dict(ck["model"], strict=False)
    return net.eval()


def left_pad(seqs, room):
    T = max(len(s) for s in seqs)
    pad = TK.token_to_id("<|endoftext|>")
    ids = torch.full((len(seqs), T), pad)
    ok = torch.zeros(len(seqs), T + room, dtype=torch.bool)
    for i, s in enumerate(seqs):
        ids[i, T - len(s):] = torch.tensor(s)
        ok[i, T - len(s):] = True
    pos = (ok[:, :T].long().cumsum(1) - 1).clamp(min=0)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    mask = (causal[None] & ok[:, None, :T])
    mask |= torch.eye(T, dtype=torch.bool)[None]
    return ids, pos, mask[:, None], ok


@torch.no_grad()
def generate(net, prompts, max_new, temperature=0.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    end = TK.token_to_id("<|im_end|>")
    ids, pos, mask, ok = left_pad(prompts, max_new)
    B, T = ids.shape
    cache = M.Cache(net, B, T + max_new)
    h = net.hidden(ids, pos, mask, cache)[:, -1]
    p = pos[:, -1:]
    out = []
    live = torch.ones(B, dtype=torch.bool)
    for k in range(max_new):
        lg = net.logits(h).float()
        if temperature > 0:
            t = torch.multinomial(torch.softmax(lg / temperature, -1), 1, generator=g)[:, 0]
        else:
            t = lg.argmax(-1)
        out.append(t)
        live &= t != end
        if not live.any():
            break
        cache.at = T + k
        p = p + 1
        h = net.hidden(t[:, None], p, ok[:, None, None, :T + k + 1], cache)[:, -1]
    rows = torch.stack(out, 1).tolist()
    return [r[:r.index(end)] if end in r else r for r in rows]


@torch.no_grad()
def digit_probs(net, seqs, batch=32):
    digits = [enc(str(i))[0] for i in range(10)]
    order = sorted(range(len(seqs)), key=lambda i: len(seqs[i]))
    out = [None] * len(seqs)
    for s in range(0, len(order), batch):
        part = order[s:s + batch]
        ids, pos, mask, _ = left_pad([seqs[i] for i in part], 0)
        pr = torch.softmax(net.logits(net.hidden(ids, pos, mask)[:, -1]).float(), -1)[:, digits]
        for i, r in zip(part, pr):
            out[i] = r.tolist()
    return out


def paragraphs(ids):
    return [x for x in TK.decode(ids, skip_special_tokens=False).split("\n\n") if x]


def read_problems(path):
    out = []
    for line in open(path):
        p = json.loads(line)
        p["ops"] = [tuple(o) for o in p["ops"]]
        out.append(p)
    return out


def run_chains(net, probs, batch=100, **kw):
    order = sorted(range(len(probs)), key=lambda i: len(probs[i]["ops"]))
    res = [None] * len(probs)
    for s in range(0, len(order), batch):
        part = order[s:s + batch]
        room = max(len(probs[i]["ops"]) for i in part) * 56 + 40
        outs = generate(net, [enc(tok.prompt(probs[i]["question"])) for i in part], room, **kw)
        for i, o in zip(part, outs):
            res[i] = paragraphs(o)
    return res


def chain_report(probs, chains, quiet=False):
    steps = right = 0
    final = collections.defaultdict(lambda: [0, 0])
    kinds, ops = collections.Counter(), collections.defaultdict(lambda: [0, 0])
    for p, c in zip(probs, chains):
        sc = mp.grade_answer(c, p)
        n = len(p["ops"])
        for i, s in enumerate(sc):
            kinds[s] += 1
            if i < n:
                o = ops[p["ops"][i][0]]
                o[1] += 1
                o[0] += s == 9
                steps += 1
                right += s == 9
        ok = bool(c) and c[-1] == mp.answer_text(mp.apply_all(p))
        final[n][1] += 1
        final[n][0] += ok
    rep = dict(step_accuracy=right / max(1, steps), steps=steps,
               final=sum(a for a, _ in final.values()) / len(probs),
               by_length={n: "%d/%d" % tuple(final[n]) for n in sorted(final)},
               by_op={o: round(a / b, 4) for o, (a, b) in ops.items()},
               grades=dict(sorted(kinds.items())))
    if not quiet:
        print(json.dumps(rep, indent=1), flush=True)
    return rep


def auc(pos, neg):
    allv = sorted([(x, 1) for x in pos] + [(x, 0) for x in neg])
    rank, i, tot = 0.0, 0, 0.0
    while i < len(allv):
        j = i
        while j < len(allv) and allv[j][0] == allv[i][0]:
            j += 1
        mid = (i + j + 1) / 2
        tot += mid * sum(y for _, y in allv[i:j])
        i = j
    n1, n0 = len(pos), len(neg)
    return (tot - n1 * (n1 + 1) / 2) / (n1 * n0) if n1 and n0 else float("nan")


def score_report(net, probs, chains, blank=True):
    """Have net rate every paragraph of the chains; compare with the grader."""
    seqs, truth, kind = [], [], []
    for p, c in zip(probs, chains):
        sc = mp.grade_answer(c, p)
        for i, s in enumerate(sc):
            t = "\n\n".join(c[:i + 1])
            if blank and not c[i].startswith("The answer"):
                t += "\n\n"
            seqs.append(enc(tok.prompt(p["question"]) + t + tok.rate_turn()))
            truth.append(s == 9)
            kind.append(s)
    pr = digit_probs(net, seqs)
    exp = [sum(d * x for d, x in enumerate(r)) / max(1e-9, sum(r)) for r in pr]
    top = [max(range(10), key=lambda d: r[d]) for r in pr]
    good = [e for e, t in zip(exp, truth) if t]
    bad = [e for e, t in zip(exp, truth) if not t]
    acc = sum(e >= 7 for e in good) / max(1, len(good))
    fa = sum(e >= 7 for e in bad) / max(1, len(bad))
    acc_d = sum(d >= 7 for d, t in zip(top, truth) if t) / max(1, len(good))
    fa_d = sum(d >= 7 for d, t in zip(top, truth) if not t) / max(1, len(bad))
    by = collections.defaultdict(lambda: [0, 0])
    for d, k in zip(top, kind):
        by[k][1] += 1
        by[k][0] += d >= 7
    rep = dict(steps=len(truth), correct=len(good), wrong=len(bad), auc=round(auc(good, bad), 5),
               digit_accept_correct=round(acc_d, 4), digit_accept_wrong=round(fa_d, 4),
               mean_accept_correct=round(acc, 4), mean_accept_wrong=round(fa, 4),
               accepted_by_grade={k: "%d/%d" % tuple(by[k]) for k in sorted(by)})
    print(json.dumps(rep, indent=1), flush=True)
    return rep


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("mode", choices=["chains", "pair", "rollouts"])
    ap.add_argument("--model", required=True)
    ap.add_argument("--draft")
    ap.add_argument("--problems")
    ap.add_argument("--count", type=int, default=3000)
    ap.add_argument("--low", type=int, default=4, help="rollouts: fewest steps of a problem")
    ap.add_argument("--high", type=int, default=mp.MAX_STEPS, help="rollouts: most")
    ap.add_argument("--limit", type=int, default=0)
    ap.add_argument("--seed", type=int, default=55)
    ap.add_argument("--temperature", type=float, default=0.0)
    ap.add_argument("--score-limit", type=int, default=100)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--out")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    net = load(a.model)
    t0 = time.time()
    if a.mode == "rollouts":
        rng = random.Random(a.seed)
        probs = [mp.make_problem(rng, rng.randint(a.low, a.high)) for _ in range(a.count)]
        chains = run_chains(net, probs, batch=250, temperature=a.temperature, seed=a.seed)
        with open(a.out, "w") as f:
            for p, c in zip(probs, chains):
                f.write(json.dumps(dict(problem=p, paragraphs=c)) + "\n")
        chain_report(probs, chains)
        print("rollouts %.0fs" % (time.time() - t0))
        return
    probs = read_problems(a.problems)
    if a.limit:
        probs = probs[:a.limit]
    if a.mode == "chains":
        chain_report(probs, run_chains(net, probs, temperature=a.temperature))
        print("%.0fs" % (time.time() - t0))
        return
    draft = load(a.draft)
    print("draft alone")
    dc = run_chains(draft, probs)
    chain_report(probs, dc)
    print("target alone")
    chain_report(probs, run_chains(net, probs))
    n = a.score_limit
    print("target rates the draft's steps")
    score_report(net, probs[:n], dc[:n])
    print("target rates the draft's steps, no blank line before the question")
    score_report(net, probs[:n // 2], dc[:n // 2], blank=False)
    print("draft rates its own steps")
    score_report(draft, probs[:n // 2], dc[:n // 2])


if __name__ == "__main__":
    main()
