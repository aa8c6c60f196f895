#!/usr/bin/env python3
"""Writes the tables of README.md from results/**/*.json.

    python tools/readme_tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. --check changes nothing and fails where the
README differs from the results.
"""
import pathlib
import re
import sys

from readme import results
from readme.models import distill_gpu, prefill_gpu
from readme.operations import gate_gpu, gpu, gpu_map, others, speed
from readme.quality import quality, quality_gpu

TABLES = {made.__name__: made for made in (quality, speed, others, gpu, gpu_map, gate_gpu, prefill_gpu, distill_gpu,
                                           quality_gpu)}


def table(name):
    if name not in TABLES:
        sys.exit(f"README.md: no table \"{name}\"; there are {', '.join(TABLES)}")
    try:
        return TABLES[name]()
    except FileNotFoundError as error:
        path = pathlib.Path(error.filename).relative_to(results.FOLDER.parent)
        sys.exit(f"README.md: table \"{name}\" needs {path}, which is missing")


def main():
    readme = results.ROOT / "README.md"
    text = readme.read_text()
    made = re.sub(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text,
                  flags=re.S)
    if "--check" in sys.argv:
        sys.exit("README.md differs from results/: run tools/readme_tables.py" if made != text else 0)
    readme.write_text(made)


if __name__ == "__main__":
    main()
