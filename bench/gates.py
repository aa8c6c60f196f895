#!/usr/bin/env python3
"""The gate's steps, scores of lookup heads and the choice of blocks on a GPU beside the sparse attention that they serve, on the
same inputs.

    python bench/gates.py [--lengths 8k,32k,128k] [--density 0.1] [--rules nz_ratio,threshold,top_p,head_budget]
                          [--lookup-heads 1,3] [--rank 32]

Writes results/<chip>/attn_gate.json. Exit status 1 where scores or lists are wrong.
"""
import argparse
import itertools
import math
import pathlib
import sys

import torch

import cases
import record
import rivals
import seer
import timing
from cases import BLOCK

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX, MIN, AVG = 1, 2, 4
LIMIT = 1e-4  # of |score - reference|, scores of about 1
LOOKUP_LIMIT = 0.03  # of lookup heads: products of about 100, summed in float16, times the scale


class Gate:
    """Qavg_Kmaxminavg with a weight per query head, as published gates have it."""

    def __init__(self, shape, inputs):
        s, self.ops = shape, torch.ops.seer
        generator = torch.Generator(inputs.q.device).manual_seed(0)
        draw = lambda *size: torch.randn(*size, device=inputs.q.device, generator=generator)
        self.shape, self.inputs = shape, inputs
        self.packing = s.packing(inputs.q.device)
        self.cu, _, self.cu_blocks, _ = self.packing.cu()
        self.weight = draw(s.heads_q, 3 * s.head_dim, s.head_dim) * 0.02
        angles = draw(s.rows, s.head_dim // 2)
        self.cos, self.sin = angles.cos(), angles.sin()

    def pool(self, x, pools, *angles):
        return self.ops.attn_gate_pool(x, self.cu, self.cu_blocks, self.shape.rows, BLOCK, pools, *angles)

    def pool_q(self):
        return self.pool(self.inputs.q, AVG, self.cos, self.sin)

    def pool_k(self):
        return self.pool(self.inputs.k, MAX | MIN | AVG)

    def project(self, x, weight):
        return self.ops.attn_gate_project(x, weight, self.cos, self.sin)

    def score(self, q, k):
        return self.ops.attn_gate_score(q, k, self.cu, self.cu, self.cu_blocks, self.cu_blocks, self.shape.rows, BLOCK)

    def select(self, scores, rule, strength):
        made = self.ops.block_select(scores, *self.packing.cu()[:3], BLOCK, rule, [strength])
        return seer.BlockLists(*made, self.packing)

    def scores(self):
        """As a model makes them."""
        q, k = self.ops.attn_gate_vectors(self.inputs.q, self.inputs.k, self.cu, self.cu_blocks, self.shape.rows, BLOCK, AVG,
                                          MAX | MIN | AVG, None, self.weight, self.cos, self.sin)
        return self.score(q, k)

    def reference(self, head, rows):
        """Scores of some rows of one head by plain torch in double."""
        s, half = self.shape, self.shape.head_dim // 2
        kv_head = head * s.heads_kv // s.heads_q
        blocks = lambda x: x.double().view(-1, BLOCK, s.head_dim)

        def turn(x, at):
            a, b, cos, sin = x[:, :half], x[:, half:], self.cos[at].double(), self.sin[at].double()
            return torch.cat([a * cos - b * sin, b * cos + a * sin], 1)

        k = blocks(self.inputs.k[:, kv_head])
        k = torch.cat([k.amax(1), k.amin(1), k.mean(1)], 1) @ self.weight[head].double()
        q = turn(blocks(self.inputs.q[:, head])[rows].mean(1), rows)
        out = q @ turn(k, slice(None)).T / math.sqrt(s.head_dim)
        return out.masked_fill(torch.arange(s.rows, device=out.device) > rows[:, None], -torch.inf)


class Lookups:
    """The first heads of the query heads as lookup heads."""

    def __init__(self, gate, heads, rank, beside):
        self.gate, self.shape, self.inputs = gate, gate.shape, gate.inputs
        device = self.inputs.q.device
        generator = torch.Generator(device).manual_seed(1)
        draw = lambda: torch.randn(heads, self.shape.head_dim, rank, device=device, generator=generator) / math.sqrt(rank)
        self.weights = draw(), draw()
        self.heads = torch.arange(heads, device=device)
        self.kv_heads = self.heads * self.shape.heads_kv // self.shape.heads_q
        self.stream, self.beside = torch.cuda.Stream(priority=-1), beside
        self.scale = 1 / math.sqrt(self.shape.head_dim)

    def project(self):
        return torch.ops.seer.lookup_project(self.inputs.q, self.inputs.k, *self.weights, self.heads, self.kv_heads)

    def score(self, q, k, beside=0):
        """Scores and lse."""
        s, p = self.shape, self.gate.packing
        return torch.ops.seer.lookup_score(q, k, *p.cu()[:3], s.rows, s.rows, BLOCK, self.scale, beside)

    def score_grad(self, dscores, q, k, lse):
        return torch.ops.seer.lookup_score_grad(dscores, q, k, lse, *self.gate.packing.cu()[:3], BLOCK, self.scale)

    def all_scores(self):
        """As a model makes them (seer/models/gates/gates.cc): on a stream of their own, beside the gate's."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            own = self.score(*self.project(), self.beside)[0]
        scores = self.gate.scores()
        torch.cuda.current_stream().wait_stream(self.stream)
        own.record_stream(torch.cuda.current_stream())
        return scores.index_copy_(0, self.heads, own)

    def check(self, scores, q, k):
        """Why scores are wrong; "ok" if they are not."""
        heads, rows = sampled(scores)
        for head, row in itertools.product(heads, rows):
            at = torch.arange(row * BLOCK, (row + 1) * BLOCK, device=q.device)
            products = q[at, head].double() @ k[:at[-1] + 1, head].double().T * self.scale
            products = products.masked_fill(torch.arange(len(products.T), device=q.device) > at[:, None], -torch.inf)
            maxima = products.view(BLOCK, row + 1, BLOCK).amax(-1)
            want = (maxima - maxima.logsumexp(-1, keepdim=True)).amax(0)
            off = (scores[head, row, :row + 1].double() - want).abs().max().item()
            if not off <= LOOKUP_LIMIT:
                return f"wrong: lookup scores differ by {off:.2e}, limit {LOOKUP_LIMIT:g}"
        return "ok"


def strengths(rules, density, scores):
    """A strength for each rule that keeps about this share of the causal blocks."""
    softmax = scores[:1, -1].softmax(1)
    ordered = softmax.sort(descending=True).values[0]
    kept = max(1, int(density * len(ordered)))
    known = {"nz_ratio": density, "head_budget": density, "row_budget": density * BLOCK * scores.shape[2],
             "threshold": ordered[kept].item(), "top_p": min(1.0, ordered[:kept].sum().item())}
    return {rule: known[rule] for rule in rules}


def sampled(scores):
    """Heads and rows of scores [H, R, N] that are checked."""
    heads, rows, _ = scores.shape
    return sorted({0, heads - 1}), sorted({0, 1, rows // 2, rows - 1})


def check_scores(gate, scores):
    """Why scores are wrong; "ok" if they are not."""
    heads, rows = sampled(scores)
    rows = torch.tensor(rows, device=scores.device)
    for head in heads:
        found, want = scores[head, rows].double(), gate.reference(head, rows)
        if not torch.equal(found.isinf(), want.isinf()):
            return "wrong: masked scores differ"
        off = (found - want).nan_to_num(0, 0, 0).abs().max().item()
        if not off <= LIMIT:
            return f"wrong: scores differ by {off:.2e}, limit {LIMIT:g}"
    return "ok"


def cut_of(rule, strength, scores, row):
    """The smallest softmax value that the rule takes in a row of a head's scores [R, N], in double."""
    if rule == "threshold":
        return strength
    if rule == "top_p":
        ordered = scores[row].double().softmax(0).sort(descending=True).values
        return ordered[min(int((ordered.cumsum(0) < strength).sum()), len(ordered) - 1)].item()
    budget = int(strength * (len(scores) * (len(scores) + 1) // 2))
    return scores.double().softmax(1).flatten().topk(budget).values[-1].item() if budget else math.inf


def check_lists(rule, strength, scores, lists):
    """Why a rule's lists are wrong, if scores [H, R, N] are right; "ok" if they are not."""
    begins, counts, blocks = lists[:3]
    for head, row in itertools.product(*sampled(scores)):
        begin, values = begins[head, row].item(), scores[head, row, :row + 1]
        chosen = blocks[begin:begin + counts[head, row].item()].long()
        mask = torch.zeros(row + 1, dtype=torch.bool, device=scores.device)
        mask[chosen] = True
        if rule in ("nz_ratio", "row_budget"):
            best = int((1 - math.sqrt(1 - strength)) * scores.shape[2]) if rule == "nz_ratio" else int(strength) // BLOCK
            must = torch.zeros_like(mask)
            must[values.sort(descending=True, stable=True).indices[:max(1, best)]] = True
            may = must.clone()
        else:  # softmax values next to the cut may be on either side: they are f32
            cut, softmax = cut_of(rule, strength, scores[head], row), values.double().softmax(0)
            must, may = softmax > cut * (1 + 1e-5), softmax > cut * (1 - 1e-5)
        must[row] = may[row] = True  # the diagonal
        if chosen.tolist() != mask.nonzero().flatten().tolist() or (must & ~mask).any() or (mask & ~may).any():
            return f"wrong: the list of head {head}, row {row}"
    return "ok"


def measure(shape, args):
    inputs = rivals.Inputs(shape, "cuda")
    gate = Gate(shape, inputs)
    scores = gate.scores()
    by_rule = strengths(args.rules, args.density, scores)
    lists = gate.select(scores, "nz_ratio", args.density)
    pooled_k = gate.pool_k()
    q, k = gate.pool_q(), gate.project(pooled_k, gate.weight)
    sparse = rivals.Seer(shape)
    sparse.prepare(inputs, lists)
    calls = {"pool q": gate.pool_q, "pool k": gate.pool_k,
             "project k": lambda: gate.project(pooled_k, gate.weight), "score": lambda: gate.score(q, k)}
    for rule, strength in by_rule.items():
        calls[f"select {rule}"] = lambda rule=rule, strength=strength: gate.select(scores, rule, strength)
    calls["gate and selection"] = lambda: gate.select(gate.scores(), "nz_ratio", args.density)
    of_lookups = {}
    for heads in args.lookup_heads:
        lookups = Lookups(gate, heads, args.rank, args.beside)
        vectors = lookups.project()
        own, lse = lookups.score(*vectors)
        dscores = torch.randn_like(own).masked_fill(own.isinf(), 0)
        named = {"project": lookups.project, "score": lambda x=lookups, v=vectors: x.score(*v),
                 "gradient": lambda x=lookups, v=vectors, d=dscores, lse=lse: x.score_grad(d, *v, lse),
                 "with gate and selection": lambda x=lookups: gate.select(x.all_scores(), "nz_ratio", args.density)}
        state = lookups.check(own, *vectors)
        for step, call in named.items():
            name = f"{heads} lookup head{'s' * (heads > 1)}: {step}"
            calls[name], of_lookups[name] = call, state
    calls["sparse attention"] = sparse.run
    timed = timing.round_robin(calls, args.runs, args.seconds)
    attention = timed["sparse attention"].median
    made = {f"select {rule}": gate.select(scores, rule, strength) for rule, strength in by_rule.items()}
    status = {f"select {rule}": check_lists(rule, strength, scores, made[f"select {rule}"])
              for rule, strength in by_rule.items()}
    made["sparse attention"] = lists
    status["sparse attention"] = check_lists("nz_ratio", args.density, scores, lists)
    of_scores = check_scores(gate, scores)  # of the steps without lists
    status["gate and selection"] = status["sparse attention"] if of_scores == "ok" else of_scores
    status |= of_lookups
    visible = shape.visible * shape.heads_q
    rows = []
    for step, times in timed.items():
        if isinstance(times, Exception):
            raise times
        kept = made.get(step)
        rows.append({"implementation": step, "heads_q": shape.heads_q, "heads_kv": shape.heads_kv,
                     "head_dim": shape.head_dim, "len_q": shape.len_q, "len_k": shape.len_k, "block": BLOCK,
                     "dtype": shape.dtype, "density": kept and kept[1].sum().item() / visible, **times.row(),
                     "of_sparse_attention": times.median / attention, "status": status.get(step, of_scores)})
    return rows


def parse(argv=None):
    def tokens(text):
        return int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)

    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--lengths", type=lambda t: [tokens(part) for part in t.split(",")], default="8k,32k,128k")
    p.add_argument("--kv-heads", type=int, default=8)
    p.add_argument("--heads", type=int, default=32, help="query heads (default 32)")
    p.add_argument("--head-dim", type=int, default=128)
    p.add_argument("--density", type=float, default=0.1, help="share of the causal blocks (default 0.1)")
    p.add_argument("--rules", type=lambda t: t.split(","), default="nz_ratio,threshold,top_p,head_budget")
    p.add_argument("--lookup-heads", type=lambda t: [int(n) for n in t.split(",") if n], default="1,3",
                   help="numbers of lookup heads (default 1,3)")
    p.add_argument("--rank", type=int, default=32, help="features of a token in lookup heads (default 32)")
    p.add_argument("--beside", type=int, default=16, help="multiprocessors that scores of lookup heads leave to the gate (default 16, a model's)")
    p.add_argument("--runs", type=int, default=5, help="timed calls, at least (default 5)")
    p.add_argument("--seconds", type=float, default=0.1, help="timed GPU time, at least (default 0.1)")
    p.add_argument("--out", default=str(ROOT / "results"), help="folder of results; empty: none")
    return p.parse_args(argv)


def main():
    args = parse()
    if not torch.cuda.is_available():
        sys.exit("gates.py: torch finds no GPU")
    rows = []
    for length in args.lengths:
        shape = cases.Shape(length, length, args.heads, args.kv_heads, args.head_dim, "bf16")
        print(f"{shape}:", flush=True)
        with torch.no_grad():
            new = measure(shape, args)
        for r in new:
            kept = f"density {r['density']:.3f}" if r["density"] else ""
            print(f"  {r['implementation']:20} {r['median_ms'] * 1e3:9.1f} us  {r['of_sparse_attention']:7.1%} of sparse "
                  f"attention  {r['status']}  {kept}", flush=True)
        rows += new
        torch.cuda.empty_cache()
    command = record.portable(" ".join(["python", "bench/gates.py", *sys.argv[1:]]))
    made = record.make(command, timing.METHOD, {}, rows, {}) | {"operation": "attn_gate"}
    if args.out:
        path = pathlib.Path(args.out) / record.slug(torch.cuda.get_device_name()) / "attn_gate.json"
        record.write(path, made)
        print(f"written: {path}")
    sys.exit(any(r["status"] != "ok" for r in rows))


if __name__ == "__main__":
    main()
