#!/usr/bin/env python3
"""How a number of blocks may be shared out among heads, and whether heads of a group may share their lists.

    python bench/lookup_lists.py --data TEXT [--model FOLDER --gates FOLDER] [--windows 4] --out FILE

Each window of --length tokens of the text has facts of five digits that are asked for, and passages of 192 tokens that come again, both
from its first half in its second. Every variant computes the share of blocks that --sparsity leaves, over all heads together:
*lookups x F* F times as much of each lookup head's blocks and so much less of the others', *by need* more of a head, the more it loses by
its gate (heads.json), *groups* one list for all heads of a group: of the largest weight that any of its heads gives a block (scores'
softmax over the row's blocks). *lookup groups* does so in the groups that have lookup heads, and these heads alone choose.
"""
import argparse
import json
import math
import pathlib
import random
import statistics
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import record  # noqa: E402
import seer  # noqa: E402
from seer import _attention as attention  # noqa: E402
from seer.ops import gate_scores  # noqa: E402
from training_runs import machine  # noqa: E402

BLOCK, PASSAGE, PART = 64, 192, 512
NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Frank", "Greta", "Henry")
FACTORS = (0.5, 1.5, 2, 3)


class Window:
    """Tokens, and positions whose next token is scored: digits of the answers, of copies all but the first, and what stays of the text."""

    def __init__(self, ids, tokenizer, seed):
        draw, self.ids = random.Random(seed), ids.clone()
        half = len(ids) // PART // 2
        names = draw.sample(NAMES, min(half, len(NAMES)))
        self.digits, self.copies, written = [], [], torch.zeros(len(ids), dtype=torch.bool)

        def write(at, tokens):
            self.ids[at:at + len(tokens)] = torch.as_tensor(tokens)
            written[at:at + len(tokens)] = True

        for name, told, asked in zip(names, draw.sample(range(half), len(names)), draw.sample(range(half, 2 * half), len(names))):
            begin, value = (tokenizer(text, add_special_tokens=False).input_ids for text in (f" The secret code of {name} is ", f"{draw.randrange(10000, 100000)}"))
            if len(value) != 5:
                raise SystemExit("the tokenizer joins digits: the model must read them one by one")
            for slot in (told, asked):
                write(slot * PART + 16, begin + value + tokenizer(".", add_special_tokens=False).input_ids)
            first = asked * PART + 16 + len(begin)
            self.digits += range(first, first + 5)
        for source, copy in zip(draw.sample(range(1, half, 2), half // 2), range(half + 1, 2 * half, 2)):
            at, again = source * PART + 128, copy * PART + 128
            write(again, self.ids[at:at + PASSAGE])
            self.copies += range(again + 1, again + PASSAGE)
        self.rest = [i for i in range(half * PART, len(ids)) if not written[i]]


def scored(model, window):
    """(share of digits right, of copies' tokens right, nats per token of the rest)."""
    with torch.no_grad():
        hidden = model.model(window.ids[None].to(model.device)).last_hidden_state[0]
        found = []
        for positions in (window.digits, window.copies, window.rest):
            at = torch.tensor(positions)
            losses, right = [], []
            for part in at.split(1024):
                logits, target = model.lm_head(hidden[part - 1]).float(), window.ids[part].to(model.device)
                losses.append(torch.nn.functional.cross_entropy(logits, target, reduction="none"))
                right.append(logits.argmax(-1) == target)
            found.append((torch.cat(right).float().mean().item(), torch.cat(losses).mean().item()))
    return found[0][0], found[1][0], found[2][1]


def shared_out(weights, density):
    """Densities [layers, heads] in proportion to the weights, their mean `density`, none above 1."""
    low, high = 0.0, 1.0 / weights[weights > 0].min().item()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (weights * middle).clamp(max=1).mean() < density else (low, middle)
    return (weights * low).clamp(max=1)


def variants(heads, lost, density):
    """{name: (sparsities [layers, heads], groups that share lists: None, "all" or "lookups")}."""
    lookup = torch.zeros(lost.shape, dtype=torch.bool)
    for layer, of in enumerate(heads):
        lookup[layer, of] = True
    even = torch.full(lost.shape, density)
    made = {"even": (1 - even, None)}
    count, others = lookup.sum().item(), (~lookup).sum().item()
    for factor in FACTORS:
        less = (density * lookup.numel() - factor * density * count) / others
        made[f"lookups x {factor:g}"] = (1 - torch.where(lookup, factor * density, less), None)
    need = (lost / lost.mean()).sqrt().clamp(0.5, 4)
    return {**made, "by need": (1 - shared_out(need, density), None), "groups": (1 - even, "all"), "lookup groups": (1 - even, "lookups")}


def group_scores(scores, group, lookup_heads, shared):
    """Scores [Hq, R, N] of which the heads of a group have the same; rows sum to 1 before the largest is taken."""
    weights = scores.softmax(-1).nan_to_num(0).view(-1, group, *scores.shape[1:])
    if shared == "lookups":
        chooses = torch.zeros(scores.shape[0], dtype=torch.bool)
        chooses[list(lookup_heads)] = True
        chooses = chooses.view(-1, group)
        best = (weights * chooses[:, :, None, None]).amax(1, keepdim=True)
        weights = torch.where(chooses.any(1)[:, None, None, None], best, weights)
    else:
        weights = weights.amax(1, keepdim=True).expand_as(weights)
    made = weights.expand(-1, group, -1, -1).reshape(scores.shape).log().clamp(min=-1e4)
    return made.masked_fill(scores.isneginf(), -math.inf)


def chooser(sparsity, shared, densities):
    """A Layer.attend for the sparsities of each layer, and lists that heads share."""
    def attend(layer, part, which, chosen):
        packing = layer.packing(part, which)
        scores = gate_scores(chosen, layer.gate.lookups(*layer.rotated(part, which)), layer.scale)
        if shared:
            heads = layer.gate.config.lookup_heads.get(layer.number, ())
            scores = group_scores(scores, layer.q.shape[1] // layer.k.shape[1], heads, shared)
        lists = seer.select_blocks(scores, sparsity[layer.number].tolist(), packing)
        densities.append(lists.density())
        return seer.block_sparse_attention(*layer.packed(part, which), lists, scale=layer.scale)
    return attend


def mean_and_error(values):
    return round(statistics.mean(values), 4), round(statistics.stdev(values) / math.sqrt(len(values)), 4) if len(values) > 1 else None


def row(name, densities, found, dense):
    """What a variant did in windows for which `found` and `dense` have what scored() gave; with standard errors over windows."""
    digits, copies, losses = zip(*found)
    above = [100 * math.expm1(loss - of_dense[2]) for loss, of_dense in zip(losses, dense)]
    made = {"variant": name, "density": round(statistics.mean(densities), 4)}
    for key, values in {"digits": digits, "copies": copies, "above_dense": above}.items():
        made[key], made[f"{key}_error"] = mean_and_error(values)
    print("  ".join(f"{key} {value}" for key, value in made.items()), flush=True)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="a text")
    parser.add_argument("--model", required=True)
    parser.add_argument("--gates", type=pathlib.Path, required=True, help="with lookup heads and heads.json")
    parser.add_argument("--length", type=int, default=8192, help=f"tokens, a multiple of {4 * PART}")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    a = parser.parse_args()
    if a.length < 1 or a.length % (4 * PART):
        raise SystemExit(f"--length {a.length}: want a multiple of {4 * PART}")
    needs = json.loads((a.gates / "heads.json").read_text())
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    ids = tokenizer(a.data.read_text(), return_tensors="pt", add_special_tokens=False).input_ids[0]
    if len(ids) < a.windows * a.length:
        raise SystemExit(f"the text has {len(ids)} tokens, want {a.windows * a.length}: choose a longer one, or fewer windows")
    windows = [Window(x, tokenizer, i) for i, x in enumerate(ids[:a.windows * a.length].split(a.length))]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16).to(device)
    dense = [scored(model, window) for window in windows]
    rows = [row("dense", [1], dense, dense)]
    seer.attach(model, a.gates, sparsity=a.sparsity)
    attend = attention.Layer.attend
    for name, (sparsity, shared) in variants(needs["lookup_heads"], torch.tensor(needs["lost"]), 1 - a.sparsity).items():
        attention.Layer.attend = chooser(sparsity, shared, densities := [])
        rows.append(row(name, densities, [scored(model, window) for window in windows], dense))
    attention.Layer.attend = attend
    if a.out:
        record.write(a.out, {"operation": "lookup lists", **machine(), "command": record.portable("python bench/" + " ".join([pathlib.Path(
            sys.argv[0]).name, *sys.argv[1:]])), "date": record.today(),
            "threads": torch.get_num_threads(), "settings": {key: getattr(a, key) for key in ("length", "windows", "sparsity")}, "rows": rows})


if __name__ == "__main__":
    main()
