#!/usr/bin/env python3
"""Speed of gate training on GPUs: `seer bench distill` for the cases of the README, rows of all in one file.

    python bench/distill.py [--cases recipe,stream,gpus] [--append]

recipe: the published recipe's 64k tokens on an 8B shape. stream: a 14B shape with its layers on the GPU, then with
layers that stay in host memory under a cap of device memory. gpus: the recipe by one process and by one for each GPU.
Writes results/<chip>/distill.json; each row carries the command that made it.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import record

ROOT = pathlib.Path(__file__).resolve().parent.parent
GIB = 1 << 30


def gpus():
    """[(name, bytes)] of all GPUs."""
    import torch
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(gpu.name, gpu.total_memory) for gpu in found]


def plan(cases, found, args):
    """[(arguments of seer bench distill, processes, GiB of device memory or None)]"""
    calls = []
    if "recipe" in cases:
        calls.append((["--shapes", args.shape, "--lengths", args.length], 1, None))
    if "stream" in cases:
        large = ["--shapes", args.large_shape, "--lengths", args.length, "--sequences", str(args.sequences)]
        calls += [(large, 1, None), ([*large, "--stream"], 1, args.cap)]
    if "gpus" in cases:
        if len(found) < 2:
            sys.exit(f"distill.py: the case gpus needs two GPUs, here are {len(found)}")
        shared = ["--shapes", args.shape, "--lengths", args.length, "--sequences", str(len(found))]
        calls += [(shared, 1, None), (shared, len(found), None)]
    return calls


def run(arguments, processes, cap, memory, args):
    """The record that seer wrote."""
    command = [args.seer, "bench", "distill", *arguments, "--device", "cuda", "--runs", str(args.runs)]
    shown = ["seer", *command[1:]]
    if processes > 1:
        command = ["torchrun", "--no-python", "--nproc_per_node", str(processes), *command]
        shown = [*command[:4], *shown]
    environment = dict(os.environ)
    if cap:
        setting = f"per_process_memory_fraction:{cap * GIB / memory:.4f}"
        environment["PYTORCH_CUDA_ALLOC_CONF"] = setting
        shown.insert(0, f"PYTORCH_CUDA_ALLOC_CONF={setting}")
    print(" ".join(shown), flush=True)
    with tempfile.TemporaryDirectory() as out:
        try:
            subprocess.run([*command, "--out", out], env=environment, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"distill.py: {error}")  # seer has said why
        made = record.read(next(pathlib.Path(out).glob("*/distill.json")))
    for row in made["rows"]:
        row.update(command=" ".join(shown), cap_gib=cap)
    return made


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cases", type=lambda text: text.split(","), default="recipe,stream", help="recipe, stream, gpus")
    p.add_argument("--shape", default="llama-3.1-8b")
    p.add_argument("--large-shape", default="qwen2.5-14b", help="of the case stream")
    p.add_argument("--length", default="65536", help="tokens of a sequence")
    p.add_argument("--sequences", type=int, default=2, help="of a step, in the case stream (default 2)")
    p.add_argument("--cap", type=float, default=20, help="GiB of device memory in the case stream (default 20)")
    p.add_argument("--runs", type=int, default=2, help="timed steps (default 2)")
    p.add_argument("--seer", default=str(ROOT / "build" / "seer"))
    p.add_argument("--out", default=str(ROOT / "results"), help="folder of results")
    p.add_argument("--append", action="store_true", help="keep the rows that the file has")
    args = p.parse_args()
    if not set(args.cases) <= {"recipe", "stream", "gpus"}:
        p.error("--cases: recipe, stream, gpus")
    found = gpus()
    if not found:
        sys.exit("distill.py: torch finds no GPU")
    name, memory = found[0]
    path = pathlib.Path(args.out) / record.slug(name) / "distill.json"
    rows = record.read(path)["rows"] if args.append and path.exists() else []
    for arguments, processes, cap in plan(args.cases, found, args):
        made = run(arguments, processes, cap, memory, args)
        rows += made["rows"]
        command = record.portable(" ".join(["python", "bench/distill.py", *sys.argv[1:]]))
        record.write(path, {**made, "rows": rows, "command": command})
    print(f"written: {path}")


if __name__ == "__main__":
    main()
