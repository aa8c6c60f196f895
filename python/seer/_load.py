"""Loads libseer.so, which registers torch.ops.seer, and refuses a torch that it was not built for."""
import json
import os
import pathlib

import torch

_HERE = pathlib.Path(__file__).resolve().parent


def _folder() -> pathlib.Path:
    """The package's own folder once installed; in a checkout the build folder."""
    if (_HERE / "libseer.so").exists():
        return _HERE
    return pathlib.Path(os.environ.get("SEER_BUILD", _HERE.parents[1] / "build"))


def load() -> str:
    """Makes torch.ops.seer; returns the library's version. ImportError, one line, where it cannot."""
    folder = _folder()
    try:
        built = json.loads((folder / "libseer.json").read_text())
    except OSError:
        raise ImportError(f"seer: {folder / 'libseer.json'} is not there, nor the library beside it: pip install . builds both, in a "
                          "checkout ./run does") from None
    minor = lambda version: version.split("+")[0].split(".")[:2]
    if minor(torch.__version__) != minor(built["torch"]):
        raise ImportError(f"seer: this build is for torch {'.'.join(minor(built['torch']))}, but torch {torch.__version__} is "
                          "installed: install the wheel for it, or build one with pip install .")
    torch.ops.load_library(str(folder / "libseer.so"))
    return built["version"]
