"""What README.md says: its commands run, its tables are those of the results, its links lead somewhere."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from conftest import BUILD, PACKAGE_PATH, ROOT

README = (ROOT / "README.md").read_text()
LONG_CONTEXT, EVALUATION = "docs/long_context.md", "docs/evaluation.md"
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "docs/results.md", "docs/python.md", LONG_CONTEXT, EVALUATION)}
# What makes a command of the README short; the rest of it stays as it is.
SHORTER = [("--steps 200", "--steps 2"), ("--length 8192", "--length 1024"), ("--length 4096", "--length 1024"), ("--lengths 4096", "--lengths 1024"),
           ("--lengths 32768", "--lengths 2048 --runs 1 --seconds 0"), ("--max-new-tokens 64", "--max-new-tokens 4"),
           ("--out model", "--out model --steps 2 --lengths 512 --tokens-per-step 1024 --hidden 64 --layers 2 "
                           "--heads 1 --kv-heads 1 --intermediate 64"),
           ("FOLDER", "reference")]
COMMANDS = re.findall(r"^\$seer ([^\n#]*)", README, flags=re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, gates_alone):
    """The files that the commands name, the model with gates that have no lookup heads yet."""
    import zstandard
    path = tmp_path_factory.mktemp("readme")
    text = (BUILD / "default_text.txt").read_text()[:60_000]
    for name in ("long.txt", "book.txt"):
        (path / name).write_text(text)
    lines = "".join(json.dumps({"text": text[i:i + 20_000]}) + "\n" for i in range(0, 60_000, 20_000))
    (path / "texts.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    shutil.copytree(ROOT / "assets" / "reference", path / "reference", ignore=shutil.ignore_patterns("gates"))
    shutil.copytree(gates_alone, path / "reference" / "gates")
    return path


def test_there_are_commands():
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, folder):
    for long, short in SHORTER:
        command = command.replace(long, short)
    result = subprocess.run([BUILD / "seer", *command.split()], cwd=folder, capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr


def test_commands_of_a_longer_context(folder):
    """One after the other: each takes what those before it have made."""
    page = PAGES[LONG_CONTEXT]
    commands = re.findall(r"^\$seer ([^\n#]*)", page, flags=re.M)
    assert [command.split()[0] for command in commands] == ["finetune", "distill", "finetune", "finetune", "eval", "distill", "eval"]
    shutil.copy(folder / "texts.jsonl.zst", folder / "held_out.jsonl.zst")
    short = [("FOLDER", "reference"), ("--steps 400", "--steps 1 --sequences 1"), ("--steps 500", "--steps 1"), ("--length 32768 --lookup-heads 0.1", "--length 1024 --lookup-heads 0.1 --lookup-windows 1"), ("32768", "256")]
    for command in commands:
        for long, instead in short:
            command = command.replace(long, instead)
        result = subprocess.run([BUILD / "seer", *command.split()], cwd=folder, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
    collect = re.search(r"^python (bench/training_runs.py [^#\n]*)", page, flags=re.M)[1].split()
    subprocess.run([sys.executable, ROOT / collect[0], *collect[1:]], cwd=folder, check=True)
    rows = {(row["model"], row["method"], row["sparsity"]) for row in json.loads((folder / "yarn.json").read_text())["rows"]}
    assert rows == {(model, method, s) for model in ("dense", "joint50", "joint90")
                    for method, s in (("dense", 0), *(("seer", s) for s in (.5, .6, .7, .8, .9)))}
    assert [row["run"] for row in json.loads((folder / "runs.json").read_text())["rows"]] == ["dense", "joint50", "joint90", "after"]


def test_commands_of_evaluation(folder):
    commands = re.findall(r"^\$seer ([^\n#]*)", PAGES[EVALUATION].split("## Gates that ship")[0], flags=re.M)
    assert [command.split()[1] for command in commands] == ["facts", "copies", "needle", "prefill", "heads", "--model"]
    for command in commands:
        short = command.replace("FOLDER", "reference").replace("2048,8192", "256,512").replace("32,192", "32,64").replace("--length 8192", "--length 2048")
        length = [] if "--length" in command else ["--lengths", "1024"]
        few = {"eval": ["--documents", "1"], "bench": ["--runs", "1", "--seconds", "0", "--device", "cpu"],
               "distill": ["--lookup-windows", "1"]}[command.split()[0]]
        result = subprocess.run([BUILD / "seer", *short.replace("--lengths 8192", "--lengths 1024").split(), *few, "--threads", "1",
                                 *length], cwd=folder, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr


def test_recipe_of_gates_that_ship(folder, tmp_path):
    """On the embedded model, and short."""
    shutil.copytree(folder / "reference", tmp_path / "reference")
    for name in ("texts.jsonl.zst", "book.txt"):
        shutil.copy(folder / name, tmp_path)
    recipe = re.search(r"```sh\n(.*?)```", PAGES[EVALUATION].split("## Gates that ship")[1], flags=re.S)[1]
    recipe = re.sub(r"^.*seer\.models.*\n", "", recipe, flags=re.M)
    for long, short in (("SmolLM2-135M-Instruct", "reference"), ("books-train.jsonl.zst,proofs-train.jsonl.zst", "texts.jsonl.zst,book.txt"),
                        ("8192", "1024"), ("--sequences 8 --steps 800", "--sequences 1 --steps 1"), ("--lookup-heads 0.1", "--lookup-heads 0.1 --lookup-windows 1"),
                        ("python tools/", f"{sys.executable} {ROOT}/tools/")):
        assert long in recipe
        recipe = recipe.replace(long, short)
    subprocess.run(["bash", "-euc", recipe], cwd=tmp_path, check=True, timeout=300, env={**os.environ, "seer": str(BUILD / "seer"), "SEER_BUILD": str(BUILD)})
    made = json.loads((tmp_path / "assets" / "gates" / "smollm2-135m-instruct" / "config.json").read_text())
    assert made["base_model"] == "reference" and made["seer_lookup_rank"] == 32


def test_commands_of_results(folder):
    """One after the other: the last takes what those before it have made."""
    commands = re.findall(r"^\$seer ([^\n#]*)", PAGES["docs/results.md"], flags=re.M)
    assert [command.split()[0] for command in commands] == ["report", "eval", "report"]
    shutil.copytree(ROOT / "results", folder / "results", dirs_exist_ok=True)  # benchmarks may have written there
    for command in commands:
        for long, short in SHORTER:
            command = command.replace(long, short)
        result = subprocess.run([BUILD / "seer", *command.split()], cwd=folder, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0 and result.stdout.startswith("report   "), result.stderr
        assert (folder / command.split()[-1]).stat().st_size > 300_000


def test_tables_are_those_of_the_results():
    subprocess.run([sys.executable, ROOT / "tools" / "result_tables.py", "--check"], check=True)


def test_all_tables_of_numbers_are_made_from_results():
    for page in ("README.md", "docs/results.md"):
        by_hand = re.sub(r"<!-- table: \w+ -->\n.*?<!-- end -->", "", PAGES[page], flags=re.S)
        assert not [line for line in by_hand.splitlines() if line.startswith("|") and re.search(r"\d", line)], page
    for page in PAGES.keys() - {"README.md", "docs/results.md"}:
        assert "<!-- table:" not in PAGES[page], f"tools/result_tables.py does not write {page}"


def test_links():
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            if link.startswith(("http", "#")):
                continue
            file, _, heading = link.partition("#")
            target = (ROOT / page).parent / file
            assert target.exists(), (page, link)
            assert not heading or f"\n## {heading.replace('-', ' ')}\n" in target.read_text().lower(), (page, link)


def test_python_program():
    program = re.search(r"```python\n(.*?)```", README, flags=re.S)[1]
    assert program.count("\n") <= 15
    run = subprocess.run([sys.executable, "-c", program.replace("build/default_text.txt", str(BUILD / "default_text.txt"))], cwd=ROOT,
                         capture_output=True, text=True, env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD)})
    assert run.returncode == 0, run.stderr
    dense, sparse, share = map(float, re.match(r"perplexity ([\d.]+) dense, ([\d.]+) with (\d+)% of the blocks\n", run.stdout).groups())
    assert dense < sparse < 2 * dense and 6 < share < 15 and run.stdout.count("\n") > 1, run.stdout


def test_length():
    assert README.count("\n") <= 180


def test_files_named_in_the_text_exist():
    for name in re.findall(r"`((?:seer|tools|assets|results)/[\w./-]+)`", README):
        assert pathlib.Path(ROOT / name).exists(), name
