"""A decode step's benchmarks, and head sizes that no vector unit has, through every verb."""
import json

import pytest


def test_bench_decode_attn(seer, tmp_path):
    seer("bench", "decode_attn", "--lengths", 300, "--head-dims", "64,100", "--heads", 4, "--kv-heads", 2, "--dtypes", "f32,bf16",
         "--seconds", 0, "--runs", 1, "--device", "cpu", "--out", tmp_path)
    (path,) = tmp_path.glob("*/decode_attn.json")
    rows = json.loads(path.read_text())["rows"]
    assert [(r["head_dim"], r["dtype"], r["implementation"]) for r in rows] == [
        (d, t, i) for d in (64, 100) for t in ("f32", "bf16") for i in ("memory read", "seer", "torch sdpa")]
    assert all(r["len_k"] == 300 and r["gbytes_per_s"] > 0 and r["memory_share"] > 0 for r in rows)
    assert all(r["memory_share"] == pytest.approx(1) for r in rows if r["implementation"] == "memory read")


def test_bench_decode(seer, tmp_path):
    seer("bench", "decode", "--lengths", 200, "--seconds", 0, "--runs", 2, "--device", "cpu", "--out", tmp_path)
    (path,) = tmp_path.glob("*/decode.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert row["len_k"] == 200 and row["tokens_per_s"] > 0 and 0 < row["attention_ms"] < row["max_ms"]


@pytest.mark.parametrize("head_dim", [20, 100])
def test_every_head_size_goes_through_every_verb(seer, tmp_path, head_dim):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The number {i} follows {i - 1}, as {i * i % 97} shows. " for i in range(400)))
    model, gates = tmp_path / "model", tmp_path / "gates"
    seer("pretrain", "--data", text, "--out", model, "--steps", 1, "--lengths", 256, "--tokens-per-step", 512, "--hidden", 32,
         "--layers", 2, "--heads", 2, "--kv-heads", 1, "--head-dim", head_dim, "--intermediate", 32)
    seer("distill", "--model", model, "--data", text, "--out", gates, "--steps", 1, "--length", 256, "--sequences", 1, "--block", 16)
    table = seer("eval", "ppl", "--model", model, "--gates", gates, "--data", text, "--lengths", 256, "--methods",
                 "dense,seer,oracle,streaming,random", "--sparsity", 0.5, "--min-ratio", 1).stdout
    assert "nan" not in table
    seer("eval", "recall", "--model", model, "--gates", gates, "--data", text, "--length", 256, "--min-ratio", 1)
    for method in (["dense"], ["seer", "--gates", gates]):
        found = seer("generate", "--model", model, "--prompt-file", text, "--max-new-tokens", 3, "--method", *method)
        assert "3 written" in found.stderr
