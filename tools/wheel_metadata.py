"""Version and dependencies of the wheel, for scikit-build-core: they name the torch that it is built of."""
import importlib.metadata
import pathlib
import re


def torch_minor():
    return ".".join(importlib.metadata.version("torch").split("+")[0].split(".")[:2])


def dynamic_metadata(field, settings=None, *_):
    if field == "dependencies":
        return [f"torch=={torch_minor()}.*"]
    text = (pathlib.Path(__file__).resolve().parents[1] / "CMakeLists.txt").read_text()
    return f"{re.search(r'project[(]seer VERSION ([0-9.]+)', text)[1]}+torch{torch_minor()}"


def get_requires_for_dynamic_metadata(settings=None):
    return []
