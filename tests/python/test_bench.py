"""bench/: lists, FlexAttention's tables, checks, merging, table and plot; a real run where there is a GPU."""
import argparse
import json
import subprocess
import sys

import pytest
import torch
import transformers

from conftest import BUILD, ROOT

sys.path.insert(0, str(ROOT / "bench"))
import block_lists  # noqa: E402
import cases  # noqa: E402
import check  # noqa: E402
import first_token  # noqa: E402
import gate_settings  # noqa: E402
import gates  # noqa: E402
import lookup_lists  # noqa: E402
import lookup_scores  # noqa: E402
import methods  # noqa: E402
import plot  # noqa: E402
import pooled_attention  # noqa: E402
import prefill_attention  # noqa: E402
import python_training  # noqa: E402
import record  # noqa: E402
import rivals  # noqa: E402
import table  # noqa: E402
import timing  # noqa: E402
import training_runs  # noqa: E402


def visible(rows, blocks):
    return torch.arange(blocks) <= torch.arange(rows)[:, None] + blocks - rows


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("rows,blocks", [(96, 96), (16, 128), (1, 1)])
@pytest.mark.parametrize("density", [.1, .5, 1.])
def test_lists(kind, rows, blocks, density):
    heads = 4
    lists = block_lists.make_lists(kind, density, heads, rows, blocks, "cpu")
    assert (lists.begin.dtype, lists.count.dtype, lists.list.dtype) == (torch.int64, torch.int32, torch.int32)
    assert lists.begin.shape == lists.count.shape == (heads, rows)
    for h in range(heads):
        for r in range(rows):
            begin, count = int(lists.begin[h, r]), int(lists.count[h, r])
            row = lists.list[begin:begin + count].tolist()
            assert row == sorted(set(row)) and row[0] >= 0 and row[-1] == r + blocks - rows
    assert int(lists.begin[-1, -1] + lists.count[-1, -1]) == lists.list.numel()
    mask = lists.to_mask()[0]
    assert mask.sum() == lists.listed and not (mask & ~visible(rows, blocks)).any()


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("density", [.1, .2, .5])
def test_density_is_near_the_wish(kind, density):
    shape = cases.Shape(256 * 64, 256 * 64)
    lists = block_lists.make_lists(kind, density, 8, shape.rows, shape.blocks, "cpu")
    assert lists.listed / (8 * shape.visible) == pytest.approx(density, rel=.15)


def test_gate_lists_have_their_shape():
    mask = block_lists.make_lists("gate", .1, 8, 256, 256, "cpu").to_mask()[0]
    rows = torch.arange(256)
    assert mask[:, :, 0].all()
    for back in range(4):
        assert mask[:, rows[back:], rows[back:] - back].all()
    of_head = mask.sum((1, 2)).float()
    assert of_head.max() > 1.5 * of_head.min()
    # Columns that whole heads keep, which random lists do not have.
    assert (mask[:, 200:, 1:190].all(1).sum(1) > 0).any()


def test_results_of_gpus_lie_in_their_folders():
    paths = list((ROOT / "results").glob("nvidia-*/*.json"))
    assert paths and {path.parent.name for path in paths} == {record.folder(record.read(path)) for path in paths}


def test_the_program_measures_the_same_lists(seer, tmp_path):
    seer("bench", "block_sparse_attn", "--lengths", 1024, "--head-dims", 64, "--heads", 3, "--kv-heads", 1, "--lists", "random,gate",
         "--densities", .3, "--runs", 1, "--seconds", 0, "--out", tmp_path)
    (path,) = tmp_path.glob("*/block_sparse_attn.json")
    made = json.loads(path.read_text())
    assert path.parent.name == record.folder({**record.cpu(), "threads": made["threads"]}), "the program and bench/ name folders alike"
    found = {r["lists"]: r["density"] for r in made["rows"]}
    for kind in cases.KINDS:
        assert found[kind] == block_lists.make_lists(kind, .3, 3, 16, 16, "cpu").listed / (3 * 136)
    assert found["random"] != found["gate"]
    with pytest.raises(ValueError, match="want random or gate"):
        block_lists.make_lists("best", .3, 3, 16, 16, "cpu")


def test_lists_per_query_head():
    lists = block_lists.make_lists("random", .3, 2, 12, 20, "cpu")
    wide = lists.per_query_head(6)
    assert torch.equal(wide.to_mask()[0], lists.to_mask()[0].repeat_interleave(3, 0))


@pytest.mark.parametrize("rows,blocks", [(6, 6), (3, 8)])
def test_padded_lists(rows, blocks):
    lists = block_lists.make_lists("random", .4, 3, rows, blocks, "cpu")
    count, table = lists.padded()
    assert (count.dtype, table.dtype) == (torch.int32, torch.int32)
    assert table.shape == (3, rows, count.max())
    for h in range(3):
        for r in range(rows):
            begin, n = int(lists.begin[h, r]), int(count[h, r])
            assert table[h, r].tolist() == lists.list[begin:begin + n].tolist() + [0] * (table.shape[2] - n)


@pytest.mark.parametrize("rows,blocks", [(6, 6), (3, 8)])
def test_block_mask_is_the_mask_of_the_lists(rows, blocks):
    from torch.nn.attention.flex_attention import create_mask
    heads, block = 3, cases.BLOCK
    lists = block_lists.make_lists("random", .4, heads, rows, blocks, "cpu")
    mod = block_lists.causal_mask_mod((blocks - rows) * block)
    made = lists.to_flex(mask_mod=mod, with_backward=False)
    causal = create_mask(mod, 1, heads, rows * block, blocks * block, device="cpu")

    def dense(count, index):
        """[1, H, T, S] of one of the two tables."""
        out = torch.zeros(1, heads, rows, blocks, dtype=torch.bool)
        for h in range(heads):
            for r in range(rows):
                out[0, h, r, index[0, h, r, :count[0, h, r]].long()] = True
        return out.repeat_interleave(block, 2).repeat_interleave(block, 3)

    full = dense(made.full_kv_num_blocks, made.full_kv_indices)
    partial = dense(made.kv_num_blocks, made.kv_indices)
    assert not (full & ~causal).any() and not (full & partial).any()  # mask_mod is not asked in full blocks
    i, j = torch.arange(rows * block), torch.arange(blocks * block)
    listed = lists.to_mask()[0][:, i // block][:, :, j // block]
    want = listed & (j <= i[:, None] + (blocks - rows) * block)
    assert torch.equal((full | (partial & causal))[0], want)
    assert torch.equal(made.to_dense()[0].bool(), lists.to_mask()[0])
    assert made.shape == (1, heads, rows * block, blocks * block)


def test_presets():
    groups = cases.targets()
    assert len(groups) == 8 and len({shape for shape, _ in groups}) == 8
    assert {shape.heads_kv for shape, _ in groups} == {32, 8}
    by_length = {shape.len_k: of for shape, of in groups if shape.len_q == shape.len_k and shape.heads_kv == 32}
    assert {v.density for v in by_length[32768]} == {.02, .05, .1, .2, .5, 1.}
    assert all(len(set(of)) == len(of) for _, of in groups + cases.full() + cases.quick())
    assert cases.Shape(128, 256).visible == 3 + 4


def test_filters():
    args = prefill_attention.parse(["--lengths", "8k,128k", "--densities", "0.1", "--lists", "gate", "--kv-heads", "8"])
    assert [(s.len_q, s.len_k, v) for s, of in prefill_attention.choose(args) for v in of] == [
        (131072, 131072, cases.Variant("gate", .1, 32)), (8192, 8192, cases.Variant("gate", .1, 32)),
        (2048, 131072, cases.Variant("gate", .1, 32))]
    args = prefill_attention.parse(["--cases", "custom", "--lengths", "4k", "--queries", "1k", "--head-dims", "64"])
    assert [s for s, _ in prefill_attention.choose(args)] == [cases.Shape(1024, 4096, 32, 32, 64)]


@pytest.fixture
def without_gpu(monkeypatch):
    """measure() on the CPU: calls are run once and said to take a millisecond."""
    monkeypatch.setattr(prefill_attention, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def once(calls, runs, seconds):
        for call in calls.values():
            call()
        return {key: timing.Times([1.0] * runs) for key in calls}

    monkeypatch.setattr(timing, "round_robin", once)


GROUP = cases.Shape(128, 320, 4, 2, 64), [cases.Variant("random", .3, 4), cases.Variant("gate", .3, 2)]


class Broken(rivals.Implementation):
    name, sparse = "broken", True

    def prepare(self, inputs, lists):
        raise RuntimeError("no such kernel\nand more")


def test_rows_of_a_group(without_gpu):
    shape, variants = GROUP
    args = prefill_attention.parse(["--runs", "3"])
    kinds = (rivals.Seer, rivals.Cudnn, Broken)
    with torch.no_grad():
        rows = prefill_attention.measure(shape, variants, kinds, args)
    own = [r for r in rows if r["implementation"] == "seer"]
    assert [(r["lists"], r["list_heads"], r["status"], r["runs"]) for r in own] == [
        ("random", 4, "ok", 3), ("gate", 2, "ok", 3)]
    for row, heads in zip(own, (4, 2)):
        lists = block_lists.make_lists(row["lists"], .3, heads, 2, 5, "cpu", seed=own.index(row))
        assert row["kept_tflops"] == pytest.approx(4 * 64 * 64 * 64 * lists.listed * 4 // heads / 1e-3 * 1e-12)
        assert row["density"] == lists.listed / heads / shape.visible
        assert 0 < row["max_rel_error"] < 1e-2 and row["rows_checked"] > 4
    assert {r["status"] for r in rows if r["implementation"] == "broken"} == {
        "RuntimeError: no such kernel: and more"}
    dense, = [r for r in rows if r["lists"] == "dense"]
    assert (dense["median_ms"], dense["status"]) == (None, "torch gives cuDNN no causal mask with an offset")


@pytest.mark.parametrize("fault", ["value", "row", "nan", "lse"])
def test_wrong_outputs_are_found(without_gpu, monkeypatch, fault):
    right = rivals.Seer.output

    def wrong(self, result):
        o, lse = right(self, result)
        if fault == "value":
            o *= 1.05
        elif fault == "row":
            o[-64:, -1] = 0
        elif fault == "nan":
            o[70, 1, 3] = float("nan")
        else:
            lse += 0.01
        return o, lse

    monkeypatch.setattr(rivals.Seer, "output", wrong)
    with torch.no_grad():
        rows = prefill_attention.measure(*GROUP, (rivals.Seer,), prefill_attention.parse([]))
    assert all(r["status"].startswith("wrong: ") for r in rows)
    json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize("causal", [True, False])
def test_references(causal):
    """Beside attention with a mask over all tokens; not causal: diagonal blocks count as a whole."""
    shape = cases.Shape(128, 320, 4, 2, 64)
    inputs = rivals.Inputs(shape, "cpu")
    lists = block_lists.make_lists("random", .4, 4, shape.rows, shape.blocks, "cpu")
    i, j = torch.arange(shape.len_q), torch.arange(shape.len_k)
    mask = lists.to_mask()[0][:, i // 64][:, :, j // 64]
    if causal:
        mask = mask & (j <= i[:, None] + shape.len_k - shape.len_q)
    q, k, v = (x[0].float() for x in inputs.repeated)
    scores = (q @ k.mT * shape.scale).masked_fill(~mask, -torch.inf)
    pairs = [(0, 0), (3, 1)]
    for ref in check.references(shape, inputs.q, inputs.k, inputs.v, lists, pairs, causal):
        of = slice(ref.row * 64, ref.row * 64 + 64)
        torch.testing.assert_close(ref.o, scores[ref.head, of].softmax(-1) @ v[ref.head])
        torch.testing.assert_close(ref.lse, scores[ref.head, of].logsumexp(-1))


def test_whole_difference():
    o = torch.randn(128, 2, 16)
    other = o.clone()
    other[5, 1] += 1
    assert check.whole_difference(o, o) == 0
    assert check.whole_difference(o, other) == pytest.approx(((o - other).norm() / other.norm()).item(), rel=1e-5)


# ---- Results: merging, table, plot -----------------------------------------------------------------


def made_row(name, ms, len_k=32768, lists="random", density=.1, status="ok", **more):
    dense = lists == "dense"
    return {"implementation": name, "heads_q": 32, "heads_kv": 32, "head_dim": 128, "len_q": len_k, "len_k": len_k,
            "block": 64, "density": 1.0 if dense else density, "wanted_density": 1.0 if dense else density,
            "lists": lists, "list_heads": None if dense else 32, "dtype": "bf16", "note": "", "median_ms": ms,
            "min_ms": ms, "max_ms": ms, "runs": 5, "kept_tflops": ms and 100 / ms, "status": status, **more}


def made_record(rows, **more):
    return {"operation": "block_sparse_attn", "chip": "NVIDIA H200", "rivals": {"FlashInfer": "not installed"},
            "versions": {"torch": "2", "cuda": "13", "driver": "5", "cudnn": 9, "triton": "3"}, "method": "",
            "command": "python x", "date": "2026-01-01", "rows": rows, **more}


ROWS = [made_row("seer", 2.0), made_row(table.FLASH, 20.0, lists="dense"), made_row(table.CUDNN, 1.0, lists="dense"),
        made_row(table.FLEX, 3.0), made_row("seer", 4.0, density=.2), made_row(table.FLEX, 9.0, density=.2),
        made_row("seer", 5.0, len_k=8192), made_row(table.CUDNN, 10.0, len_k=8192, lists="dense"),
        made_row(table.FLASH, None, len_k=8192, lists="dense", status="no kernel"),
        made_row("seer", 0.1, density=.5, status="wrong: not finite")]


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.split("\n") if line.startswith("|")]


def test_table():
    text = table.table(made_record(ROWS))
    lines = cells(text)
    assert [line[0] for line in lines[2:]] == ["8k", "32k", "32k"]  # the wrong one is not shown
    of = {(line[0], line[5]): line[8:] for line in lines[2:]}
    assert of["32k", "0.100"] == ["**10.00x**", "0.50x" + table.SLOWER, "**1.50x**"]
    assert of["32k", "0.200"] == ["**5.00x**", "0.25x" + table.SLOWER, "**2.25x**"]
    assert of["8k", "0.100"] == ["-", "**2.00x**", "-"]
    for reason in ("wrong: not finite", "FlashAttention-2, 8k: no kernel", "FlashInfer: not installed"):
        assert reason in text


def test_table_of_a_file(tmp_path):
    path = tmp_path / "chip" / "block_sparse_attn.json"
    record.write(path, made_record(ROWS))
    program = [sys.executable, ROOT / "bench" / "table.py", path]
    assert len(cells(subprocess.run(program, capture_output=True, text=True, check=True).stdout)) == 2 + 3
    assert subprocess.run([*program, "--dtype", "f16"], capture_output=True, text=True, check=True).stdout
    assert list(path.parent.iterdir()) == [path]


def test_plot_lines():
    found = plot.lines(made_record(ROWS), "random", 32, 128, "bf16")
    found = {label: found[label] for label in ("32k", "8k")}  # both have cuDNN's time
    assert found["32k"] == [(.1, .5, 50.0, pytest.approx(100 / 3)), (.2, .25, 25.0, pytest.approx(100 / 9))]
    assert found["8k"] == [(.1, 2.0, 20.0, None)]
    assert plot.lines(made_record(ROWS), "gate", 32, 128, "bf16") == {}


def test_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot.draw(plot.lines(made_record(ROWS), "random", 32, 128, "bf16"), "title", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.parametrize("rule", ["nz_ratio", "row_budget", "threshold", "top_p", "head_budget"])
def test_check_of_chosen_blocks(rule):
    rows = 40
    scores = torch.randn(3, rows, rows, generator=torch.Generator().manual_seed(1)) * 2
    scores = scores.masked_fill(~visible(rows, rows), -torch.inf)
    strength = gates.strengths([rule], 0.2, scores)[rule]
    ends = lambda n: torch.tensor([0, n], dtype=torch.int32)
    tokens, blocks = ends(rows * cases.BLOCK), ends(rows)
    lists = torch.ops.seer.block_select(scores, tokens, tokens, blocks, cases.BLOCK, rule, [strength])
    assert gates.check_lists(rule, strength, scores, lists) == "ok"
    begins, counts, chosen = (x.clone() for x in lists)
    counts[2, rows - 1] -= 1
    assert "head 2, row 39" in gates.check_lists(rule, strength, scores, (begins, counts, chosen))
    other = torch.ops.seer.block_select(-scores, tokens, tokens, blocks, cases.BLOCK, rule, [strength])
    assert gates.check_lists(rule, strength, scores, other).startswith("wrong")


def prompt_row(implementation, density, ms, model="m", tokens=32768):
    """As `seer bench prefill` writes them; half of the time are products, a quarter attention."""
    sparse = implementation == "seer"
    return {"implementation": implementation, "model": model, "len_q": tokens, "density": density, "median_ms": ms,
            "gate_ms": ms / 16 * sparse, "select_ms": ms / 32 * sparse, "attention_ms": ms / 4, "products_ms": ms / 2,
            "rest_ms": ms / 4 - 3 * ms / 32 * sparse, "peak_mib": 512.0, **({"overhead": 0.03} if sparse else {})}


PROMPTS = [prompt_row("seer", .102, 400.), prompt_row("dense, FlashAttention-2", 1., 1600.),
           prompt_row("dense, cuDNN", 1., 800.), prompt_row("seer", .2956, 500.), prompt_row("seer", .498, 600.),
           prompt_row("seer", .1037, 100., tokens=8192), prompt_row("dense", 1., 200., model="cpu")]


def test_bars_of_the_first_token():
    found = first_token.groups(PROMPTS)
    assert first_token.groups([*PROMPTS, prompt_row("seer", .14, 1.)]) == found  # .102 is nearer to 90%
    assert list(found) == [("m", 8192), ("m", 32768)]
    bars = found["m", 32768]
    assert {name: row["median_ms"] for name, row in bars.items()} == {
        "FA2": 1600, "cuDNN": 800, "50%": 600, "70%": 500, "90%": 400}
    top = {name: of[-1][1] + of[-1][2] for name, of in first_token.heights(bars).items()}
    assert top == {"FA2": 2, "cuDNN": 1, "50%": .75, "70%": .625, "90%": .5}
    of = {part: height for part, _, height in first_token.heights(bars)["90%"]}
    assert (of["products_ms"], of["gate_ms"], of["select_ms"]) == (.25, .5 / 16, .5 / 32)


def metrics(gates):
    """Six steps of a run, gates without a loss in every second one; step 4 left out; held-out losses at 3 and 6."""
    lines = []
    for step in range(1, 7):
        gate = {"gate_loss": 10.0 / step if step % 2 else None} if gates else {}
        lines.append({"step": step, "loss": 6.0 - step, **gate, "tokens": 1000 * step, "seconds": 2.5 * step,
                      **({"skipped": True} if step == 4 else {})})
        if step % 3 == 0:
            lines.append({"step": step, "valid_books": 5.0 - step, "valid_skipped_windows_books": 1})
    return lines


def test_curves_of_a_run():
    made = training_runs.curves(metrics(gates=True), points=3)
    assert made == {"tokens": [2000, 5000, 6000], "loss": [4.5, 2.0, 0.0], "gate_loss": [10.0, 2.66667, None],
                    "valid": {"books": [[3000, 2.0], [6000, -1.0]]}}
    assert len(training_runs.curves(metrics(gates=False), points=100)["tokens"]) == 5
    with pytest.raises(ValueError, match="no step"):
        training_runs.curves([{"step": 0, "valid_books": 1.0}], 3)


RUNS = [{"run": name, "task": "finetune", "settings": settings, **training_runs.curves(metrics(bool(settings)), 100)}
        for name, settings in (("dense", {}), ("joint", {"selection": ["nz_ratio", .1, 0, 0, 0]}))]
RUNS.append({"run": "after", "task": "distill", "settings": {}, **training_runs.curves(metrics(gates=False)[:4], 100)})
RUNS += [{"model": name, "method": "seer", "rule": "threshold", "strength": .002, "density": .3, "density_by_layer": [.2, .4, None]}
         for name in ("dense", "joint")]


def test_runs_are_collected(tmp_path):
    """From their folders, with density by layer."""
    for name, task in (("dense", "finetune"), ("after", "distill")):
        (tmp_path / name).mkdir()
        run = {"task": task, "settings": {"length": 64}, "loop": {"steps": 6}}
        (tmp_path / name / "run.json").write_text(json.dumps(run))
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics(False)))
    measured = [{"method": "dense", "perplexity": 1.}, {"method": "seer", "density_by_layer": [.1, .2], "density": .15, "nll": [1.]},
                {"method": "gate", "density_by_layer": [.2, .3], "density": .25}, {"method": "oracle", "density": .15}]
    record.write(tmp_path / "layers.json", made_record(measured))
    out = tmp_path / "yarn_runs.json"
    program = [sys.executable, ROOT / "bench" / "training_runs.py", tmp_path / "dense", tmp_path / "after"]
    subprocess.run([*program, "--density", tmp_path / "layers.json", "--out", out], check=True)
    made = record.read(out)
    assert made["operation"] == "training runs" and made["command"] == "python bench/training_runs.py dense after"
    dense, after, layers, alone = made["rows"]
    assert (dense["run"], dense["steps"], dense["seconds"], after["task"]) == ("dense", 6, 15.0, "distill")
    assert dense["tokens"][-1] == 6000 and layers == {"method": "seer", "density": .15, "density_by_layer": [.1, .2]}
    assert alone == {"method": "gate", "density": .25, "density_by_layer": [.2, .3]}
    failed = subprocess.run([*program, tmp_path / "none", "--out", out], capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "none/run.json: No such file" in failed.stderr


def test_names_of_runs():
    names = [training_runs.name_of(row) for row in RUNS if "run" in row]
    assert names == ["dense", "joint: 90% sparse", "after: gates alone"]
    assert training_runs.name_of({**RUNS[1], "settings": {"selection": ["top_p", .9]}}) == "joint: top_p 0.9"


def test_settings_of_gates_are_collected(tmp_path):
    """Four evaluations of each setting in one file, dense attention once, and their picture."""
    pytest.importorskip("matplotlib")

    def evaluations(name, methods, score, **more):
        for file, field in gate_settings.SCORES.values():
            rows = [{"method": method, "length": 512, "rule": "nz_ratio", "strength": .1, "sparsity": .9, "density": .1, field: score, f"{field}_error": .01} for method in methods]
            rows.append({"method": "dense", "length": 512, "sparsity": 0., "density": 1., field: 1., f"{field}_error": 0.})
            record.write(tmp_path / f"{file.format(name)}.json", made_record(rows, operation="eval", complete=True, command=f"seer eval --gates /a/{name} --json /b/x.json", **{"threads": 2, **more}))

    evaluations("short", ["gate", "oracle"], .25)
    evaluations("long", ["gate", "seer"], .5, date="2026-02-02")
    out = tmp_path / "gate_settings_m.json"
    program = [sys.executable, ROOT / "bench" / "gate_settings.py", "--out", out]
    subprocess.run([*program, f"tokens=1e6:{tmp_path}/short", f"tokens=2e6:{tmp_path}/long", f"rules:{tmp_path}/long", f"pooling=Qavg_Kavg:{tmp_path}/short"], check=True)
    made = record.read(out)
    assert made["threads"] == 2
    assert (made["operation"], made["command"], made["date"]) == ("gate settings", "python bench/gate_settings.py tokens=1e6:short tokens=2e6:long rules:long pooling=Qavg_Kavg:short", "2026-02-02")
    assert [(row["setting"], row["value"], row["method"]) for row in made["rows"]] == [
        ("tokens", 1e6, "gate"), ("tokens", 1e6, "dense"), ("tokens", 2e6, "gate"), ("tokens", 2e6, "seer"), ("rules", None, "gate"), ("rules", None, "seer"), ("rules", None, "dense"), ("pooling", "Qavg_Kavg", "gate"), ("pooling", "Qavg_Kavg", "dense")]
    assert made["rows"][0]["proofs"] == {"score": .25, "error": .01, "density": .1} and made["rows"][0]["commands"] == ["seer eval --gates short"] * 4
    subprocess.run([sys.executable, ROOT / "bench" / "plot.py", out, "--out", tmp_path], check=True)
    assert (tmp_path / "gate_settings_m.png").stat().st_size > 10_000
    evaluations("other", ["gate"], .5, chip="another")
    evaluations("slower", ["gate"], .5, threads=1)
    evaluations("unfinished", ["gate"], .5)
    record.write(tmp_path / "facts_unfinished.json", {**record.read(tmp_path / "facts_unfinished.json"), "complete": False})
    for words, reason in ((["tokens"], "want SETTING=VALUE:FOLDER/NAME"), ([f"tokens=1:{tmp_path}/none"], "facts_none.json: No such file"), ([f"tokens=1:{tmp_path}/unfinished"], "not complete: facts"),
                          ([f"tokens=1:{tmp_path}/short", f"tokens=2:{tmp_path}/other"], "different chips"),
                          ([f"tokens=1:{tmp_path}/short", f"tokens=2:{tmp_path}/slower"], "different chips")):
        failed = subprocess.run([*program, *words], capture_output=True, text=True)
        assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and reason in failed.stderr


def test_pictures_by_operation(tmp_path):
    pytest.importorskip("matplotlib")
    record.write(tmp_path / "a.json", made_record(ROWS))
    record.write(tmp_path / "b.json", made_record(PROMPTS, operation="prefill"))
    record.write(tmp_path / "c.json", made_record([], operation="distill"))
    record.write(tmp_path / "yarn_runs.json", made_record(RUNS, operation=training_runs.OPERATION))
    for suffix, sparsities in (("", (.5, .9)), ("_forced", (.9,))):
        for file, field in (methods.PANELS if suffix else {**methods.PANELS, **methods.NEEDLE}).values():
            rows = [{"method": method, "sparsity": s, "density": 1 - s, field: .5 + field.startswith("vs"), f"{field}_error": .1} for method in ("seer", "quest") for s in sparsities]
            rows.append({"method": "dense", "sparsity": 0., "density": 1., field: 1., f"{field}_error": 0.})
            record.write(tmp_path / f"{file.format('m')}{suffix}.json", made_record(rows, operation="eval facts"))
    program = [sys.executable, ROOT / "bench" / "plot.py", "--lists", "random", "--heads-kv", "32", "--out",
               tmp_path / "docs"]
    subprocess.run([*program, *(tmp_path / name for name in ("a.json", "b.json", "yarn_runs.json", "methods_facts_m.json"))], check=True)
    assert {p.name for p in (tmp_path / "docs").iterdir()} == {"gpu_prefill.png", "gpu_first_token.png", "yarn_runs.png", "methods_m.png"}
    assert all(p.stat().st_size > 10_000 for p in (tmp_path / "docs").iterdir())
    (tmp_path / "methods_copies_m.json").rename(tmp_path / "facts_n.json")
    for name, reason in (("c.json", "no picture of distill"), ("d.json", "No such file"), ("facts_n.json", "want methods_facts_MODEL.json"),
                         ("methods_facts_m.json", "methods_copies_m.json: No such file")):
        failed = subprocess.run([*program, tmp_path / name], capture_output=True, text=True)
        assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and reason in failed.stderr


def test_merge_replaces_whole_groups():
    old, new = made_record(ROWS), made_record([made_row("seer", 1.0)], command="python y")
    merged = record.merge(old, new)
    assert [r["len_k"] for r in merged["rows"]] == [8192] * 3 + [32768]
    assert merged["command"] == "python x; python y"
    with pytest.raises(ValueError, match="cannot be joined"):
        record.merge({**old, "chip": "another"}, new)


def test_command_without_places():
    assert record.portable("python x --out /a --cases quick; python x --append") == (
        "python x --cases quick; python x --append")
    assert record.portable("seer eval recall --data a.jsonl,.up/b.jsonl --gates /c/d,../e --length 8 --json /f.json") == (
        "seer eval recall --data a.jsonl,b.jsonl --gates d,e --length 8")
    assert record.portable("python bench/gates.py --density 0.1") == "python bench/gates.py --density 0.1"


def test_slug():
    assert record.slug("NVIDIA H200") == "nvidia-h200"


def test_burst_sizes():
    assert timing.burst_size(0.4, 5, .2) == 1
    assert timing.burst_size(1e-3, 5, .2) == 40
    assert timing.burst_size(1e-6, 5, .2) == timing.LONGEST_BURST


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_quick_run(tmp_path):
    run = subprocess.run([sys.executable, ROOT / "bench" / "prefill_attention.py", "--cases", "quick", "--seconds",
                          "0.01", "--out", tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    path, = tmp_path.glob("*/block_sparse_attn.json")
    own = [r for r in record.read(path)["rows"] if r["implementation"] == "seer"]
    assert own and all(r["status"] == "ok" for r in own)


@pytest.mark.parametrize("shape,implementations", [
    (cases.Shape(192, 192, 4, 2, 64), 5), (cases.Shape(128, 320, 2, 2, 64), 4)])
def test_rows_of_the_pooled_map(without_gpu, monkeypatch, shape, implementations):
    monkeypatch.setattr(pooled_attention, "DEVICE", "cpu")
    monkeypatch.setattr(rivals.Cudnn, "can_run", lambda self: "not here")
    with torch.no_grad():
        rows = pooled_attention.measure(shape, pooled_attention.parse([]))
    assert len(rows) == implementations
    own = [r for r in rows if r["implementation"].startswith("seer")]
    assert [(r["implementation"], r["map_heads"]) for r in own] == [
        ("seer", "q"), ("seer, map alone", "q"), ("seer", "kv")][:implementations - 2]
    for row in own:
        assert (row["status"], row["runs"]) == ("ok", 5) and 0 < row["max_map_error"] < 1e-5
        products = 1 if row["implementation"] == "seer, map alone" else 2
        assert row["tflops"] == pytest.approx(row["heads_q"] * products * 2 * 64 * sum(
            range(shape.len_k - shape.len_q + 1, shape.len_k + 1)) / 1e-3 * 1e-12)
        assert ("max_rel_error" in row) == (products == 2) and row["max_lse_error"] < 1e-5


def test_a_wrong_map_is_found(without_gpu, monkeypatch):
    monkeypatch.setattr(pooled_attention, "DEVICE", "cpu")
    monkeypatch.setattr(rivals.Cudnn, "can_run", lambda self: "not here")
    monkeypatch.setattr(pooled_attention, "map_of_row", lambda shape, *_: torch.ones(shape.blocks))
    with torch.no_grad():
        own = pooled_attention.measure(cases.Shape(192, 192, 2, 2, 64), pooled_attention.parse([]))[:2]
    assert all(row["status"].startswith("wrong: map differs by") for row in own)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_quick_run_of_the_pooled_map(tmp_path):
    run = subprocess.run([sys.executable, ROOT / "bench" / "pooled_attention.py", "--lengths", "1k", "--seconds", "0.01",
                          "--out", tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    path, = tmp_path.glob("*/pooled_attn.json")
    assert sum(r["implementation"].startswith("seer") for r in record.read(path)["rows"]) == 5


@torch.no_grad()
def test_prefill_of_a_transformers_model(tmp_path):
    import attach
    program = ["--model", str(ROOT / "assets" / "reference"), "--device", "cpu", "--runs", "1", "--out", str(tmp_path), "--dense"]
    attach.main([*program, "sdpa;flash_attention_2", "--lengths", "256"])
    attach.main([*program, "sdpa", "--lengths", "512", "--append"])
    made = record.read(tmp_path / record.folder(record.cpu()) / "attach.json")
    assert made["command"] == ("python bench/attach.py --model reference --device cpu --runs 1 --dense 'sdpa;flash_attention_2' --lengths 256; "
                               "python bench/attach.py --model reference --device cpu --runs 1 --dense sdpa --lengths 512 --append")
    short, rows = ([row for row in made["rows"] if row["len_q"] == tokens] for tokens in (256, 512))
    assert [row["status"] == "ok" for row in short] == [True, True, True, False] and "median_ms" not in short[-1]
    assert [r["implementation"] for r in rows] == ["seer, 50%", "seer, 90%", "sdpa"]
    assert all(r["status"] == "ok" and r["runs"] == 1 and r["layers"] == 8 for r in rows)
    assert all(r["attached_ms"] > 0 and r["operations_ms"] > 0 for r in rows[:2])
    assert made["chip"] and made["threads"] == torch.get_num_threads() and {(r["model"], r["dtype"]) for r in rows} == {("reference", "f32")}


def test_gates_without_rope(tmp_path):
    import gate_rope
    data = tmp_path / "texts.jsonl"
    text = (BUILD / "default_text.txt").read_text()
    data.write_text("".join(json.dumps({"text": text[i:i + 4000]}) + "\n" for i in (0, 4000)))
    gate_rope.main(["--train", str(data), "--data", str(data), "--length", "256", "--steps", "1", "--sequences", "1", "--lengths", "256,512", "--sparsity", "0.6", "--out", str(tmp_path)])
    made = record.read(next(tmp_path.glob("*/gate_rope.json")))
    rows = {(row.get("gates", row["method"]), row["length"]): row for row in made["rows"]}
    assert [*rows] == [("dense", 256), ("dense", 512), ("with RoPE", 256), ("with RoPE", 512), ("without RoPE", 256), ("without RoPE", 512)]
    assert rows["dense", 512]["vs_dense"] == 1 and 0 < rows["with RoPE", 512]["density"] < .8
    assert rows["with RoPE", 512]["perplexity"] != rows["without RoPE", 512]["perplexity"]


def test_variants_of_lookup_scores():
    """With all features and the exact sum the lists are the true map's; few features, or no sum, lose some."""
    generator = torch.Generator().manual_seed(3)
    tokens, blocks = 1024, 16
    q, k = (torch.randn(tokens, 32, generator=generator) for _ in range(2))
    q *= .1
    q[700] = k[130]  # one pair stands out
    head = lookup_scores.Head(q, k, sparsity=.7)
    assert head.by_map[1] == head.peaks.sum().item() > 0 and 0 < head.by_map[0] <= head.map.sum().item()
    exact = head.variants(q, k, "f32", generator)
    assert set(exact) == set(lookup_scores.NORMALISERS)
    assert head.kept(exact["tokens"]) == pytest.approx(head.by_map)
    assert all(torch.equal(x.isneginf(), head.hidden[63::64, ::64]) for x in exact.values())
    sums = torch.logsumexp((q @ k.T).masked_fill(head.hidden, -torch.inf).view(tokens, blocks, 64).amax(-1), -1)
    assert exact["blocks"][10, 2] == pytest.approx(((q @ k.T).view(tokens, blocks, 64).amax(-1) - sums[:, None])[640:704, 2].max().item())
    few = head.variants(q[:, :4], k[:, :4], "f32", generator)
    assert head.kept(few["tokens"])[0] < head.by_map[0]
    coarse = [(lookup_scores.products(q, k, numbers, generator) - q @ k.T).abs().max() for numbers in lookup_scores.NUMBERS]
    assert coarse[0] == 0 and 0 < max(coarse[1:3]) < min(coarse[3:])


def test_blocks_shared_out_among_heads():
    lost = torch.tensor([[1., 0, 0, .1], [0, 0, 4, 0]])
    made = lookup_lists.variants([[0], [2]], lost, .1)
    assert all((1 - sparsity).mean().item() == pytest.approx(.1, abs=1e-4) and 0 <= sparsity.min() for sparsity, _ in made.values())
    assert made["lookups x 3"][0][1].tolist() == pytest.approx([1 - .2 / 6] * 2 + [.7] + [1 - .2 / 6])
    assert made["by need"][0].argmin() == 6 and made["groups"][1] == "all"
    assert lookup_lists.shared_out(torch.tensor([1., 1, 100]), .5).tolist() == pytest.approx([.25, .25, 1], abs=1e-4)


def test_lists_of_groups():
    """Of four heads, two a group; head 1 is a lookup head. What no head sees stays hidden."""
    scores = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1)).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    weights = scores.softmax(-1)
    every = lookup_lists.group_scores(scores, 2, (1,), "all")
    assert torch.equal(every[0], every[1]) and torch.equal(every[2], every[3]) and torch.equal(every.isneginf(), scores.isneginf())
    assert every[0, 2, 1].exp().item() == pytest.approx(weights[:2, 2, 1].max().item())
    some = lookup_lists.group_scores(scores, 2, (1,), "lookups")
    assert torch.allclose(some[:2].exp(), weights[[1, 1]]) and torch.allclose(some[2:].exp(), weights[2:])


def test_losses_of_python_training(tmp_path):
    """Where all blocks are read, they are the frozen model's, without what the gates add."""
    settings = argparse.Namespace(shape="tiny", device="cpu", length=256, steps=2, sequences=3, sparsity=0., scratch=tmp_path)
    row = python_training.train("gates", settings, 1)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**python_training.SHAPES["tiny"])).float()
    ids = torch.randint(3, 500, (6, 256), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert row["losses"] == pytest.approx([model(x, labels=x).loss.item() for x in ids.split(3)], abs=2e-4)
    assert len(row["grad_norms"]) == 2 and min(row["grad_norms"]) > 0


def test_rows_of_python_training_are_joined():
    def made(gpus, tasks, command, chip="H"):
        return {"operation": "python training", "chip": chip, "versions": {}, "command": command,
                "rows": [{"task": task, "model": "tiny", "gpus": gpus, "len_q": 64, "at": command} for task in tasks]}
    one, two = made(1, ("gates", "finetune"), "a"), made(2, ("gates",), "b")
    both = python_training.joined(one, two)
    assert both["command"] == "a; b" and [(row["task"], row["gpus"]) for row in both["rows"]] == [("gates", 1), ("finetune", 1), ("gates", 2)]
    again = python_training.joined(both, made(1, ("gates",), "c"))
    assert [row["at"] for row in again["rows"]] == ["a", "b", "c"] and again["command"] == "a; b; c"
    with pytest.raises(SystemExit, match="another chip"):
        python_training.joined(one, made(1, ("gates",), "d", chip="other"))
