#!/usr/bin/env python3
"""How lookup heads may score blocks: ranks, types of numbers and normalisers, by what lists of their scores keep.

    python bench/lookup_scores.py --data TEXT [--model FOLDER --gates FOLDER] [--heads 27] [--length 8192] --out FILE

Lookup heads are found on --windows windows of the text with repeated passages, where their projections are taken from, too (nothing is
trained). On the windows after them each variant chooses as many blocks as --sparsity leaves, and is compared with the lists of the true
map: *map*, the sum of the map's weights in far blocks (neither the first nor the last four that a row sees) that its lists keep, and
*peaks*, the share of far tokens of more than a fifth of a query's attention that they keep. For each query i and block J, m is the
largest product of i with a key of J; a variant's score of a block row and a block is max_i (m - log z_i), and variants differ in z.
"""
import argparse
import itertools
import math
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import record  # noqa: E402
import seer  # noqa: E402
from seer._dense_pass import see_layers  # noqa: E402
from seer._head_needs import HeadNeeds, far_blocks, neediest, with_repeats  # noqa: E402
from training_runs import machine  # noqa: E402

BLOCK, PEAK = 64, 0.2
NORMALISERS = {
    "none": "1",
    "largest": "max_J exp m",
    "blocks": "sum_J exp m (that of the program)",
    "blocks + means": "sum_J (exp m + 63 exp(q mean_J k))",
    "tokens": "sum over all keys: exact",
}
NUMBERS = ("f32", "bf16", "f16 sums", "fp8", "fp8, rotated")


def eight_bits(x):
    """Rounded to e4m3, one scale for all."""
    scale = x.abs().max() / 240
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def products(q, k, numbers, generator):
    """float32 [S, S] as a kernel with inputs of these numbers has it."""
    if numbers == "bf16":
        return q.bfloat16().float() @ k.bfloat16().float().T
    if numbers == "f16 sums":
        return (q.half().float() @ k.half().float().T).half().float()
    if numbers.startswith("fp8"):
        if "rotated" in numbers:  # spreads a few large features over all
            turn = torch.linalg.qr(torch.randn(q.shape[1], q.shape[1], generator=generator))[0].to(q.device)
            q, k = q @ turn, k @ turn
        return eight_bits(q) @ eight_bits(k).T
    return q @ k.T


def by_block_rows(x):
    """[S, N] -> the largest of each row of blocks, [N, N]."""
    return x.view(-1, BLOCK, x.shape[1]).amax(1)


class Head:
    """One head on one window: its true map, and what lists of a variant keep of it."""

    def __init__(self, q, k, sparsity):
        self.q, self.k, self.tokens = q, k, len(q)
        self.blocks = self.tokens // BLOCK
        self.hidden = torch.ones(self.tokens, self.tokens, dtype=torch.bool, device=q.device).triu_(1)
        weights = torch.softmax((q @ k.T).masked_fill_(self.hidden, -math.inf), -1).view(self.blocks, BLOCK, self.blocks, BLOCK)
        self.far = far_blocks(self.blocks, self.blocks, q.device)
        self.map = weights.amax((1, 3)) * self.far
        self.peaks = (weights > PEAK).sum((1, 3)) * self.far
        self.packing = seer.Packing.from_lengths([self.tokens], device=q.device)
        self.sparsity = sparsity
        self.by_map = self.kept(weights.amax((1, 3)).masked_fill(self.hidden[::BLOCK, ::BLOCK], -math.inf))

    def kept(self, scores):
        """(map, peaks) that the lists of scores [N, N] keep."""
        mask = seer.select_blocks(scores[None], self.sparsity, self.packing).to_mask()[0]
        return (self.map * mask).sum().item(), (self.peaks * mask).sum().item()

    def variants(self, q, k, numbers, generator):
        """{normaliser: scores [N, N]} by projected q and k [S, r], the scale within."""
        s = products(q, k, numbers, generator).masked_fill_(self.hidden, -math.inf)
        m = s.view(self.tokens, self.blocks, BLOCK).amax(-1)
        means = (q @ k.view(self.blocks, BLOCK, -1).mean(1).T).masked_fill_(m.isneginf(), -math.inf)
        own = torch.arange(self.tokens, device=q.device) // BLOCK
        means[torch.arange(self.tokens, device=q.device), own] = -math.inf  # of which a query sees a part
        sums = {"none": torch.zeros(self.tokens, device=q.device), "largest": m.amax(-1), "blocks": m.logsumexp(-1),
                "blocks + means": torch.logaddexp(m.logsumexp(-1), math.log(BLOCK - 1) + means.logsumexp(-1)), "tokens": s.logsumexp(-1)}
        return {name: by_block_rows(m - z[:, None]) for name, z in sums.items()}


def windows_of(text, tokenizer, length, count):
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[0]
    if len(ids) < count * length:
        raise SystemExit(f"the text has {len(ids)} tokens, want {count * length}: choose a longer one, or fewer windows")
    return [with_repeats(ids[i * length:(i + 1) * length], 1, i) for i in range(count)]


def measure(model, windows, a):
    """Rows of {"rank", "numbers", "normaliser", "map", "peaks"}: shares of what the true map's lists keep."""
    attachment = model.seer
    needs = HeadNeeds(attachment, a.length, a.windows, a.sparsity)
    for window in windows[:a.windows]:
        needs.add(model, window)
    found = {layer: heads for layer, heads in neediest(needs.sum_up(), a.heads).items() if heads}
    ranks = [r for r in (64, 32, 16) if r <= needs.moments.shape[-1]]
    starts = {(layer, head, r): needs.best_projections(layer, head, r) for layer, heads in found.items() for head in heads for r in ranks}
    totals, generator = {}, torch.Generator().manual_seed(1)

    def see(layer, window):
        for head in found.get(layer.number, ()):
            q, k = (x.float() for x in (layer.q[0, head], layer.k[0, head // needs.group]))
            it = Head(q * layer.scale, k, a.sparsity)
            best = it.by_map
            for r in ranks:
                to_q, to_k = (x.to(q.device) for x in starts[layer.number, head, r])
                for numbers in NUMBERS:
                    for name, scores in it.variants(it.q @ to_q, k @ to_k, numbers, generator).items():
                        add(totals, (r, numbers, name), it.kept(scores), best)
            print(f"layer {layer.number}, head {head}", file=sys.stderr)
        return layer.dense(window)

    for window in windows[a.windows:]:
        see_layers(model, window, see)
    return [{"rank": r, "numbers": numbers, "normaliser": name, "map": round(x[0] / x[1], 4), "peaks": round(x[2] / max(x[3], 1), 4)}
            for (r, numbers, name), x in totals.items()], sum(map(len, found.values()))


def add(totals, key, kept, best):
    x = totals.setdefault(key, [0, 0, 0, 0])
    for i, value in enumerate((kept[0], best[0], kept[1], best[1])):
        x[i] += value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a text")
    parser.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[1] / "assets" / "reference"))
    parser.add_argument("--gates", help="default: in the model's folder")
    parser.add_argument("--heads", type=int, default=3, help="lookup heads, of all layers")
    parser.add_argument("--length", type=int, default=8192, help="tokens, a multiple of 64")
    parser.add_argument("--windows", type=int, default=2, help="in which heads are found")
    parser.add_argument("--measured", type=int, default=1, help="windows after them")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    a = parser.parse_args()
    if a.length % BLOCK:
        raise SystemExit(f"--length {a.length}: want a multiple of {BLOCK}")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16 if device == "cuda" else torch.float32).to(device)
    seer.attach(model, a.gates or pathlib.Path(a.model) / "gates", sparsity=a.sparsity)
    windows = windows_of(a.data.read_text(), AutoTokenizer.from_pretrained(a.model), a.length, a.windows + a.measured)
    rows, heads = measure(model, windows, a)
    print(f"{heads} heads; of what lists of the true map keep, {a.length} tokens, sparsity {a.sparsity}: map / peaks")
    for name, formula in NORMALISERS.items():
        print(f"  {name}: z = {formula}")
    for (r, numbers), of in itertools.groupby(rows, lambda row: (row["rank"], row["numbers"])):
        print(f"{r:3d} {numbers:13s} " + "  ".join(f"{row['normaliser']} {row['map']:.3f} / {row['peaks']:.3f}" for row in of))
    if a.out:
        record.write(a.out, {"operation": "lookup scores", **machine(), "command": record.portable("python bench/" + " ".join([pathlib.Path(
            sys.argv[0]).name, *sys.argv[1:]])), "date": record.today(),
            "threads": torch.get_num_threads(), "settings": {key: getattr(a, key) for key in ("heads", "length", "windows", "measured", "sparsity")}, "rows": rows})


if __name__ == "__main__":
    main()
