"""docs/python.md: its examples, in their order, are one program that runs."""
import os
import re
import subprocess
import sys

from conftest import BUILD, PACKAGE_PATH, ROOT

PAGE = (ROOT / "docs" / "python.md").read_text()


def test_examples(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert len(examples) == 15
    for name in ("assets", "README.md", "DESIGN.md", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    run = subprocess.run([sys.executable, "-c", "\n".join(examples)], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD)})
    assert run.returncode == 0, run.stderr
    densities, found = (line for line in run.stdout.splitlines() if line.startswith("[") or "relative error" in line)  # Trainer reports, too
    assert len(densities.split()) == 8
    share, error = map(float, re.fullmatch(r"(\d+)% of the blocks, relative error ([\d.]+)", found).groups())
    assert 8 < share < 12 and error < 0.3
    assert (tmp_path / "lookup-gates" / "heads.json").is_file()
    for folder in ("my-gates", "tuned/gates", "lookup-gates"):
        assert {path.name for path in (tmp_path / folder).iterdir()} >= {"config.json", "attn_gate_weights.safetensors", "README.md"}
    # The program reads what the trainer wrote: the same RoPE, and gates of these weights.
    subprocess.run([BUILD / "seer", "logits", "--model", tmp_path / "tuned", "--method", "seer", "--text", "Once upon a time", "--device", "cpu",
                    "--out", tmp_path / "logits.safetensors"], check=True, capture_output=True)
