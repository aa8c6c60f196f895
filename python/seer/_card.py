"""The model card of a folder of gates: README.md, whose head Hugging Face's Hub reads."""
from __future__ import annotations

import hashlib
import json
import pathlib
import re
from typing import Optional

from .gates import GateConfig, replace
from .packing import counted

MARK = re.compile(r"\n<!-- seer\.save_gates wrote this card, and leaves it alone once it is changed \((\w+)\) -->\n$")
TAGS = ("seer-attention", "sparse-attention", "block-sparse-attention")


def write_card(folder, model_config, config: GateConfig, num_layers: int, trained: str) -> None:
    """Writes README.md, unless somebody else wrote or changed the one that is there."""
    path = pathlib.Path(folder) / "README.md"
    if path.exists() and not _is_ours(path):
        return
    text = card(model_config, config, num_layers, trained)
    replace(path, lambda unfinished: unfinished.write_text(
        f"{text}\n<!-- seer.save_gates wrote this card, and leaves it alone once it is changed ({_digest(text)}) -->\n", encoding="utf-8"))


def card(model_config, config: GateConfig, num_layers: int, trained: str) -> str:
    base, known = config.base_model, hub_id(config.base_model)
    head = {"base_model": known, "library_name": "seer-attention", "license": license_of(model_config, base)}
    fields = [f"{name}: {json.dumps(value)}" for name, value in head.items() if value]
    name = known or pathlib.PurePath(base).name or f"a {model_config.model_type} model"
    pools = dict(zip("qk", re.fullmatch(r"Q(\w+)_K(\w+)", config.type).groups()))
    pooled = {letter: ", ".join(re.findall("max|min|avg", of)) for letter, of in pools.items()}
    return "\n".join([
        "---", *fields, "tags:", *(f"- {tag}" for tag in TAGS), "---", "",
        f"# Gates for {name}", "",
        "Small learned gates that choose, from queries and keys before RoPE, which blocks of a long prompt attention reads",
        "(SeerAttention, arXiv 2410.13276). The model itself is not here and stays as it is.", "",
        "| | |", "|---|---|",
        f"| Block | {config.block_size} tokens |",
        f"| Pooling over a block | q: {pooled['q']}; k: {pooled['k']} (`{config.type}`) |",
        f"| Gate | {counted(num_layers, 'layer')}, vectors of {config.gate_dim} features, float32 |",
        *([f"| Lookup heads | {sum(map(len, config.lookup_heads.values()))}, of {config.lookup_rank} features |"] if config.lookup_heads else []),
        *([f"| Fingerprint of the model's weights | `{config.fingerprint}` |"] if config.fingerprint else []),
        *(["", trained] if trained else []), "",
        "## Use", "", "```python",
        "import seer", "from huggingface_hub import snapshot_download", "from transformers import AutoModelForCausalLM",
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(known or 'THE_BASE_MODEL')})",
        'seer.attach(model, snapshot_download("THIS_REPOSITORY"), sparsity=0.9)',
        "```", ""])


def hub_id(name: str) -> Optional[str]:
    """owner/model, where that is what a model was loaded by, or its folder in the Hub's cache; None: another folder, or not known."""
    cached = re.search(r"models--([^/]+?)--([^/]+)/snapshots/", name)
    if cached:
        return "/".join(cached.groups())
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not pathlib.Path(name).exists() else None


def license_of(model_config, folder: str) -> Optional[str]:
    """As the base model's config, or the head of its folder's card, says; None: not known, or one that needs more said."""
    found = getattr(model_config, "license", None)
    try:
        head = re.match(r"---\n(.*?)\n---\n", (pathlib.Path(folder) / "README.md").read_text(encoding="utf-8"), flags=re.S) if folder else None
    except (OSError, UnicodeDecodeError):
        head = None
    named = re.search(r"^license: *([\w.-]+) *$", head[1], flags=re.M) if head else None
    found = found or (named and named[1])
    return found if isinstance(found, str) and found != "other" else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_ours(path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    mark = MARK.search(text)
    return mark is not None and _digest(text[:mark.start()]) == mark[1]
