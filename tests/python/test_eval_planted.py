"""`seer eval facts`, `copies` and `needle` as a user runs them: on the embedded model, and wrong input."""
import json
import re
import shutil
import struct

from test_cli import QUICK, REFERENCE, error_of, model, text  # noqa: F401 (fixtures)

SHORT = ["--lengths", 2048, "--documents", 2, *QUICK]


def record(result):
    return json.loads(result.stdout)


def size_of_png(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_facts_that_dense_attention_finds_and_gates_lose(seer, text, tmp_path):
    png = tmp_path / "facts.png"
    facts = ["eval", "facts", "--data", text, "--wordings", "words,code", "--facts", "1,2", "--questions", 6, *SHORT]
    found = record(seer(*facts, "--methods", "seer,oracle", "--sparsity", 0.9, "--json", "--png", png))
    assert found["operation"] == "eval facts" and found["complete"] and found["settings"]["facts"] == [1, 2]
    dense, gates, oracle = found["rows"]
    assert [r["method"] for r in (dense, gates, oracle)] == ["dense", "seer", "oracle"]
    assert dense["questions"] == 12 and dense["windows"] == 2 and "minus_dense" not in dense
    words = {r["method"]: [c for c in r["cells"] if c["wording"] == "words"] for r in found["rows"]}
    assert {tuple(c["distance"]) for c in words["dense"]} == {(256, 512), (512, 1024), (1024, 1536)}
    assert {c["facts"] for c in words["dense"]} == {1, 2}
    assert min(c["top1"] for c in words["dense"]) == 1
    assert gates["top1"] < 0.5 < dense["top1"] and gates["loss"] > dense["loss"]
    assert abs(gates["minus_dense"]["top1"] - (gates["top1"] - dense["top1"])) < 1e-5
    assert gates["density"] == oracle["density"] < 0.2
    width, height = size_of_png(png)
    assert width > 300 and height > 4 * 200  # a panel for each wording and number of facts


def test_the_same_seed_asks_the_same_questions(seer, text):
    facts = ["eval", "facts", "--data", text, "--methods", "dense", "--json", "--lengths", 1024, "--documents", 1, *QUICK]
    rows = [record(seer(*facts, "--seed", seed))["rows"] for seed in (3, 3, 4)]
    for row in (r for of in rows for r in of):
        del row["attention_ms"], row["prefill_ms"]
    assert rows[0] == rows[1] != rows[2]


def test_copies_by_distance_and_length(seer, text, tmp_path):
    found = seer("eval", "copies", "--data", text, "--passages", "32,64", "--distances", "128,512,1024", "--methods", "seer", "--sparsity", 0.9,
                 "--json", tmp_path / "copies.json", "--png", tmp_path / "copies.png", *SHORT)
    rows = json.loads((tmp_path / "copies.json").read_text())["rows"]
    assert {(c["passage"], *c["distance"]) for c in rows[0]["cells"]} == {(p, *d) for p in (32, 64) for d in ((128, 512), (512, 1024))}
    assert rows[0]["top1"] > rows[1]["top1"] + 0.1
    table = found.stdout.splitlines()
    assert re.search(r"asked .* 128-512 +512-1k$", table[0])
    assert [line.split()[2 if "dense" in line else 4] for line in table[1:7:3]] == ["1.000", f"{rows[1]['density']:.3f}"]
    size_of_png(tmp_path / "copies.png")


def test_needles_by_depth_and_length(seer, text, tmp_path):
    needle = ["eval", "needle", "--data", text, "--wordings", "words", "--lengths", "256,2048", "--depths", "0,50,100", "--documents", 2, *QUICK]
    result = seer(*needle, "--methods", "seer", "--sparsity", 0.9, "--json", "--png", tmp_path / "needle.png")
    assert "256 tokens are 4 blocks of 64: sparsity 0.9 cannot be met" in result.stderr  # where the table is, with JSON on stdout
    rows = record(result)["rows"]
    assert [(r["length"], r["method"]) for r in rows] == [(256, "dense"), (256, "seer"), (2048, "dense"), (2048, "seer")]
    assert [r["windows"] for r in rows] == [6, 6, 2, 2]  # short ones hold one question each
    assert [[c["depth"] for c in r["cells"]] for r in rows] == [[0, 50, 100]] * 4
    assert rows[2]["exact"] == 1 and rows[2]["questions"] == 6
    size_of_png(tmp_path / "needle.png")


def test_few_texts_give_further_windows(seer, text):
    facts = ["eval", "facts", "--data", text, "--lengths", 2048, "--methods", "dense", *QUICK]
    assert record(seer(*facts, "--documents", 3, "--json"))["rows"][0]["windows"] == 3
    assert re.search(r"warning: [4-9] of the 1000 windows asked for", seer(*facts, "--documents", 1000).stderr)


def test_wrong_input_is_one_line(seer, text, model, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"not read")
    base = ["--model", broken, "--data", text, "--methods", "dense", *QUICK]

    def refused(verb, *words, status=1):
        return error_of(seer("eval", verb, *base, *words, ok=False), status)

    assert "--distances: want two or more" in refused("facts", "--distances", 512, status=2)
    assert "each larger than the one before" in refused("facts", "--distances", "512,256", status=2)
    assert "--wordings riddle: want code, question" in refused("facts", "--wordings", "riddle", status=2)
    assert "8192 tokens have no room for 16 questions at distances up to 9000" in refused("facts", "--distances", "8000,9000")
    assert "fewer or shorter questions (--questions, --facts, --passages)" in refused("facts", "--lengths", 512, "--questions", 40)
    assert "questions for 512 facts in a window: there are only" in refused("facts", "--facts", 32, "--questions", 16, status=2)
    assert "a passage of 300 tokens cannot be pasted 128 tokens later" in refused("copies", "--lengths", 1024, "--passages", 300, status=2)
    assert "the longest has" in refused("needle", "--lengths", "512,65536")
    # A tokenizer without words, and one that joins the value with what stands beside it.
    tokenizer = json.loads((REFERENCE / "tokenizer.json").read_text())
    bytes_only = {**tokenizer, "model": {**tokenizer["model"], "merges": []}}
    (broken / "tokenizer.json").write_text(json.dumps(bytes_only))
    assert "too few for synthetic facts (want 100): choose wordings of digits" in refused("facts", "--wordings", "words")
    joined = {c + ".": 256 + i for i, c in enumerate("0123456789")}
    bytes_only["model"] |= {"vocab": {**{t: i for i, t in enumerate(t for t in tokenizer["model"]["vocab"] if len(t) == 1)}, **joined},
                            "merges": [f"{digit} ." for digit in "0123456789"]}
    bytes_only |= {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                   "added_tokens": [], "post_processor": None}
    (broken / "tokenizer.json").write_text(json.dumps(bytes_only))
    found = refused("facts", "--lengths", 2048)
    assert "the tokenizer joins the value of" in found and "choose another wording than code" in found
    # What is right until then fails for the weights.
    shutil.copy(REFERENCE / "tokenizer.json", broken)
    kept = tmp_path / "kept.json"
    kept.write_text("earlier results")
    assert "model.safetensors" in refused("facts", "--lengths", 2048, "--json", kept)
    assert kept.read_text() == "earlier results"
