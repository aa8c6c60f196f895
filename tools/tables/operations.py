"""Tables of single operations: attention, the pooled map, the gate."""
import record
import table
from .results import CPU, CPU_AVX2, GPU, length, load, markdown, source


def speed():
    """Block-sparse attention on a CPU beside torch's dense attention: 32k, bf16, random lists; the files have more."""
    rows, sources = [], []
    for chip, cpu in ((CPU, "AVX-512, bf16 dot products"), (CPU_AVX2, "AVX2 (`--avx2`)")):
        made = load("block_sparse_attn", chip)
        sources.append(source(made, "block_sparse_attn", chip))
        for head_dim in (64, 128):
            of = [r for r in made["rows"] if (r["head_dim"], r["len_q"]) == (head_dim, 32768)]
            rivals = {r["dtype"]: r["median_ms"] for r in of if r["implementation"] == "torch sdpa"}
            best = min(rivals.values())
            rows += [[cpu, head_dim, f"{r['density']:.3f}", f"{r['median_ms']:.0f} ms",
                      f"{best:.0f} ms ({min(rivals, key=rivals.get)})", f"**{best / r['median_ms']:.1f}x**",
                      f"{r['kept_tflops'] * 1e3:.0f}"]
                     for r in of if r["implementation"] == "seer" and r["lists"] == "random" and
                     r["dtype"] == "bf16" and (r["density"] == 1 or 0.08 < r["density"] < 0.15)]
    return (markdown(["CPU has", "D", "density", "seer", "torch, faster dtype", "speed-up", "kept GFLOP/s"], rows) +
            "\n\n" + "\n\n".join(sources))


def others():
    """On a CPU: the backward, the pooled map, the gate and memory, one line each."""
    backward, pooled, gate, prefill = (load(name, CPU) for name in ("block_sparse_attn_backward", "pooled_attn", "attn_gate", "prefill"))
    rows = []
    for head_dim in sorted({r["head_dim"] for r in backward["rows"]}):
        of = [r for r in backward["rows"] if r["head_dim"] == head_dim]
        best = min(r["median_ms"] for r in of if r["implementation"] == "torch sdpa")  # of f32 and bf16
        times = [f"{best / r['median_ms']:.1f}x at density {r['density']:.1f}" for r in of if r["implementation"] == "seer"]
        rows.append([f"`block_sparse_attn_backward`, {length(of[0]['len_q'])}, D = {head_dim}, faster than torch's dense backward", ", ".join(times)])
    for head_dim in sorted({r["head_dim"] for r in pooled["rows"]}):
        of = [r for r in pooled["rows"] if r["head_dim"] == head_dim]
        best = min(r["median_ms"] for r in of if r["implementation"] == "torch sdpa")
        own = next(r["median_ms"] for r in of if r["implementation"] == "seer")
        rows.append([f"`pooled_attn`, {length(of[0]['len_q'])}, D = {head_dim}, against torch's dense attention",
                     f"{own / best:.2f}x its time"])
    for tokens, head_dim in sorted({(r["len_q"], r["head_dim"]) for r in gate["rows"]}):
        of = {r["implementation"]: r["median_ms"] for r in gate["rows"]
              if (r["len_q"], r["head_dim"]) == (tokens, head_dim)}
        part = (of["seer attn_gate"] + of["seer block_select"]) / of["seer block_sparse_attn"]
        rows.append([f"gate and selection, {length(tokens)}, D = {head_dim}, of sparse attention's time at 90 %",
                     f"{part:.1%}"])
    peaks = ", ".join(f"{length(r['len_q'])}: {r['peak_mib']:.0f} MiB" for r in prefill["rows"]
                      if r["implementation"] == "seer")
    rows.append(["sparse prefill of the embedded model, peak memory beyond the weights", peaks])
    return markdown(["what", "measured"], rows)


def gpu():
    """Block-sparse attention beside dense and block-sparse rivals: prompts with 32 kv heads and gate-like lists,
    lengths that were measured with 8 only, chunks with all."""
    made = load("block_sparse_attn", GPU)
    rows, bf16 = [], [r for r in made["rows"] if r["head_dim"] == 128 and r["dtype"] == "bf16"]
    whole = {r["len_k"] for r in bf16 if r["heads_kv"] == r["heads_q"] and r["len_q"] == r["len_k"]}
    for own, rivals in table.compared(bf16):
        is_chunk, is_full = own["len_q"] < own["len_k"], own["wanted_density"] >= 1
        if own["list_heads"] != own["heads_q"]:
            continue
        if not is_chunk and own["len_k"] in whole and (
                own["heads_kv"] != own["heads_q"] or own["lists"] != "gate" and not is_full):
            continue
        if own["len_k"] not in whole and own["wanted_density"] not in (.02, .1, 1.):
            continue
        lists = "all blocks" if is_full else {"gate": "gate-like"}.get(own["lists"], own["lists"])
        ms = own["median_ms"]
        rows.append([table.tokens(own), f"{own['heads_q']}/{own['heads_kv']}", lists, f"{own['density']:.3f}",
                     f"{ms:.2f} ms", f"{own['kept_tflops']:.0f}",
                     *(table.ratio(rivals.get(name), ms) for name in (table.FLASH, table.CUDNN, *table.SPARSE))])
    return (markdown(["tokens", "heads", "lists", "density", "seer", "kept TFLOP/s", "against FlashAttention-2",
                      "against cuDNN", *(f"against {name}" for name in table.SPARSE)], rows) + "\n\n" +
            source(made, "block_sparse_attn", GPU))


def headline():
    """Block-sparse attention on a GPU in five rows, where it is slower than a rival, too."""
    made = load("block_sparse_attn", GPU)
    wanted = [(2048, 8, "random", .1), (16384, 8, "gate", .1), (32768, 32, "gate", .1), (64 * 1024, 8, "gate", .1), (256 * 1024, 8, "gate", .1)]
    of = {(own["len_k"], own["heads_kv"], own["lists"], own["wanted_density"]): (own, rivals)
          for own, rivals in table.compared([r for r in made["rows"] if r["head_dim"] == 128 and r["dtype"] == "bf16"])
          if own["len_q"] == own["len_k"] and own["list_heads"] == own["heads_q"]}
    rows = []
    for tokens, kv, lists, density in wanted:
        own, rivals = of[tokens, kv, lists, density]
        sparse = min((rivals[name] for name in table.SPARSE if name in rivals), default=None)
        ms = own["median_ms"]
        rows.append([table.tokens(own), f"{own['heads_q']}/{own['heads_kv']}", f"{own['density']:.0%}", f"{ms:.2f} ms", f"{own['kept_tflops']:.0f}",
                     *(table.ratio(rivals.get(name), ms) for name in (table.FLASH, table.CUDNN)), table.ratio(sparse, ms)])
    return (markdown(["tokens", "heads", "blocks computed", "seer", "kept TFLOP/s", "FlashAttention-2", "cuDNN", "fastest block-sparse rival"], rows) +
            "\n\n" + source(made, "block_sparse_attn", GPU))


def decode_attn_gpu():
    """One query against a long cache."""
    made = load("decode_attn", GPU)
    rows = []
    for own in made["rows"]:
        if own["implementation"] != "seer":
            continue
        rivals = {r["implementation"]: r["median_ms"] for r in made["rows"] if r["implementation"].startswith("torch") and
                  all(r[key] == own[key] for key in ("len_k", "heads_q", "heads_kv", "head_dim", "dtype"))}
        rows.append([length(own["len_k"]), f"{own['heads_q']}/{own['heads_kv']}", own["head_dim"], f"{own['median_ms'] * 1e3:.0f} us",
                     f"{own['gbytes_per_s']:.0f}", f"{own['memory_share']:.0%}",
                     table.ratio(min(rivals.values(), default=None), own["median_ms"])])
    return markdown(["cached", "heads", "D", "seer", "GB/s", "of memory's rate", "against torch"], rows) + "\n\n" + source(made, "decode_attn", GPU)


def gpu_map():
    """Dense attention with the pooled map of each query head, and the map alone, beside dense attention without one."""
    made = load("pooled_attn", GPU)
    rows, kernels = [], {64: 1, 128: 0}  # head sizes with kernels for Hopper first
    for own in sorted(made["rows"], key=lambda r: (kernels.get(r["head_dim"], r["head_dim"]), r["len_q"], -r["heads_kv"])):
        if own["implementation"] != "seer" or own["status"] != "ok" or own["map_heads"] != "q":
            continue
        beside = {r["implementation"]: r["median_ms"] for r in made["rows"]
                  if r["status"] == "ok" and record.group_of(r) == record.group_of(own)}
        ms, alone = own["median_ms"], beside.get("seer, map alone")
        rows.append([table.tokens(own), f"{own['heads_q']}/{own['heads_kv']}", own["head_dim"], f"{ms:.2f} ms",
                     f"{own['tflops']:.0f}", *(table.ratio(beside.get(name), ms) for name in (table.FLASH, table.CUDNN)),
                     f"{alone:.2f} ms ({alone / ms:.2f})" if alone else "-"])
    return (markdown(["tokens", "heads", "D", "seer, with map", "TFLOP/s", "against FlashAttention-2",
                      "against cuDNN", "map alone (of the time with output)"], rows) + "\n\n" + source(made, "pooled_attn", GPU))


def backward_gpu():
    """The backward, and forward and backward together, beside dense ones."""
    made = load("block_sparse_attn_backward", GPU)
    rows = []
    for own in made["rows"]:
        if own["implementation"] != "seer" or own["status"] != "ok":
            continue
        rivals = {r["implementation"]: r for r in made["rows"]
                  if r["status"] == "ok" and record.group_of(r) == record.group_of(own)}
        ratios = [table.ratio(rivals.get(name, {}).get(f"{what}_ms"), own[f"{what}_ms"])
                  for what in ("backward", "both") for name in (table.FLASH, table.CUDNN)]
        rows.append([table.tokens(own), f"{own['heads_q']}/{own['heads_kv']}", own["head_dim"], f"{own['density']:.0%}",
                     f"{own['backward_ms']:.2f} ms", f"{own['credited_tflops']:.0f}", *ratios])
    order = lambda row: (-row[2], int(row[0][:-1]))
    return (markdown(["tokens", "heads", "D", "blocks", "backward", "credited TFLOP/s", "against FlashAttention-2",
                      "against cuDNN", "with the forward, FlashAttention-2", "with the forward, cuDNN"],
                     sorted(rows, key=order)) + "\n\n" + source(made, "block_sparse_attn_backward", GPU))


# Steps of bench/gates.py: what the page calls them.
STEPS = {"pool q": "pool q, with its RoPE", "pool k": "pool k", "project k": "project k", "score": "score",
         "select nz_ratio": "select, `nz_ratio`",
         "gate and selection": "**gate and selection**",
         **{f"{heads}: {step}": f"{heads}{label}" for heads in ("1 lookup head", "3 lookup heads")
            for step, label in (("project", ": project q, k"), ("score", ": score"), ("with gate and selection", ", with gate and selection"),
                                ("gradient", " in training: gradient"))},
         "sparse attention": "sparse attention",
         "select threshold": "instead: select, `threshold`", "select top_p": "instead: select, `top_p`",
         "select head_budget": "instead: select, `head_budget`"}


def gate_gpu():
    """The gate's steps at 32k and 128k: time, and what that is of the sparse attention that they serve."""
    made = load("attn_gate", GPU)
    lengths = (32768, 131072)
    of = {(r["implementation"], r["len_q"]): r for r in made["rows"] if r["status"] == "ok"}

    def cell(step, tokens):
        row = of.get((step, tokens))
        if not row:
            return "-"
        text = f"{row['median_ms']:.3f} ms"
        if step != "sparse attention":
            # A rule that a strength cannot hold to the others' density says which it had.
            is_apart = row["density"] and abs(row["density"] - of["sparse attention", tokens]["density"]) > 0.05
            keeps = f", keeps {row['density']:.0%}" if is_apart else ""
            text += f" ({row['of_sparse_attention']:.1%}{keeps})"
        return f"**{text}**" if step == "gate and selection" else text

    rows = []
    for step, label in STEPS.items():
        if any((step, tokens) in of for tokens in lengths):
            rows.append([label, *(cell(step, tokens) for tokens in lengths)])
    return (markdown(["step", *(f"{length(tokens)}, of sparse attention" for tokens in lengths)], rows) + "\n\n" +
            source(made, "attn_gate", GPU))
