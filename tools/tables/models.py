"""Tables of whole models on a GPU: the first token of a prompt, decoding, distillation, fine-tuning."""
import first_token
from . import results
from .quality import LABELS
from .results import CPU, GPU, length, load, markdown, share, source


def prefill_gpu():
    """Time to the first token; what it consists of at 90 %."""
    made = load("prefill", GPU)
    rows = []
    for (model, tokens), bars in first_token.groups(made["rows"]).items():
        ms = {name: row["median_ms"] for name, row in bars.items()}
        sparse = bars.get("90%")
        speed_up, overhead, parts, peak = "-", "-", "-", "-"
        if sparse:
            dense = [ms[name] for name in first_token.DENSE.values() if name in ms]
            if dense:
                speed_up = f"**{min(dense) / sparse['median_ms']:.2f}x**"
            overhead = share(sparse.get("overhead"))
            parts = " / ".join(share(sparse[part] / sparse["median_ms"])
                               for part in ("gate_ms", "select_ms", "attention_ms", "products_ms", "rest_ms"))
            peak = f"{sparse['peak_mib'] / 1024:.1f} GiB"
        rows.append([model, length(tokens), *(f"{ms[name] / 1e3:.2f} s" if name in ms else "-"
                                              for name in first_token.BARS), speed_up, overhead, parts, peak])
    header = ["model", "tokens", "dense, FA2", "dense, cuDNN", "sparse 50%", "70%", "90%", "90% against faster dense",
              "longer than its parts", "90%: gate / selection / attention / products / rest", "peak memory"]
    return markdown(header, rows) + "\n\n" + source(made, "prefill", GPU)


def choosing():
    """What methods take to choose blocks and to attend to them in a whole prompt, all layers together; on a GPU once that was measured."""
    chip = next((chip for chip in (GPU, CPU) if (results.FOLDER / chip / "prefill_methods.json").exists()), GPU)
    made = load("prefill_methods", chip)
    lengths = sorted({r["len_q"] for r in made["rows"]})
    dense = {n: min(r["attention_ms"] for r in made["rows"] if r["len_q"] == n and r["lists"] == "dense") for n in lengths}
    ms = lambda value: f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
    lines = []
    for name in dict.fromkeys(r["implementation"] for r in made["rows"]):
        cells, of = [], {r["len_q"]: r for r in made["rows"] if r["implementation"] == name}
        for n in lengths:
            row = of.get(n)
            if row is None:
                cells += ["-", "-", "-"]
                continue
            chosen = row["gate_ms"] + row["select_ms"]
            cells += ["" if row["lists"] == "dense" else ms(chosen), ms(row["attention_ms"]), share((chosen + row["attention_ms"]) / dense[n])]
        density = " / ".join(f"{of[n]['density']:.2f}".lstrip("0") for n in lengths if n in of)
        lines.append([LABELS.get(name, name), "1" if name.startswith("dense") else density, *cells])
    header = ["blocks chosen by", "density", *(cell for n in lengths for cell in (f"{length(n)}: choosing", "attention", "both, of dense"))]
    return markdown(header, lines) + "\n\n" + source(made, "prefill_methods", chip)


def attach():
    """Prefill of models of transformers with seer.attach beside transformers' own attentions, on a GPU and where it was measured on a CPU."""
    chips = [chip for chip in (GPU, CPU) if chip == GPU or (results.FOLDER / chip / "attach.json").exists()]
    records = {chip: load("attach", chip) for chip in chips}
    names = list(dict.fromkeys(row["implementation"] for made in records.values() for row in made["rows"]))
    sparse = sorted((name for name in names if name.startswith("seer")), key=lambda name: float(name.split()[1].rstrip("%")))
    dense, lines = [name for name in names if name not in sparse], []
    for chip, made in records.items():
        groups = {}
        for row in made["rows"]:
            if row["status"] == "ok":
                groups.setdefault((row["len_q"], row["model"]), {})[row["implementation"]] = row
        for (tokens, model), of in sorted(groups.items()):
            best = min((of[name] for name in dense if name in of), key=lambda row: row["median_ms"], default=None)
            own = of.get(sparse[-1])
            gib = [f"{row['peak_mib'] / 1024:.2f}" for row in (own, best) if row and row["peak_mib"]]
            added = ["-" if name not in of else f"{of[name]['attached_ms'] - of[name]['operations_ms']:+.1f} ms ({of[name]['attached_ms'] / of[name]['operations_ms'] - 1:+.1%})"
                     for name in sparse]
            lines.append([f"{model}, {of[next(iter(of))]['layers']} layers", length(tokens), "GPU" if chip == GPU else "CPU",
                          *(f"{of[name]['median_ms'] / 1e3:#.3g} s" if name in of else "-" for name in sparse + dense),
                          f"**{best['median_ms'] / own['median_ms']:.2f}x**" if own and best else "-", " / ".join(gib) + " GiB" if gib else "-", " / ".join(added)])
    at = [name.split()[1] for name in sparse]
    header = ["model", "tokens", "", *(f"attached, {s} sparse" for s in at), *({"flex_attention": "FlexAttention"}.get(name, name) for name in dense),
              f"{at[-1]} against fastest dense", f"peak memory, {at[-1]} / dense", f"attach adds, {' / '.join(at)}"]
    sources = [f"transformers {made['rivals']['transformers']}, {source(made, 'attach', chip)}" for chip, made in records.items()]
    return markdown(header, lines) + "\n\n" + "; ".join(sources)


def decode_gpu():
    """A step of a whole model after a long prompt."""
    made = load("decode", GPU)
    rows = [[r["model"], length(r["len_k"]), f"{r['median_ms']:.1f} ms", f"{r['tokens_per_s']:.0f}", f"{r['attention_ms']:.1f} ms"] for r in made["rows"]]
    return markdown(["model", "cached", "step", "tokens/s", "attention"], rows) + "\n\n" + source(made, "decode", GPU)


def beside(row, rows):
    """What streaming costs, and what a second GPU brings, where the row to compare with is there."""
    def rival(gpus, streamed):
        found = [r for r in rows if (r["model"], r["len_q"], r["dtype"]) == (row["model"], row["len_q"], row["dtype"])
                 and (r.get("gpus", 1), r["streamed"]) == (gpus, streamed)]
        # Rather of as many sequences, and rather one that was measured for this comparison, which names its GPUs.
        return min(found, key=lambda r: (r["sequences"] != row["sequences"], "gpus" not in r), default=None)

    gpus, notes = row.get("gpus", 1), []
    one, whole = rival(1, row["streamed"]), rival(gpus, False)
    if gpus > 1 and one:
        notes.append(f"**{row['tokens_per_s'] / one['tokens_per_s']:.2f}x** as fast as one GPU")
    if row["streamed"] and whole:
        notes.append(f"{whole['tokens_per_s'] / row['tokens_per_s']:.2f}x the time of layers on the device")
    return "; ".join(notes)


def distill_gpu():
    """Distillation: rate, hours of the published recipe, where the time goes."""
    made = load("distill", GPU)
    rows = []
    for r in made["rows"]:
        parts = " / ".join(share(r.get(part)) for part in ("attention_share", "gate_share", "model_share"))
        rows.append([r["model"], f"{r['sequences']} x {length(r['len_q'])}", r.get("gpus", 1),
                     "streamed" if r["streamed"] else "on device", f"{r['tokens_per_s']:.0f}", f"{r['hours']:.1f} h",
                     parts, share(r.get("mfu")), f"{r['peak_mib'] / 1024:.1f} GiB", beside(r, made["rows"])])
    header = ["model", "tokens of a step", "GPUs", "layers", "tokens/s", "0.524 B tokens",
              "attention / gates / rest", "MFU", "peak memory", "compared"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return markdown(header, rows) + "\n\n" + source(made, "distill", GPU)


STEP_PARTS = ("attention_forward", "attention_backward", "pooled", "gates", "products", "loss", "optimizer", "rest")


def finetune_gpu():
    """A step of fine-tuning by one GPU, of one window: dense, and sparse with the gates trained in every step or in every 8th."""
    made = load("finetune", GPU)
    shape = lambda r: (r["model"], r["len_q"], r["states_on_host"])
    measured = [r for r in made["rows"] if (r["sequences"], r["gpus"]) == (1, 1)]
    dense = {shape(r): r["median_ms"] for r in measured if r["implementation"] == "dense"}
    rows = []
    for r in measured:
        every, than = r["median_ms"], dense.get(shape(r))
        against = lambda ms: f" **{than / ms:.2f}x**" if than else ""
        seconds = lambda ms: f"{ms / 1e3:.2f} s"
        is_dense = r["implementation"] == "dense"
        eighth = (every + 7 * r["without_gates_ms"]) / 8 if not is_dense else None
        parts = " / ".join(share(r["parts"][part] / sum(r["parts"].values())) for part in STEP_PARTS)
        rows.append([r["model"], f"{r['sequences']} x {length(r['len_q'])}" + (", states on the host" if r["states_on_host"] else ""),
                     "dense" if is_dense else f"{1 - r['density']:.0%} sparse", seconds(every) + ("" if is_dense else against(every)),
                     "" if is_dense else seconds(eighth) + against(eighth), parts, f"{r['tokens_per_s']:.0f}", share(r["mfu"]),
                     f"{r['peak_mib'] / 1024:.1f} GiB"])
    header = ["model", "tokens of a step", "attention", "step", "gates in every 8th step",
              "forward / backward of attention / map / gates / products / loss / optimizer / rest", "tokens/s", "MFU", "peak memory"]
    return markdown(header, rows) + "\n\n" + source(made, "finetune", GPU)


# f32 masters and AdamW's two states.
STATE_BYTES = 12
WEIGHTS = {"llama-3.2-1b": 1_235_814_400}


def finetune_gpus():
    """The same step by one GPU and by several; nothing where only one was measured."""
    made, groups, lines = load("finetune", GPU), {}, []
    for r in sorted(made["rows"], key=lambda r: r["gpus"]):
        groups.setdefault((r["model"], r["len_q"], r["sequences"], r["states_on_host"], r["density"]), []).append(r)
    for (model, tokens, sequences, on_host, density), (one, *several) in groups.items():
        if one["gpus"] != 1 or not several:
            continue
        for r in (one, *several):
            states = f"{STATE_BYTES * WEIGHTS[model] / r['gpus'] / 2 ** 30:.1f} GiB" if model in WEIGHTS and not on_host else "-"
            lines.append([model, f"{sequences} x {length(tokens)}" + (", states on the host" if on_host else ""), "dense" if density == 1 else f"{1 - density:.0%} sparse", r["gpus"],
                          f"{r['median_ms'] / 1e3:.2f} s", "" if r is one else f"**{one['median_ms'] / r['median_ms']:.2f}x**", f"{r['tokens_per_s']:.0f}", share(r["mfu"]),
                          f"{r['peak_mib'] / 1024:.1f} GiB", "" if r is one else f"{(one['peak_mib'] - r['peak_mib']) / 1024:.1f} GiB", states])
    if not lines:
        return ""
    header = ["model", "tokens of a step", "attention", "GPUs", "step", "against one GPU", "tokens/s", "MFU", "peak memory of a GPU", "less by", "masters and states of a GPU"]
    return (f"`seer finetune` by one process and, over NCCL, by several: each keeps f32 masters and AdamW's states of its share of the weights, {STATE_BYTES} bytes a weight (last column, counted).\n\n"
            f"{markdown(header, lines)}\n\n{source(made, 'finetune', GPU)}")


def python_training():
    """seer.trainer.GateTrainer by one process and by several with FSDP2."""
    made = load("python_training", GPU)
    tasks = {"gates": "gates, the model frozen", "finetune": "all weights, and gates along"}
    one = {(r["task"], r["model"], r["len_q"]): r for r in made["rows"] if r["gpus"] == 1}
    lines = []
    for r in sorted(made["rows"], key=lambda r: (list(tasks).index(r["task"]), r["gpus"])):
        alone = one[r["task"], r["model"], r["len_q"]]
        lines.append([tasks[r["task"]], r["gpus"], f"{r['median_ms'] / 1e3:.2f} s", r["tokens_per_s"], "" if r is alone else f"**{r['tokens_per_s'] / alone['tokens_per_s']:.2f}x**",
                      f"{r['peak_mib'] / 1024:.1f} GiB", " / ".join(f"{loss:.3f}" for loss in r["losses"]),
                      " / ".join(f"{norm:#.3g}" for norm in r["grad_norms"])])
    header = ["what learns", "GPUs", "step", "tokens/s", "against one GPU", "peak memory of a GPU", "losses of the steps", "norms of the gradient"]
    return f"{markdown(header, lines)}\n\ntransformers {made['rivals']['transformers']}, {source(made, 'python_training', GPU)}"
