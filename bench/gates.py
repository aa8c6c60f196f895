#!/usr/bin/env python3
"""The gate's steps and the choice of blocks on a GPU beside the sparse attention that they serve, on the same inputs.

    python bench/gates.py [--lengths 8k,32k,128k] [--density 0.1] [--rules nz_ratio,threshold,top_p,head_budget]

Writes results/<chip>/attn_gate.json. Exit status 1 where scores or lists are wrong.
"""
import argparse
import math
import pathlib
import sys

import torch

import cases
import record
import rivals
import timing
from cases import BLOCK

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX, MIN, AVG = 1, 2, 4
LIMIT = 1e-4  # of |score - reference|, scores of about 1


class Gate:
    """Qavg_Kmaxminavg with a weight per query head, as published gates have it."""

    def __init__(self, shape, inputs):
        s, self.ops = shape, torch.ops.seer
        draw = lambda *size: torch.randn(*size, device=inputs.q.device)
        ends = lambda n: torch.tensor([0, n], dtype=torch.int32, device=inputs.q.device)
        self.shape, self.inputs, self.side = shape, inputs, torch.cuda.Stream(priority=-3)
        self.cu, self.cu_blocks = ends(s.len_q), ends(s.rows)
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
        return self.ops.block_select(scores, self.cu, self.cu, self.cu_blocks, BLOCK, rule, [strength])

    def scores(self):
        """As a model does it: keys on a stream of their own."""
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            k = self.project(self.pool_k(), self.weight)
        q = self.pool_q()
        torch.cuda.current_stream().wait_stream(self.side)
        k.record_stream(torch.cuda.current_stream())
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


def strengths(rules, density, scores):
    """A strength for each rule that keeps about this share of the causal blocks."""
    softmax = scores[:1, -1].softmax(1)
    ordered = softmax.sort(descending=True).values[0]
    kept = max(1, int(density * len(ordered)))
    known = {"nz_ratio": density, "head_budget": density, "row_budget": density * BLOCK * scores.shape[2],
             "threshold": ordered[kept].item(), "top_p": min(1.0, ordered[:kept].sum().item())}
    return {rule: known[rule] for rule in rules}


def check(gate, lists, strength):
    """Why scores or the lists of nz_ratio are wrong; "" if they are not."""
    s, scores = gate.shape, gate.scores()
    rows = torch.tensor(sorted({0, 1, s.rows // 2, s.rows - 1}), device=scores.device)
    for head in {0, s.heads_q - 1}:
        found, want = scores[head, rows].double(), gate.reference(head, rows)
        if not torch.equal(found.isinf(), want.isinf()):
            return "wrong: masked scores differ"
        off = (found - want).nan_to_num(0, 0, 0).abs().max().item()
        if not off <= LIMIT:
            return f"wrong: scores differ by {off:.2e}, limit {LIMIT:g}"
        best = max(1, int((1 - math.sqrt(1 - strength)) * s.rows))
        for row in rows.tolist():
            begin, count = lists[0][head, row].item(), lists[1][head, row].item()
            chosen = lists[2][begin:begin + count].tolist()
            order = scores[head, row, :row + 1].sort(descending=True, stable=True).indices[:best].tolist()
            if chosen != sorted({row, *order}):
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
    calls["sparse attention"] = sparse.run
    timed = timing.round_robin(calls, args.runs, args.seconds)
    attention, status = timed["sparse attention"].median, check(gate, lists, args.density)
    visible = shape.visible * shape.heads_q
    rows = []
    for step, times in timed.items():
        if isinstance(times, Exception):
            raise times
        kept = lists if step == "sparse attention" else None
        if step.startswith("select "):
            kept = gate.select(scores, step[7:], by_rule[step[7:]])
        rows.append({"implementation": step, "heads_q": shape.heads_q, "heads_kv": shape.heads_kv,
                     "head_dim": shape.head_dim, "len_q": shape.len_q, "len_k": shape.len_k, "block": BLOCK,
                     "dtype": shape.dtype, "density": kept and kept[1].sum().item() / visible, **times.row(),
                     "of_sparse_attention": times.median / attention, "status": status})
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
    p.add_argument("--runs", type=int, default=5, help="timed calls, at least (default 5)")
    p.add_argument("--seconds", type=float, default=0.1, help="timed GPU time, at least (default 0.1)")
    p.add_argument("--library", default=str(ROOT / "build" / "libseer.so"))
    p.add_argument("--out", default=str(ROOT / "results"), help="folder of results; empty: none")
    return p.parse_args(argv)


def main():
    args = parse()
    if not torch.cuda.is_available():
        sys.exit("gates.py: torch finds no GPU")
    torch.ops.load_library(args.library)
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
