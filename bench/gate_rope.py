#!/usr/bin/env python3
"""Gates with RoPE on their vectors and without it, at their length of training and beyond: perplexity beside dense attention's.

    python bench/gate_rope.py --train TEXTS --data TEXTS [--model FOLDER] [--length 2048] [--steps 100] [--lengths 2k,4k,8k]

Texts: .txt, or the field `text` of .jsonl, also .jsonl.zst. Both gates are distilled on the same windows, from the same first weights,
and read the same windows of --data, one a document. As published, each row computes its own block besides the best ones: gates that do not find it compute more. Writes results/<chip>/gate_rope.json.
"""
import argparse
import json
import pathlib
import shlex
import sys
import types

import torch

import record
from attach import several, tokens  # finds seer
import seer

METHOD = "perplexity of windows of documents, one each; errors: standard errors of the mean over windows, paired with dense attention"


def texts_of(path):
    if not path.name.endswith((".jsonl", ".jsonl.zst")):
        return [path.read_text()]
    if path.suffix == ".zst":
        import zstandard
        lines = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode().splitlines()
    else:
        lines = path.read_text().splitlines()
    return [json.loads(line)["text"] for line in lines if line]


def without_rope(model):
    """The gates' vectors stay as they are projected."""
    own = model.seer.rotary
    model.seer.rotary = types.SimpleNamespace(inv_freq=torch.zeros_like(own.inv_freq), attention_scaling=1.0)


def losses(model, windows):
    with torch.no_grad():
        return torch.tensor([model(ids[None], labels=ids[None], use_cache=False).loss.item() for ids in windows], dtype=torch.float64)


def measure(model, train, windows, a):
    """Rows of dense attention and of both gates, at each length."""
    dense = {length: losses(model, found) for length, found in windows.items()}
    row = lambda length, method, of, **more: {
        "method": method, "length": length, "documents": len(of), "perplexity": of.mean().exp().item(), "vs_dense": (of - dense[length]).mean().exp().item(),
        "vs_dense_error": (of - dense[length]).std().item() / len(of) ** .5, **more}
    rows = [row(length, "dense", of, density=1.0, sparsity=0.0) for length, of in dense.items()]
    for name in ("with RoPE", "without RoPE"):
        seer.attach(model, seer.GateConfig(), sparsity=a.sparsity, seed=a.seed)
        if name == "without RoPE":
            without_rope(model)
        made = seer.distill(model, train, steps=a.steps, sequences=a.sequences, learning_rate=a.learning_rate)
        print(f"{name}: loss {made[-1]['loss']:.4f}", file=sys.stderr, flush=True)
        for length, found in windows.items():
            with seer.record_lists(model) as passes:
                of = losses(model, found)
            density = sum(lists.density() for one in passes for lists in one.values()) / sum(map(len, passes))
            rows.append(row(length, "seer", of, gates=name, density=density, sparsity=a.sparsity, trained_tokens=a.steps * a.sequences * a.length, trained_length=a.length))
            print(f"{length:7} {name:13} density {density:.3f}  x{rows[-1]['vs_dense']:.4f}", flush=True)
        seer.detach(model)
    return rows


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[1] / "assets" / "reference"))
    p.add_argument("--train", type=pathlib.Path, nargs="+", required=True, help="texts to learn from")
    p.add_argument("--data", type=pathlib.Path, required=True, help="texts to measure on")
    p.add_argument("--length", type=tokens, default=2048, help="tokens of a sequence in training (default 2048)")
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--sequences", type=int, default=4, help="of a step (default 4)")
    p.add_argument("--learning-rate", type=float, default=1e-3)
    p.add_argument("--lengths", type=several(tokens), default=[2048, 4096, 8192], help="measured (default 2k,4k,8k)")
    p.add_argument("--windows", type=int, default=8, help="documents of each length, at most (default 8)")
    p.add_argument("--sparsity", type=float, default=0.8)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", default=str(pathlib.Path(__file__).resolve().parents[1] / "results"))
    a = p.parse_args(argv)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16 if device == "cuda" else torch.float32).to(device).eval()
    tokenizer, most = AutoTokenizer.from_pretrained(a.model), max(a.lengths)
    train = seer.PackedWindows([text for path in a.train for text in texts_of(path)], tokenizer, length=a.length, seed=a.seed)
    documents = []
    for text in texts_of(a.data):
        ids = tokenizer(text[:12 * most], return_tensors="pt").input_ids[0]
        if len(ids) >= most:
            documents.append(ids.to(device))
        if len(documents) == a.windows:
            break
    if len(documents) < 2:
        sys.exit(f"{a.data}: {len(documents)} documents of {most} tokens, want 2 or more")
    rows = measure(model, train, {length: [ids[:length] for ids in documents] for length in a.lengths}, a)
    machine = record.gpu() if device == "cuda" else record.cpu()
    import transformers
    made = record.make(record.portable("python bench/gate_rope.py " + shlex.join(sys.argv[1:] if argv is None else argv)), METHOD, {"transformers": transformers.__version__}, rows, {}, "gate rope", machine)
    path = pathlib.Path(a.out) / record.folder(machine) / "gate_rope.json"
    record.write(path, {**made, "settings": {"model": pathlib.Path(a.model).resolve().name, "data": [a.data.name]}})
    print(f"written: {path}")


if __name__ == "__main__":
    main()
