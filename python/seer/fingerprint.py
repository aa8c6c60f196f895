"""What tells a model's weights from others of the same names and shapes; seer/models/fingerprint.h says how it is made."""
import re

import torch

MASK = 2 ** 64 - 1
# What seer's decoder reads of a model's files.
READ = re.compile(r"lm_head\.weight|model\.(embed_tokens|norm)\.weight|model\.layers\.\d+\.("
                  r"(input|post_attention)_layernorm|self_attn\.([qkvo]|qkv)_proj|self_attn\.[qk]_norm|"
                  r"mlp\.(gate|up|down|gate_up)_proj)\.(weight|bias)")


def mix64(x):
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & MASK
    return x ^ (x >> 31)


def fnv1a64(text):
    value = 0xcbf29ce484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001b3) & MASK
    return value


def sum_of(values):
    """Of a weight's sample, the weight with one axis."""
    count = values.numel()
    runs = [values] if count <= 1024 else [values[i * (count - 64) // 15:][:64] for i in range(16)]
    bits = torch.cat([run.to(torch.float32) for run in runs]).cpu().view(torch.int32).tolist()
    return sum(mix64(j << 32 | (word & 0xffffffff)) for j, word in enumerate(bits)) & MASK


def text_of(sums):
    """The fingerprint of {name: sum} of all weights."""
    sums = dict(sums)
    # Files of a tied model hold both, the same, or one of them.
    head, embedding = sums.pop("lm_head.weight", None), sums.get("model.embed_tokens.weight")
    if head is not None and head != embedding:
        sums["lm_head.weight" if embedding is not None else "model.embed_tokens.weight"] = head
    return f"seer-1:{sum(mix64(fnv1a64(name) ^ x) for name, x in sums.items()) & MASK:016x}"
