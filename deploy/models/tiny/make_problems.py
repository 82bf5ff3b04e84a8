#!/usr/bin/env python3
"""Problem generator, reference solver and step grader for the tiny pair.

A problem is a start number and N numbered operations on a running value that
stays within 0..9999.  Its solution is one paragraph per operation:

    Step (3) Take away 96: 432-96=342-6=336.

which copies the clause from the question, restates the running value, applies
the operation, and peels one decimal digit of the operand at a time.  Naming the
operation first turns "find the right clause" into plain copying, and makes a
wrong choice visible to a judge.  The last paragraph is
    The answer is \\boxed{336}.

    make_problems.py --seed 1001 --count 200 --out dev.jsonl
"""
import argparse
import json
import random
import re

MAXV = 9999
MIN_STEPS, MAX_STEPS = 6, 24

# What a score means.  9 is a correct step; everything below 7 is a mistake.
SCORE_OK = 9
SCORE_WORKING = 4    # right result, but the working in between is off
SCORE_VALUE = 3      # starts from a number that is not the running value
SCORE_OPERAND = 2    # right operation, wrong operand
SCORE_OPERATION = 1  # wrong operation, wrong step, or an answer too early
SCORE_ARITH = 0      # wrong arithmetic, or not a step at all

NAMES = ["Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Mia", "Omar", "Tess", "Yuki"]
THINGS = ["shells", "coins", "cards", "beads", "stamps", "marbles"]

PLAIN = {
    "start": ["Start with {n}.", "Begin with {n}.", "Take the number {n}."],
    "+": ["Add {n}.", "Increase it by {n}.", "Add {n} to it."],
    "-": ["Subtract {n}.", "Take away {n}.", "Decrease it by {n}."],
    "*": ["Multiply by {n}.", "Multiply it by {n}."],
    "*2": ["Double it.", "Multiply by 2."],
    "*3": ["Triple it.", "Multiply by 3."],
    "/": ["Halve it.", "Divide it by 2."],
    "mod1000": ["Keep the last three digits."],
    "mod100": ["Keep the last two digits."],
    "end": ["What is the result?", "What number do you get?"],
}
STORY = {
    "start": ["{w} has {n} {t}."],
    "+": ["{w} finds {n} more.", "{w} buys {n} {t}.", "{w} gets {n} from a friend."],
    "-": ["{w} loses {n}.", "{w} sells {n} {t}.", "{w} gives {n} away."],
    "*": ["The pile grows to {n} times its size."],
    "*2": ["The pile doubles."],
    "*3": ["The pile triples."],
    "/": ["{w} gives half away.", "The pile is cut in half."],
    "end": ["How many {t} does {w} have?", "How many {t} are left?"],
}


def apply_op(v, op, n):
    if op == "+":
        return v + n
    if op == "-":
        return v - n
    if op == "*":
        return v * n
    if op == "/":
        return v // n
    return v % n


def apply_all(p):
    v = p["start"]
    for op, n in p["ops"]:
        v = apply_op(v, op, n)
    return v


def _pick_op(rng, v, story):
    w = {}
    if v < MAXV:
        w["+"] = 30 if v < 6000 else 12
    if v > 0:
        w["-"] = 26 if v >= 100 else 10
    if 1 <= v and v * 2 <= MAXV:
        w["*"] = 26 if v < 1200 else 10
    if v >= 2 and v % 2 == 0:
        w["/"] = 16
    if v >= 100 and not story:
        w["mod"] = 10 if v >= 1000 else 3
    op = rng.choices(list(w), weights=list(w.values()))[0]
    if op in "+-":
        digits = rng.choices([1, 2, 3], weights=[15, 40, 45])[0]
        n = rng.randint(10 ** (digits - 1), 10 ** digits - 1)
        if rng.random() < 0.08:
            n = rng.randint(1, 9) * 10 ** (digits - 1)
        room = MAXV - v if op == "+" else v
        if n > room:
            n = rng.randint(1, room)
        n = min(n, 999)
        return op, n
    if op == "*":
        top = min(9, MAXV // v)
        return op, rng.randint(2, top)
    if op == "/":
        return op, 2
    return "mod", 1000 if v >= 1000 and rng.random() < 0.75 else 100


def make_problem(rng, steps):
    story = rng.random() < 0.3
    words = STORY if story else PLAIN
    who, thing = rng.choice(NAMES), rng.choice(THINGS)
    digits = rng.choices([1, 2, 3], weights=[1, 4, 5])[0]
    start = v = rng.randint(10 ** (digits - 1), 10 ** digits - 1)
    text = [rng.choice(words["start"]).format(n=start, w=who, t=thing)]
    ops = []
    for i in range(1, steps + 1):
        op, n = _pick_op(rng, v, story)
        key = op + str(n) if op == "mod" or (op == "*" and n in (2, 3)) else op
        text.append("(%d) %s" % (i, rng.choice(words[key]).format(n=n, w=who, t=thing)))
        ops.append((op, n))
        v = apply_op(v, op, n)
        assert 0 <= v <= MAXV
    text.append(rng.choice(words["end"]).format(w=who, t=thing))
    return {"question": " ".join(text), "start": start, "ops": ops, "answer": v}


# ---------------------------------------------------------------- solutions

def _places(n):
    """The nonzero decimal digits of n, largest place first, as (digit, place)."""
    s = str(n)
    return [(int(c), 10 ** (len(s) - 1 - i)) for i, c in enumerate(s) if c != "0"]


def _render(i, clause, v, op, n, accs, rems):
    """Step text from the running results and what is left after each."""
    s = "Step (%d) %s: " % (i, clause)
    if op == "mod":
        return s + "%d mod %d=%d." % (v, n, accs[0])
    s += "%d%s%d" % (v, op, n)
    for acc, rem in zip(accs, rems):
        s += "=%d" % acc
        if rem:
            if op in "+-":
                s += "%s%d" % (op, rem)
            else:
                s += "+%d%s%d" % (rem, op, n)
    return s + "."


def _deltas(v, op, n):
    """What each partial result adds, and the place it works at."""
    if op == "+":
        return [(d * p, p) for d, p in _places(n)]
    if op == "-":
        return [(-d * p, p) for d, p in _places(n)]
    if op == "*":
        return [(d * p * n, p) for d, p in _places(v)] or [(0, 1)]
    return [(d * p // 2, p) for d, p in _places(v)] or [(0, 1)]


def _work(v, op, n):
    if op == "mod":
        return [v % n], [0], [(0, 1)]
    deltas = _deltas(v, op, n)
    acc = v if op in "+-" else 0
    rem = n if op in "+-" else v
    accs, rems = [], []
    for d, p in deltas:
        acc += d
        rem %= p
        accs.append(acc)
        rems.append(rem)
    return accs, rems, deltas


def clauses(p):
    """The numbered clauses of the question, without number and full stop."""
    return re.findall(r"\(\d+\) ([^.]*)\.", p["question"])


def step_text(i, clause, v, op, n):
    accs, rems, _ = _work(v, op, n)
    return _render(i, clause, v, op, n, accs, rems)


def answer_text(v):
    return "The answer is \\boxed{%d}." % v


def solution(p):
    v, out = p["start"], []
    for i, (clause, (op, n)) in enumerate(zip(clauses(p), p["ops"]), 1):
        out.append(step_text(i, clause, v, op, n))
        v = apply_op(v, op, n)
    out.append(answer_text(v))
    return out


# ------------------------------------------------------------------- grader

_STEP = re.compile(r"^Step \((\d+)\) ([^:]*): (\d+)(\+|-|\*|/| mod )(\d+)=(?:.*=)?(\d+)\.$")
_ANS = re.compile(r"^The answer is \\boxed\{(\d+)\}\.$")


def grade(text, i, v, p):
    """Grade paragraph i (1-based) of an answer, the running value being v.

    Returns (score, running value afterwards, finished)."""
    n_ops = len(p["ops"])
    m = _ANS.match(text)
    if m:
        a = int(m.group(1))
        if i <= n_ops:
            return SCORE_OPERATION, v, True
        return (SCORE_OK if a == v else SCORE_ARITH), a, True
    m = _STEP.match(text)
    if not m:
        return SCORE_ARITH, v, False
    idx, clause, lhs, op, n, res = m.groups()
    idx, lhs, op, n, res = int(idx), int(lhs), op.strip(), int(n), int(res)
    if i > n_ops or idx != i:
        return SCORE_OPERATION, res, False
    want_op, want_n = p["ops"][i - 1]
    if op != want_op:
        return SCORE_OPERATION, res, False
    if n != want_n:
        return SCORE_OPERAND, res, False
    if lhs != v:
        return SCORE_VALUE, res, False
    if res != apply_op(v, op, n):
        return SCORE_ARITH, res, False
    if text != step_text(i, clauses(p)[i - 1], v, op, n):
        return SCORE_WORKING, res, False
    return SCORE_OK, res, False


def grade_answer(paragraphs, p):
    """Scores of every paragraph, each relative to the value before it."""
    v, out = p["start"], []
    for i, text in enumerate(paragraphs, 1):
        s, v, done = grade(text, i, v, p)
        out.append(s)
        if done:
            break
    return out


# -------------------------------------------------------------- corruptions

def _bad_number(rng, x, place):
    """A plausible slip on x: a lost or extra carry, a swapped or misread digit."""
    for _ in range(20):
        r = rng.random()
        if r < 0.45:
            y = x + rng.choice([-1, 1]) * rng.choice([place, place * 10, 10, 100, 1])
        elif r < 0.6 and x >= 10:
            s = list(str(x))
            j = rng.randrange(len(s) - 1)
            s[j], s[j + 1] = s[j + 1], s[j]
            y = int("".join(s))
        elif r < 0.9:
            s = list(str(x))
            j = rng.randrange(len(s))
            s[j] = str(rng.randint(0, 9))
            y = int("".join(s))
        else:
            y = x + rng.choice([-1, 1]) * rng.randint(1, 30) * place
        if y != x and 0 <= y <= 99999:
            return y
    return x + 1


def _reword(clause, n, n2):
    """The clause with another number in it."""
    return re.sub(r"\b%d\b" % n, str(n2), clause)


def _fits(v, op, n):
    """Whether a step is possible at all on v (the generator's own limits)."""
    if op == "+":
        return 1 <= n <= 999
    if op == "-":
        return 1 <= n <= min(v, 999)
    if op == "*":
        return 2 <= n <= 9 and v * n <= 99999
    if op == "/":
        return n == 2 and v % 2 == 0
    return n in (100, 1000)


def _wrong_sum(rng, i, clause, v, op, n):
    accs, rems, deltas = _work(v, op, n)
    if op == "mod":
        bad = rng.choice([v % (n // 10), v // 10, _bad_number(rng, v % n, 1)])
        return _render(i, clause, v, op, n, [bad], [0])
    j = rng.randrange(len(accs)) if rng.random() < 0.6 else len(accs) - 1
    if rng.random() < 0.12 and rems[j]:            # the rest is miscopied
        rem = _bad_number(rng, rems[j], 1)
        if op in "+-":
            if not _fits(accs[j], op, rem):
                return None
            a2, r2, _ = _work(accs[j], op, rem)
        else:
            if not _fits(rem, op, n):
                return None
            a2, r2, _ = _work(rem, op, n)
            a2 = [a + accs[j] for a in a2]
        accs, rems = accs[: j + 1] + a2, rems[:j] + [rem] + r2
    else:
        err = _bad_number(rng, accs[j], deltas[j][1]) - accs[j]
        accs = accs[:j] + [a + err for a in accs[j:]]
    return _render(i, clause, v, op, n, accs, rems) if min(accs) >= 0 else None


def _wrong_operand(rng, i, clause, v, op, n, ops):
    if op in ("/", "mod"):
        return None
    if op == "*":
        n2 = rng.randint(2, 9)
    elif rng.random() < 0.3:
        n2 = rng.choice([m for o, m in ops if o == op])
    else:
        n2 = _bad_number(rng, n, 1)
    if not _fits(v, op, n2):
        return None
    if rng.random() < 0.6:                         # already in the copied clause
        clause = _reword(clause, n, n2)
    return step_text(i, clause, v, op, n2)


def _wrong_operation(rng, i, said, v, ops):
    q = rng.random()
    if q < 0.08:
        return answer_text(v) if i > 1 else None
    k = i
    if q < 0.65:                                   # another step's clause
        j = i + rng.choice([-2, -1, -1, 1, 1, 2, rng.randint(-8, 8)])
        if j == i or not 1 <= j <= len(ops):
            return None
        op, n = ops[j - 1]
        clause = said[j - 1]
        if rng.random() < 0.25:
            k = j
        elif rng.random() < 0.2:                   # said right, done wrong
            clause = said[i - 1]
    else:                                          # the number, another operation
        n = ops[i - 1][1]
        op = rng.choice("+-*/")
        n = 2 if op == "/" else n
        clause = said[i - 1]
        if rng.random() < 0.5:
            clause = rng.choice(PLAIN[op])[:-1].format(n=n)
    return step_text(k, clause, v, op, n) if _fits(v, op, n) else None


def corrupt(rng, i, v, p):
    """A wrong paragraph i given running value v; None when none was found."""
    ops, said = p["ops"], clauses(p)
    if i > len(ops):
        if rng.random() < 0.85:
            return answer_text(_bad_number(rng, v, 1))
        j = rng.randrange(len(ops))
        op, n = ops[j]
        return step_text(i, said[j], v, op, n) if _fits(v, op, n) else None
    op, n = ops[i - 1]
    r = rng.random()
    if r < 0.60:
        t = _wrong_sum(rng, i, said[i - 1], v, op, n)
    elif r < 0.73:
        t = _wrong_operand(rng, i, said[i - 1], v, op, n, ops)
    elif r < 0.87:
        t = _wrong_operation(rng, i, said, v, ops)
    else:
        v2 = _bad_number(rng, v, 1)
        ok = v2 <= MAXV and _fits(v2, op, n)
        t = step_text(i, said[i - 1], v2, op, n) if ok else None
    if t is None or grade(t, i, v, p)[0] == SCORE_OK:
        return None
    return t


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, required=True)
    ap.add_argument("--count", type=int, default=200)
    ap.add_argument("--out", required=True)
    ap.add_argument("--prefix", default="p")
    a = ap.parse_args()
    rng = random.Random(a.seed)
    lengths = [6, 8, 10, 12, 12, 14, 16, 18, 20, 24]
    with open(a.out, "w") as f:
        for k in range(a.count):
            p = make_problem(rng, lengths[k % len(lengths)])
            f.write(json.dumps({"id": "%s%03d" % (a.prefix, k + 1),
                                "question": p["question"],
                                "answer": str(p["answer"]),
                                "steps": len(p["ops"]),
                                "start": p["start"], "ops": p["ops"]}) + "\n")


if __name__ == "__main__":
    main()
