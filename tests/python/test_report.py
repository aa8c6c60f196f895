"""`seer report`: the page in a browser, its charts, the viewer of attention, and what strange results do to it."""
import html
import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest

from conftest import ROOT
from test_cli import QUICK, error_of, text  # noqa: F401 (a fixture)

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: tools/packages-test.txt)")


def browse(page, tmp_path, *flags, address=""):
    return subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files",
                           f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", *flags, f"file://{page}{address}"],
                          capture_output=True, text=True, timeout=300)


class Page:
    """What a browser made of a page; `script` runs once all charts are drawn."""

    def __init__(self, page, tmp_path, address="", script=""):
        copy = tmp_path / "browsed.html"
        when_ready = f"const poll = setInterval(() => {{ if (document.documentElement.dataset.ready) {{ clearInterval(poll); {script} }} }}, 50);"
        copy.write_text(page.read_text().replace("</body>", f"<script>{when_ready}</script></body>"))
        self.dom = browse(copy, tmp_path, "--dump-dom", address=address).stdout
        self.root = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<html[^>]*>", self.dom)[0]))
        assert self.root.get("ready") == "yes", self.dom[:2000]
        self.main = re.search(r"<main.*?</main>", self.dom, flags=re.S)[0]
        self.text = html.unescape(re.sub(r"<[^>]+>", " ", self.main))

    def part(self, name):
        return re.search(rf'<section id="{name}">.*?</section>', self.main, flags=re.S)


# Canvases on which nothing was drawn.
BLANK = """document.documentElement.dataset.blank = [...document.querySelectorAll("canvas")].filter((canvas) =>
  !canvas.width || !canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0)).length;"""


@pytest.fixture(scope="module")
def report(seer, tmp_path_factory):
    """The page of these folders and files."""
    def make(*paths):
        out = tmp_path_factory.mktemp("report") / "page.html"
        said = seer("report", *paths, "--out", out).stdout
        assert said.startswith(f"report   {out} (")
        return out
    return make


@pytest.fixture(scope="module")
def maps(seer, text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    seer("eval", "attention", "--data", text, "--length", 1024, "--sparsity", "0.5,0.9", "--json", folder / "attention.json", *QUICK)
    return folder


def write(folder, name, **record):
    (folder / name).write_text(json.dumps({"operation": "eval ppl", "rows": [], **record}))


def test_maps_of_attention(seer, text, maps, tmp_path):
    import base64
    record = json.loads((maps / "attention.json").read_text())
    assert (record["operation"], record["window"]["tokens"], record["window"]["block"], len(record["window"]["texts"])) == ("eval attention", 1024, 64, 16)
    assert record["window"]["choices"] == ["sparsity 0.5", "sparsity 0.9"]
    assert [(row["layer"], row["head"]) for row in record["rows"]] == [(layer, head) for layer in range(8) for head in range(4)]
    cells = 16 * 17 // 2
    for row in record["rows"]:
        for name in ("truth", "gate"):  # rows of shares: of the first only its own block
            levels = base64.b64decode(row[name])
            assert len(levels) == cells and levels[0] == 255
            shares = [10 ** (level / 255 * 4 - 4) if level else 0 for level in levels[-16:]]
            assert sum(shares) == pytest.approx(1, abs=.03)
        lists = [int.from_bytes(base64.b64decode(bits), "little") for bits in row["chosen"]]
        assert [bits.bit_count() / cells for bits in lists] == pytest.approx(row["density"], abs=1e-6)
        for r in range(16):
            assert all(bits >> (r * (r + 1) // 2 + r) & 1 for bits in lists), "the diagonal is always chosen"
        assert lists[1] & ~lists[0] == 0 and row["recall"][1] < row["recall"][0] <= 1
    recall = seer("eval", "recall", "--data", text, "--length", 1024, "--documents", 1, "--min-ratio", 1, "--methods", "seer", "--sparsity", "0.5,0.9", "--json", *QUICK)
    of_heads = [[x for layer in row["recall"] for x in layer] for row in json.loads(recall.stdout)["rows"]]
    for choice, wanted in enumerate(of_heads):
        assert [row["recall"][choice] for row in record["rows"]] == pytest.approx(wanted, abs=1e-5)
    joined = "".join(record["window"]["texts"]).removeprefix("<|bos|>")
    assert joined[:3000] in text.read_text()
    assert "--json FILE" in error_of(seer("eval", "attention", "--data", text, ok=False), 2)
    page = tmp_path / "page.html"
    assert "report   " in seer("eval", "attention", "--data", text, "--length", 512, "--html", page, *QUICK).stdout
    assert page.stat().st_size > 200_000


# Through the viewer by keys, and by clicks on the grid of heads and on a map; what is read at each stop is kept.
WALK = """
  const maps = document.getElementById("maps"), stops = {};
  const read = (stop) => { stops[stop] = Object.fromEntries(["head-summary", "reading", "query-text", "key-text"].map((id) => [id, document.getElementById(id).textContent])); };
  const press = (...keys) => keys.forEach((key) => maps.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})));
  const head = (layer, head) => document.querySelector(`#heads-of-maps [data-row="${layer}"][data-column="${head}"]`).click();
  const block = (query, key) => {
    const canvas = maps.querySelector("canvas"), box = canvas.getBoundingClientRect(), side = box.width - MARGIN.left;
    canvas.dispatchEvent(new MouseEvent("click", {clientX: box.left + MARGIN.left + side * (key + .5) / 16, clientY: box.top + side * (query + .5) / 16, bubbles: true}));
  };
  read("begin");
  press("ArrowDown", "ArrowRight", "ArrowRight", "PageDown"); read("moved");
  head(0, 0); block(2, 2); press("ArrowRight", "PageUp", "Home"); read("ends");
  head(5, 1); block(11, 2); read("clicked");
  Object.assign(document.documentElement.dataset, {address: location.hash, stops: encodeURIComponent(JSON.stringify(stops))});"""


@pytest.fixture(scope="module")
def page(report, maps):
    """All results, and maps of attention."""
    return report(maps, ROOT / "results")


@pytest.fixture(scope="module")
def walked(page, tmp_path_factory):
    return Page(page, tmp_path_factory.mktemp("walked"), "#layer=3&head=2&choice=1&query=9&key=4", BLANK + WALK)


@needs_browser
def test_all_results(walked):
    assert "errors" not in walked.root and walked.root["blank"] == "0" and int(walked.root["charts"]) >= 30
    for name in ("quality", "facts", "settings", "heads", "speed", "training", "files"):
        assert walked.part(name), name
    for file in (ROOT / "results").rglob("*.json"):
        assert file.relative_to(ROOT / "results").as_posix() in walked.text
    assert "no picture of this operation" not in walked.text
    # The published table beside ours.
    table = re.sub(r"\s+", " ", walked.text)
    assert "PG19 published, arXiv 2410.13276v1, section 4.4 8.79 9.16 +4.21 %" in table and "Proof-pile" in table
    ours = json.loads((ROOT / "results" / "nvidia-h200" / "yarn_embedded_books.json").read_text())["rows"]
    dense = next(row["perplexity"] for row in ours if row["method"] == "dense")
    assert f"embedded model, books, 32k tokens {dense:.2f}" in table and "YaRN: SmolLM2-135M, proofs" in table
    assert "SmolLM2-135M, books, 32k tokens, with lookup heads" in table
    for title in ("By length: YaRN: SmolLM2-135M, books", "Facts by distance: SmolLM2-135M, YaRN with SeerAttention at 90 %", "Copied passages: SmolLM2-135M, dense YaRN",
                  "Needle in a haystack by depth and length: SmolLM2-135M, dense YaRN", "YaRN: SmolLM2-135M, gates of another seed, proofs", "gates' learning rate 5e-4, books"):
        assert title in table
    facts = json.loads((ROOT / "results" / "nvidia-h200" / "methods_facts_smollm2.json").read_text())["rows"]
    found = next(row["top1"] for row in facts if (row["method"], row["sparsity"]) == ("seer", .9))
    assert f"{100 * found:.0f} % of planted facts' tokens with gates with lookup heads" in table
    assert "Prefill in transformers on NVIDIA H200" in table and "Training in transformers: rate" in table
    assert "first and recent blocks kept" in walked.text and re.search(r"lookup heads: 10 % of all, 90 % sparse\s+\d\d\.\d ± ", walked.text)


@needs_browser
def test_the_viewer(report, walked, maps, tmp_path):
    record = json.loads((maps / "attention.json").read_text())
    row = next(row for row in record["rows"] if (row["layer"], row["head"]) == (3, 2))
    stops = json.loads(unquote(walked.root["stops"]))
    assert stops["begin"]["head-summary"].startswith(f"Layer 3, head 2: {100 * row['recall'][1]:.0f} % of its attention")
    for stop, head, query, key in (("begin", "Layer 3, head 2:", 9, 4), ("moved", "Layer 3, head 3:", 10, 6), ("ends", "Layer 0, head 0:", 2, 0), ("clicked", "Layer 5, head 1:", 11, 2)):
        found = stops[stop]
        assert found["head-summary"].startswith(head), stop
        for name, place in (("Query", query), ("Key", key)):
            assert f"{name}, tokens {64 * place}–{64 * place + 63}" in found["reading"], stop
            assert found[f"{name.lower()}-text"] == record["window"]["texts"][place], stop
    assert html.unescape(walked.root["address"]) == "#layer=5&head=1&choice=1&query=11&key=2"
    # Lookup heads are marked in the grid, and losses by head have one of their own. An address that leads nowhere ends inside of what there is.
    record["rows"][13]["lookup"] = True
    (tmp_path / "attention.json").write_text(json.dumps(record))
    (tmp_path / "heads.json").write_text(json.dumps({"lost": [[.5, None], [.25, 0]], "lookup_heads": [[0], []]}))
    go_on = """const root = document.documentElement.dataset;
      root.lost = document.getElementById("head-summary").textContent + document.getElementById("reading").textContent;
      location.hash = "#layer=3&head=1"; dispatchEvent(new Event("hashchange"));"""
    marked = Page(report(tmp_path), tmp_path, "#layer=99&head=2&choice=7&query=999999&key=888888", go_on)
    assert "errors" not in marked.root and marked.root["lost"].startswith("Layer 0, head 0:") and "Query, tokens 960–1023" in marked.root["lost"]
    assert "Layer 3, head 1, a lookup head:" in marked.text
    assert re.findall(r'class="cell mark[^>]*data-row="(\d)" data-column="(\d)"', marked.dom) == [("3", "1"), ("6", "2"), ("6", "3"), ("7", "2"), ("0", "0")]


@needs_browser
def test_light_dark_and_narrow(page, tmp_path):
    from matplotlib.image import imread
    means = []
    for flags in ([], ["--blink-settings=preferredColorScheme=0"]):
        png = tmp_path / "page.png"
        browse(page, tmp_path, "--window-size=1280,1600", f"--screenshot={png}", *flags)
        picture = imread(png)
        assert picture.shape[:2] == (1600, 1280) and picture[..., :3].std() > .05
        means.append(picture[..., :3].mean())
    assert means[0] > .8 and means[1] < .25
    # A telephone's width, which Chromium's own windows do not reach: nothing is wider, and the switch works.
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<iframe src="file://{page}" style="width: 390px; height: 844px"></iframe><script>
      const frame = document.querySelector("iframe");
      const found = document.documentElement.dataset;
      frame.onload = () => {{
        const page = frame.contentDocument, root = page.documentElement, wait = (then) => (root.dataset.ready ? then() : setTimeout(() => wait(then), 50));
        wait(() => {{
          const before = root.dataset.theme, charts = root.dataset.charts;
          page.getElementById("theme").click();
          wait(() => {{
            const right = [...page.querySelectorAll("main *")].filter((e) => !e.closest(".scroll")).map((e) => e.getBoundingClientRect().right);
            Object.assign(found, {{width: Math.max(...right), before, after: root.dataset.theme, same: charts === root.dataset.charts && charts > 30, errors: root.dataset.errors || ""}});
          }});
        }});
      }};</script>""")
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<html[^>]*>", browse(frame, tmp_path, "--dump-dom").stdout)[0]))
    assert float(found.pop("width")) <= 390 and found == {"before": "light", "after": "dark", "same": "true", "errors": ""}


@needs_browser
def test_strange_results(report, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    page = Page(report(empty), tmp_path)
    assert "errors" not in page.root and page.root["charts"] == "0" and not page.part("quality")
    for what in ("maps of attention", "perplexity", "facts, copies and needles", "times", "training curves"):
        assert f"no {what}" in page.text
    hostile = '</script><img src=x onerror="problem(1)"> <b>\u2028\U0001f332'
    dense = {"method": "dense", "density": 1.0, "sparsity": 0.0, "perplexity": 10.0, "length": 1024}
    write(empty, "hostile.json", operation=hostile, chip=hostile, command=hostile, rows=[{hostile: hostile, "n": 1}, 3, None, [], "x"])
    write(empty, "nan.json", rows=[dense, {**dense, "method": "seer", "density": 0.5, "sparsity": 0.5, "perplexity": float("nan")},
                                   {**dense, "method": hostile, "density": 0.1, "sparsity": 0.9, "perplexity": 11.0}])
    write(empty, "odd.json", rows=[{"method": "seer"}, {"implementation": "seer", "median_ms": "slow"}, {"recall": [[None]], "method": "seer"}, {"top1": 0.5, "cells": [{}]},
                                   {"lost": [], "lookup_heads": None}, {"setting": "tokens", "value": 1, "facts": {"score": 0.5}}, {"setting": "rules", "facts": {"score": 0.5}, "books": 1}, {"tokens": [1, 2], "loss": [None, "x"], "run": "r"}])
    write(empty, "attention.json", operation="eval attention", window={"tokens": 1}, rows=[{"layer": 0, "head": 0}])
    write(empty, "many.json", operation="new", rows=[{"x": i} for i in range(5000)])
    (empty / "list.json").write_text("[1]")
    page = Page(report(empty), tmp_path, script='document.querySelectorAll("details").forEach((each) => { each.open = true; });')
    assert "errors" not in page.root, page.root
    assert not re.search(r"<img|<b>", page.main.replace("<b style", "")), "texts are texts"
    assert hostile[:30] in page.text
    assert page.text.count("no picture of this operation") == 3 and "no results" in page.text and "4900 more rows" in page.text


def test_wrong_input(seer, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("before")
    (tmp_path / "broken.json").write_text('{"operation": "x", "rows": [1,')
    assert "broken.json is not valid JSON" in error_of(seer("report", tmp_path, "--out", out, ok=False))
    assert "nowhere is not there" in error_of(seer("report", tmp_path / "nowhere", "--out", out, ok=False), 2)
    assert out.read_text() == "before" and not list(tmp_path.glob("page.html?*"))


def test_a_run_ends_with_its_page(seer, text, tmp_path):
    out = tmp_path / "run"
    said = seer("run", "--text", text, "--out", out, "--steps", 2, "--length", 2048, "--methods", "dense,seer", "--sparsity", 0.9, *QUICK).stdout
    assert f"report   {out / 'report.html'} (" in said
    data = json.loads(re.search(r'id="data">(.*?)</script>', (out / "report.html").read_text(), flags=re.S)[1])
    assert {file["path"]: file["kind"] for file in data["files"]} == {
        "attention.json": "results", "gates/heads.json": "heads", "gates/lookup/run.json": "training", "gates/run.json": "training", "run.json": "results"}
    assert len(next(file for file in data["files"] if file["path"] == "gates/run.json")["json"]["loss"]) == 2


@needs_browser
def test_gates_with_and_without_lookup_heads(report, tmp_path):
    """Of a longer context and of settings of training, as those that lead to them write them."""
    def row(model, method, sparsity, perplexity, **more):
        return {"model": model, "method": method, "sparsity": sparsity, "density": 1 - sparsity, "perplexity": perplexity, "length": 32768, **more}

    trained = {"trained_sparsity": .9}
    write(tmp_path, "yarn_smollm2_books.json", rows=[row("dense", "dense", 0, 10.), row("dense", "gate", .9, 12.), row("dense", "seer", .9, 11.), row("joint90", "seer", .9, 10.5, **trained),
                                                     row("joint90_lookup", "seer", .9, 10.25, **trained)])
    # Runs that differ in how often their gates learnt, which the table leaves out.
    write(tmp_path, "yarn_embedded_every_books.json", rows=[row("dense", "dense", 0, 30.), row("dense", "seer", .9, 40.), row("joint90", "seer", .9, 35., **trained), row("joint90_every8", "seer", .9, 36., **trained)])
    score = {"score": 1.2, "error": .1, "density": .1}
    write(tmp_path, "gate_ablations_smollm2.json", operation="gate settings", rows=[
        {"setting": setting, "value": value, "method": "gate", "sparsity": .9, "books": score} for setting, value in (("pooling", "Qavg_Kavg"), ("pooling", "Qavg_Kmaxmin"), ("block", 128), ("default", None))])
    page = Page(report(tmp_path), tmp_path)
    assert "errors" not in page.root, page.root
    found = re.sub(r"\s+", " ", page.text)
    assert re.search(r"books, 32k tokens 10\.00 .*?12\.00 \+20\.00 % .*?10\.50 \+5\.00 %", found)
    assert "32k tokens, with lookup heads 10.00" in found and re.search(r"with lookup heads 10\.00 .*?11\.00 \+10\.00 % .*?10\.25 \+2\.50 %", found)
    assert "embedded model, gates that learn in every n-th step, books, 32k tokens" in found and "+33.33 %" not in found
    assert all(name in found for name in ("Poolings of q and k", "Qavg_Kmaxmin, 90 % sparse", "128, 90 % sparse", "as by default, 90 % sparse"))


@needs_browser
def test_steps_by_one_and_two_gpus(report, tmp_path):
    """Beside each other, relative to one GPU's dense step; steps of one window in a chart of their own."""
    def step(ms, density, gpus, sequences):
        return {"model": "m", "len_q": 32768, "implementation": "dense" if density == 1 else "seer", "density": density, "gpus": gpus, "sequences": sequences, "median_ms": ms, "tokens_per_s": 1.,
                "parts": dict.fromkeys(("products", "rest", "loss", "optimizer"), ms / 4)}

    write(tmp_path, "finetune.json", operation="finetune", rows=[step(25., 1., 1, 1), step(20., .1, 1, 1), step(100., 1., 2, 8), step(80., .1, 2, 8), step(200., 1., 1, 8), step(160., .1, 1, 8)])
    script = """document.documentElement.dataset.bars = encodeURIComponent(JSON.stringify([...document.querySelectorAll("canvas")].map((canvas) => {
      const { labels, datasets } = Chart.getChart(canvas).data;
      return labels.map((label, i) => [label, datasets.reduce((sum, one) => sum + one.data[i], 0)]);
    })));"""
    page = Page(report(tmp_path), tmp_path, script=script)
    assert "errors" not in page.root and "A step of fine-tuning: m, 8 windows a step" in page.text
    assert json.loads(unquote(page.root["bars"])) == [
        [[["dense", "32k tokens"], 1], [["90 %", ""], pytest.approx(.8)]],
        [[["dense", "32k tokens"], 1], [["90 %", ""], pytest.approx(.8)], ["", 0], [["dense", "32k tokens, 2 GPUs"], .5], [["90 %", ""], pytest.approx(.4)]]]


@needs_browser
def test_order_of_perplexity(report, tmp_path):
    """Files of most methods first; what has one setting of each method at several lengths is drawn by length alone."""
    def rows(methods, lengths, sparsities):
        return [{"model": "m", "method": method, "sparsity": s, "density": 1 - s, "perplexity": 10. + s, "length": n} for n in lengths for method in methods for s in ([0.] if method == "dense" else sparsities)]

    write(tmp_path, "a.json", rows=rows(["dense", "seer"], [1024, 2048], [.5]))
    write(tmp_path, "b.json", rows=rows(["dense", "seer", "oracle"], [1024], [.5, .9]))
    page = Page(report(tmp_path), tmp_path)
    assert "errors" not in page.root, page.root
    sources = re.findall(r"\b[ab]\.json", page.part("quality")[0])
    assert list(dict.fromkeys(sources)) == ["b.json", "a.json"] and page.part("quality")[0].count("<canvas") == 2, sources
