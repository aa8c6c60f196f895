#!/usr/bin/env python3
"""Writes the tables of README.md and docs/results.md from results/**/*.json.

    python tools/result_tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. --check changes nothing and fails where a page
differs from the results.
"""
import pathlib
import re
import sys

from tables import results
from tables.gate_settings import ablations, ablations_embedded, gate_rope, gates_by_tokens, lookup_shares, selection_rules
from tables.methods import methods, methods_forced
from tables.models import attach, choosing, decode_gpu, distill_gpu, finetune_gpu, finetune_gpus, prefill_gpu, python_training
from tables.operations import backward_gpu, decode_attn_gpu, gate_gpu, gpu, gpu_map, headline, others, speed
from tables.planted import lookup_lists, lookup_scores, needle, planted, planted_long
from tables.quality import quality, run_gpu
from tables.yarn import lengths, published, yarn, yarn_every, yarn_headline, yarn_rates

TABLES = {made.__name__: made for made in (headline, quality, speed, others, gpu, backward_gpu, gpu_map, gate_gpu, decode_attn_gpu, decode_gpu,
                                           prefill_gpu, attach, distill_gpu, finetune_gpu, finetune_gpus, python_training, planted, lookup_scores, lookup_lists, methods, methods_forced, needle, run_gpu,
                                           gates_by_tokens, selection_rules, lookup_shares, ablations, ablations_embedded, gate_rope, choosing, published, yarn, yarn_headline, yarn_rates, yarn_every, lengths, planted_long)}
PAGES = ("README.md", "docs/results.md")


def table(name, page=PAGES[0]):
    if name not in TABLES:
        sys.exit(f"{page}: no table \"{name}\"; there are {', '.join(TABLES)}")
    try:
        made = TABLES[name]()
    except FileNotFoundError as error:
        path = pathlib.Path(error.filename).relative_to(results.FOLDER.parent)
        sys.exit(f"{page}: table \"{name}\" needs {path}, which is missing")
    up = "../" * page.count("/")
    return made.replace("](results/", f"]({up}results/")


def made_page(page):
    text = (results.ROOT / page).read_text()
    return text, re.sub(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table(m[2], page)}\n{m[3]}", text, flags=re.S)


def main():
    pages = {page: made_page(page) for page in PAGES}
    for page, (text, made) in pages.items():
        if "--check" in sys.argv and made != text:
            sys.exit(f"{page} differs from results/: run tools/result_tables.py")
    for page, (text, made) in pages.items():
        if made != text:
            (results.ROOT / page).write_text(made)


if __name__ == "__main__":
    main()
