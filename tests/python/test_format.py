"""Sources are as clang-format leaves them."""
import pathlib
import subprocess
import sys

from conftest import ROOT


def test_clang_format():
    files = [path for folder in ("seer", "tests") for kind in ("*.h", "*.cc", "*.cu", "*.cuh")
             for path in sorted((ROOT / folder).rglob(kind))]
    assert files
    program = pathlib.Path(sys.executable).parent / "clang-format"
    result = subprocess.run([program, "--dry-run", "-Werror", *files], capture_output=True, text=True)
    assert result.returncode == 0, (
        result.stderr[:2000] + "\nrun: clang-format -i on these files")
