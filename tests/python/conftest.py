"""Where the built programs are, and how tests run them."""
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("SEER_BUILD", ROOT / "build"))
sys.path.insert(0, str(ROOT / "python"))
# Of programs that import seer.
PACKAGE_PATH = os.pathsep.join(filter(None, [str(ROOT / "python"), os.environ.get("PYTHONPATH")]))


def usual_signals():
    """For preexec_fn: signals as a terminal's shell sets them; one in the background has SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def build():
    return BUILD


@pytest.fixture(scope="session")
def seer():
    """Runs `seer` with arguments; returns the finished process. `ok=True` wants exit status 0."""
    program = BUILD / "seer"

    def run(*args, ok=True, timeout=600, **kwargs):
        result = subprocess.run([program, *map(str, args)], capture_output=True, text=True,
                                timeout=timeout, **kwargs)
        if ok:
            assert result.returncode == 0, result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def gates_alone(tmp_path_factory):
    """The folder of the reference model's gates, without lookup heads."""
    from safetensors.torch import load_file, save_file
    made, folder = ROOT / "assets" / "reference" / "gates", tmp_path_factory.mktemp("alone") / "gates"
    folder.mkdir()
    config, name = json.loads((made / "config.json").read_text()), "attn_gate_weights.safetensors"
    (folder / "config.json").write_text(json.dumps({key: x for key, x in config.items() if not key.startswith("seer_lookup")}))
    save_file({key: x for key, x in load_file(made / name).items() if "lookup" not in key}, folder / name)
    return folder


@pytest.fixture(scope="session")
def older_transformers():
    """The environment in which this Python has transformers 4.51."""
    folder = ROOT / ".cache" / "transformers-4.51"
    assert folder.is_dir(), f"{folder} is missing: ./test installs it"
    return {**os.environ, "PYTHONPATH": str(folder)}
