#!/usr/bin/env python3
"""Makes the embedded model anew: assets/reference with its gates, and the record of how, results/embedded_model.json.

    python tools/reference_model.py --data BOOKS,PROOFS --valid BOOKS,PROOFS --out FOLDER

Four runs of `seer`, a folder of FOLDER each, and each goes on where it was stopped: `base` (pretrain, windows of 2k, then 8k), `model` (finetune: its
context stretched to 32k by YaRN), `gates` (distill, at 32k) and `lookup` (their lookup heads). FOLDER/reference is what they make together, its
gates rounded to bf16, FOLDER/embedded_model.json the record. The tokenizer is that of assets/reference (tools/train_tokenizer.py). On one H200
a quarter of an hour. --rehearse makes a tiny model by the same way in a minute on a CPU.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import record  # noqa: E402
from training_runs import machine  # noqa: E402

SEER = pathlib.Path(os.environ.get("SEER_BUILD", ROOT / "build")) / "seer"
MOST_BYTES = 16 * 2 ** 20  # of all weights
METRICS = 40               # lines of a run that the record keeps, at most
# Muon for matrices, AdamW for the rest; the schedules of the runs are their defaults but for what stands here.
STAGES = {
    "base": ["pretrain", "--steps", "8000", "--valid-every", "1000"],
    "model": ["finetune", "--attention", "dense", "--yarn-factor", "4", "--length", "32768", "--sequences", "4", "--steps", "300", "--optimizer", "muon",
              "--matrix-learning-rate", "4e-3", "--learning-rate", "8e-4", "--warmup", "20", "--final-share", "0.02", "--synthetic", "0.15",
              "--valid-every", "100", "--valid-sequences", "4"],
    "gates": ["distill", "--length", "32768", "--sequences", "2", "--steps", "500", "--learning-rate", "1e-3", "--synthetic", "0.15",
              "--valid-sequences", "2", "--lookup-heads", "0"],
    "lookup": ["distill", "--length", "32768", "--lookup-heads", "0.1", "--synthetic", "0.15", "--valid-sequences", "2"],
}
REHEARSAL = {
    "base": ["--steps", "2", "--hidden", "64", "--layers", "2", "--heads", "2", "--kv-heads", "1", "--intermediate", "64", "--lengths", "128,512",
             "--tokens-per-step", "1024", "--valid-tokens", "1024", "--valid-every", "0", "--device", "cpu"],
    "model": ["--steps", "2", "--length", "1024", "--sequences", "1", "--valid-every", "0", "--valid-sequences", "1", "--warmup", "-1", "--device", "cpu"],
    "gates": ["--steps", "2", "--length", "1024", "--sequences", "1", "--valid-sequences", "1", "--device", "cpu"],
    "lookup": ["--length", "2048", "--lookup-windows", "1", "--valid-sequences", "1", "--device", "cpu"],
}


def replaced(flags, by):
    """`flags` with the values that `by` has for the same ones."""
    own = dict(zip(flags[1::2], flags[2::2]))
    return [flags[0], *(word for pair in {**own, **dict(zip(by[::2], by[1::2]))}.items() for word in pair)]


def commands(a):
    """{stage: arguments of seer}."""
    texts = ["--data", a.data, "--weights", a.weights, "--valid", a.valid, "--cache", str(a.out / "cache")]
    inputs = {"base": [], "model": ["--model", str(a.out / "base")], "gates": ["--model", str(a.out / "model")],
              "lookup": ["--model", str(a.out / "model"), "--gates", str(a.out / "gates")]}
    made = {}
    for stage, flags in STAGES.items():
        flags = replaced(flags, REHEARSAL[stage]) if a.rehearse else flags
        made[stage] = [flags[0], *texts, *inputs[stage], "--out", str(a.out / stage), *flags[1:], *(["--seed", str(a.seed)] if a.seed != 1 else [])]
    return made


def thinned(lines):
    """Every so many lines of metrics, and all that were validated."""
    every = -(-len(lines) // METRICS) or 1
    return [line for i, line in enumerate(lines) if i % every == 0 or i + 1 == len(lines) or any(key.startswith("valid_") for key in line)]


def recorded(folder, command):
    """What the record says of a run."""
    run = json.loads((folder / "run.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"command": record.portable("seer " + " ".join(command)), "data": run["settings"].get("data"), "steps": run["loop"]["steps"],
            "tokens": max((line.get("tokens", 0) for line in lines), default=0), "seconds": max((line.get("seconds", 0) for line in lines), default=0),
            "metrics": thinned(lines)}


def rounded(gates, to):
    """A gate's folder with weights in bf16, of the model that assets/reference will be."""
    import torch
    from safetensors.torch import load_file, save_file
    to.mkdir(parents=True, exist_ok=True)
    name = "attn_gate_weights.safetensors"
    save_file({key: x.to(torch.bfloat16) for key, x in load_file(gates / name).items()}, to / name, metadata={"format": "pt"})
    shutil.copy(gates / "heads.json", to)
    config = json.loads((gates / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, "base_model": "assets/reference"}, indent=2, sort_keys=True) + "\n")


def assemble(out):
    """FOLDER/reference, made beside and then put there; the size of its weights in bytes."""
    beside, final = out / "reference.unfinished", out / "reference"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(out / "model" / name, beside)
    rounded(out / "lookup", beside / "gates")
    size = sum(path.stat().st_size for path in beside.rglob("*.safetensors"))
    if size > MOST_BYTES:
        raise SystemExit(f"reference_model: the weights in {beside} take {size} bytes, more than {MOST_BYTES}")
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    return size


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", required=True, help="texts of books and of proofs, with a comma between")
    p.add_argument("--valid", required=True, help="the same, held out")
    p.add_argument("--weights", default="0.6,0.4", help="of the texts (default 0.6,0.4)")
    p.add_argument("--out", required=True, type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rehearse", action="store_true", help="a tiny model, which shows that the way is open")
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    made = {"what": "how assets/reference was made", "command": record.portable(" ".join(["python", "tools/reference_model.py", *sys.argv[1:]])), **machine(),
            "date": record.today()}
    for stage, command in commands(a).items():
        if subprocess.run([SEER, *command]).returncode != 0:
            raise SystemExit(f"reference_model: `seer {command[0]}` of the stage {stage} failed; the same command goes on from there")
        made[stage] = recorded(a.out / stage, command)
    made["bytes_of_weights"] = assemble(a.out)
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    unfinished = a.out / "embedded_model.json.tmp"
    unfinished.write_text(text)
    unfinished.replace(a.out / "embedded_model.json")
    print(f"written: {a.out / 'reference'}, {a.out / 'embedded_model.json'}")


if __name__ == "__main__":
    main()
