#!/usr/bin/env python3
"""Prefill of a transformers model with seer.attach beside transformers' own attentions, in one process, and what attach adds to the
operations that it calls.

    python bench/attach.py [--lengths 8k,32k,128k] [--layers 8] [--sparsities 0.5,0.9]      # Llama-3.1-8B's shape, random weights
    python bench/attach.py --model FOLDER --device cpu --lengths 8k                          # a model of yours

Writes results/<chip>/attach.json. Gates are new ones: they choose as many blocks as trained ones, not the same.
"""
import argparse
import contextlib
import gc
import pathlib
import shlex
import statistics
import sys
import time

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

import cases  # before seer, which it finds
import record
import rivals
import seer

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHOD = ("wall time of a whole forward pass without a cache and with logits of the last token, the device idle before and after; "
          "implementations take turns; overhead: a pass's masks and all its layers' calls of the attention function, beside the same operations called alone")
DENSE = {  # name: (transformers' name, what sdpa may use)
    "sdpa, cuDNN": ("sdpa", SDPBackend.CUDNN_ATTENTION),
    "sdpa, FlashAttention-2": ("sdpa", SDPBackend.FLASH_ATTENTION),
    "sdpa": ("sdpa", None),
    "flash_attention_2": ("flash_attention_2", None),
    "flex_attention": ("flex_attention", None),
}
DTYPES = {torch.bfloat16: "bf16", torch.float32: "f32"}


def model_of(args):
    dtype = torch.bfloat16 if args.device == "cuda" or args.bf16 else torch.float32
    if args.model:
        model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    else:
        config = transformers.LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=args.layers, num_attention_heads=32,
                                          num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072, rope_theta=500000.0)
        with torch.device(args.device):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.to(args.device).eval()


def clock(call, device):
    """Seconds, and the peak of the memory beside what was there."""
    if device == "cpu":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin, None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, begin = torch.cuda.memory_allocated(), time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begin, torch.cuda.max_memory_allocated() - before


def prefill(model, ids, sparsity, dense, device):
    """clock() of a call without a cache; sparsity: seer's, attached before, or `dense`: one of DENSE."""
    name, backend = DENSE[dense] if dense else (None, None)
    if not dense:
        seer.attach(model, seer.GateConfig(), sparsity)
    else:
        model.config._attn_implementation = name
    try:
        with sdpa_kernel(backend) if backend else contextlib.nullcontext():
            return clock(lambda: model(ids, use_cache=False, logits_to_keep=1), device)
    finally:
        if not dense:
            seer.detach(model)


def overhead(model, ids, sparsity, runs, device):
    """(seconds with attach, seconds of its operations alone) for the attention of all layers of a pass."""
    from transformers.modeling_utils import AttentionInterface
    attend, seen = sys.modules["seer._attention"].seer_attention, {}
    seer.attach(model, seer.GateConfig(), sparsity)

    def spy(module, *inputs, **settings):
        seen[module.layer_idx] = module, inputs, settings, dict(module.attn_gate.kept)  # which the call gives up
        return attend(module, *inputs, **settings)

    AttentionInterface.register("seer", spy)
    model(ids, use_cache=False, logits_to_keep=1)
    module, (q, k, v, *rest), settings, kept = seen[0]
    gate, packing = module.attn_gate, seer.Packing.of_batch(*ids.shape, device=ids.device)
    plain = [kept[name].view(*ids.shape, -1, q.shape[-1]) for name in gate.sources]
    rotary = model.seer.rotary
    angles = seer.block_angles(rotary.inv_freq, packing, rotary.attention_scaling)
    layers, flat = len(model.seer.layers), [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
    chosen = model.seer.selection()

    def attached():
        settings["seer_pass"] = sys.modules["seer._calls"].make_pass(model.seer, {"input_ids": ids})
        for _ in range(layers):
            gate.kept.update(kept)
            attend(module, q, k, v, *rest, **settings)

    def alone():
        for _ in range(layers):
            vectors = torch.ops.seer.attn_gate_vectors(
                *(x.flatten(0, 1) for x in plain), packing.cu_q, packing.cu_rows, packing.num_rows, packing.block, *gate.config.pools(), None,
                gate.mask_linear_k.weight, *angles)
            torch.ops.seer.sparse_attention(*flat, *vectors, *packing.cu(), packing.num_blocks, packing.block, q.shape[-1] ** -0.5, True, *chosen)

    times = {attached: [], alone: []}
    for _ in range(runs + 1):
        for call, found in times.items():
            found.append(clock(call, device)[0])
    seer.detach(model)
    AttentionInterface.register("seer", attend)
    return [statistics.median(found[1:]) for found in times.values()]


def measure(model, length, args):
    """Rows of one length."""
    ids = torch.randint(3, model.config.vocab_size, (1, length), device=args.device)
    config, rows, times = model.config, {}, {}
    name_of_model = pathlib.Path(args.model).resolve().name if args.model else "llama-3.1-8b"
    todo = [(f"seer, {s:.0%}", s, None) for s in args.sparsities] + [(name, None, name) for name in args.dense]
    for name, sparsity, dense in todo:
        rows[name] = {"model": name_of_model, "implementation": name, "len_q": length, "len_k": length, "heads_q": config.num_attention_heads,
                      "heads_kv": config.num_key_value_heads, "head_dim": model.model.layers[0].self_attn.head_dim,
                      "layers": config.num_hidden_layers, "dtype": DTYPES[model.dtype], "status": "ok"}
    for run in range(args.runs + 1):  # the first warms up
        for name, sparsity, dense in todo:
            if rows[name]["status"] != "ok":
                continue
            try:
                times.setdefault(name, []).append(prefill(model, ids, sparsity, dense, args.device))
            except Exception as error:  # not installed, or not enough memory: a result
                rows[name]["status"] = rivals.one_line(error)
    for name, found in times.items():
        seconds = [s for s, _ in found[1:]]
        if rows[name]["status"] == "ok":
            peak = found[-1][1]
            rows[name].update(median_ms=1e3 * statistics.median(seconds), min_ms=1e3 * min(seconds), max_ms=1e3 * max(seconds), runs=len(seconds),
                              peak_mib=peak and peak / 2 ** 20)
    for name, sparsity, dense in todo:
        if not dense and rows[name]["status"] == "ok":
            with_attach, alone = overhead(model, ids, sparsity, args.runs, args.device)
            rows[name].update(attached_ms=1e3 * with_attach, operations_ms=1e3 * alone)
    return list(rows.values())


def several(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def tokens(text):
    return int(text[:-1]) * 1024 if text.lower().endswith("k") else int(text)


def parse(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", help="a folder; default: Llama-3.1-8B's shape with random weights")
    p.add_argument("--layers", type=int, default=8, help="of that shape (default 8; the model has 32)")
    p.add_argument("--lengths", type=several(tokens), default=several(tokens)("8k,32k,128k"), help="default 8k,32k,128k")
    p.add_argument("--sparsities", type=several(float), default=[0.5, 0.9], help="default 0.5,0.9")
    p.add_argument("--dense", type=lambda text: text.split(";"), help="with ; between: " + "; ".join(DENSE))
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--bf16", action="store_true", help="on a CPU, too")
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--append", action="store_true", help="keep the lengths of the file that this run does not measure")
    p.add_argument("--out", default=str(ROOT / "results"))
    args = p.parse_args(argv)
    args.dense = args.dense or ([name for name in DENSE if name != "sdpa"] if args.device == "cuda" else ["sdpa"])
    if not set(args.dense) <= set(DENSE):
        p.error(f"--dense: want some of {'; '.join(DENSE)}")
    return args


@torch.no_grad()
def main(argv=None):
    args = parse(argv)
    model, rows = model_of(args), []
    machine = record.gpu() if args.device == "cuda" else record.cpu()
    path = pathlib.Path(args.out) / record.folder(machine) / "attach.json"
    old = record.read(path) if args.append and path.exists() else None
    command = record.portable("python bench/attach.py " + shlex.join(sys.argv[1:] if argv is None else argv))
    for length in args.lengths:
        for row in measure(model, length, args):
            rows.append(row)
            added = f"  attach adds {row['attached_ms'] / row['operations_ms'] - 1:+.1%} to {row['operations_ms']:.1f} ms" if "attached_ms" in row else ""
            peak = f"  {row['peak_mib']:8.0f} MiB" if row.get("peak_mib") else ""
            print(f"{length:7} {row['implementation']:24}{row.get('median_ms', float('nan')):10.1f} ms{peak}  {row['status']}{added}", flush=True)
        gc.collect()
        made = record.make(command, METHOD, {"transformers": transformers.__version__}, rows, {}, "attach", machine)
        record.write(path, record.merge(old, made) if old else made)  # after each length: the longest take minutes
    print(f"written: {path}")


if __name__ == "__main__":
    main()
