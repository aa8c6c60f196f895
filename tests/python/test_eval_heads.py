"""`seer eval heads` as a user runs it: on the embedded model, with lookup heads, and wrong input."""
import json
import re
import shutil

from conftest import ROOT
from test_cli import QUICK, error_of, text  # noqa: F401 (fixtures)
from test_eval_planted import record, size_of_png

GATES = ROOT / "assets" / "reference" / "gates"


def test_lost_by_layer_and_head(seer, text, gates_alone, tmp_path):
    png = tmp_path / "heads.png"
    heads = ["eval", "heads", "--gates", gates_alone, "--data", text, "--length", 2048, "--documents", 2, *QUICK]
    result = seer(*heads, "--json", tmp_path / "heads.json", "--png", png)
    found = json.loads((tmp_path / "heads.json").read_text())
    assert found["operation"] == "eval heads" and found["complete"] and found["settings"]["length"] == 2048
    (row,) = found["rows"]
    assert row["lookup_heads"] == [[]] * 8 and (row["windows"], row["block"], row["sparsity"]) == (2, 64, 0.9)
    lost = {(layer, head): x for layer, of in enumerate(row["lost"]) for head, x in enumerate(of)}
    assert len(lost) == 8 * 4 and all(0 <= x < 8 for x in lost.values())
    assert max(lost, key=lost.get)[0] >= 6  # the heads that copy
    lines = result.stdout.splitlines()
    assert re.match(r"layer +head 0 +1 +2 +3$", lines[0])
    shown = [[float(x) for x in line.split()] for line in lines[1:9]]
    assert all(abs(x - lost[layer, head]) < 6e-4 for layer, line in enumerate(shown) for head, x in enumerate(line[1:]))
    assert lines[9].startswith("lost, mean of 32 heads: ") and "lookup" not in lines[9]
    width, height = size_of_png(png)
    assert width > 300 and height > 300
    # The seed draws the phrases.
    of = [record(seer(*heads[:-4], "--documents", 1, *QUICK, "--json", *more))["rows"][0]["lost"] for more in ([], [], ["--seed", 2])]
    assert of[0] == of[1] != of[2]


def test_distill_finds_what_eval_says(seer, text, gates_alone, tmp_path):
    out = tmp_path / "gates"
    run = seer("distill", "--gates", gates_alone, "--data", text, "--lookup-heads", 0.1, "--lookup-steps", 1, "--lookup-windows", 2,
         "--length", 2048, "--sequences", 1, "--out", out, *QUICK)
    assert re.search(r"^distill --lookup-heads: 3 of 32 heads choose blocks by tokens: layer .* They lose \d+ % of what all lose$", run.stderr, re.M)
    before = json.loads((out / "heads.json").read_text())
    heads = ["eval", "heads", "--gates", out, "--data", text, "--length", 2048, "--documents", 2, *QUICK]
    result = seer(*heads, "--json", tmp_path / "after.json")
    (row,) = json.loads((tmp_path / "after.json").read_text())["rows"]
    assert row["lookup_heads"] == before["lookup_heads"] and sum(map(len, row["lookup_heads"])) == 3
    of = {"before": before["lost"], "after": row["lost"]}
    lookups = {when: sum(lost[layer][head] for layer, of_layer in enumerate(row["lookup_heads"]) for head in of_layer) for when, lost in of.items()}
    assert lookups["after"] < 0.7 * lookups["before"], lookups
    assert result.stdout.count("*") == 3 + 1 and "of 3 lookup heads (*): " in result.stdout


def test_wrong_input_is_one_line(seer, text, tmp_path):
    heads = ["eval", "heads", "--data", text, *QUICK]
    assert "a text of 512 tokens is too short to find lookup heads: want 961 or more" in error_of(seer(*heads, "--length", 512, ok=False))
    assert "--sparsity 1" in error_of(seer(*heads, "--sparsity", 1, ok=False), 2)
    assert "the longest has" in error_of(seer(*heads, "--length", 65536, ok=False))
    assert "--methods" in error_of(seer(*heads, "--methods", "seer", ok=False), 2)
    bare = tmp_path / "model"
    shutil.copytree(GATES.parent, bare, ignore=shutil.ignore_patterns("gates"))
    assert "seer distill" in error_of(seer(*heads, "--model", bare, ok=False))
