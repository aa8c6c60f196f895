"""The wheel: built as `pip wheel` builds it, but without the CUDA kernels, which take minutes; installed, and used without the
checkout."""
import os
import subprocess
import sys
import zipfile

import pytest
import torch

from conftest import ROOT

PROGRAM = """
import seer, torch
q, k, v = (torch.randn(1, 300, heads, 64) for heads in (4, 2, 2))
dense, _, weights = seer.pooled_attention(q, k, v)
lists = seer.select_blocks(weights.log(), 0.0, seer.Packing.of_batch(1, 300))
assert torch.allclose(seer.block_sparse_attention(q, k, v, lists), dense, atol=1e-5)
print(seer.__file__, seer.__version__)
"""


def test_wheel(tmp_path):
    pytest.importorskip("scikit_build_core")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    built = subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-C", f"build-dir={ROOT / 'build-wheel-cpu'}",
                            "-C", "cmake.define.SEER_CUDA=OFF", "-w", tmp_path, ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    wheel, = tmp_path.glob("*.whl")
    minor = ".".join(torch.__version__.split("+")[0].split(".")[:2])
    assert wheel.name.startswith("seer_attention-") and f"+torch{minor}-py3-none-linux" in wheel.name
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        assert {"seer/libseer.so", "seer/libseer.json", "seer/py.typed", "seer/ops.py"} <= set(names)
        metadata = files.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert f"Requires-Dist: torch=={minor}.*" in metadata
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "SEER_BUILD"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True,
                         env={**environment, "PYTHONPATH": str(tmp_path / "site")})
    assert run.returncode == 0, run.stderr
    place, version = run.stdout.split()
    assert place == str(tmp_path / "site" / "seer" / "__init__.py") and wheel.name.startswith(f"seer_attention-{version}+")
    # Nothing of the machine that built it is needed but what every Linux has, and torch.
    needed = subprocess.run(["readelf", "-d", tmp_path / "site" / "seer" / "libseer.so"], capture_output=True, text=True, check=True).stdout
    libraries = {line.split("[")[1].split("]")[0] for line in needed.splitlines() if "NEEDED" in line}
    usual = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "ld-linux-x86-64.so.2", "libdl.so.2", "librt.so.1"}
    beside = {path.name for path in (tmp_path / "site" / "seer").iterdir()}
    assert libraries <= usual | beside | {"libtorch_cpu.so", "libc10.so", "libtorch.so"}
    assert str(ROOT) not in needed
