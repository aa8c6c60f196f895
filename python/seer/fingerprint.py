"""What tells a model's weights from others of the same names and shapes; seer/models/fingerprint.h says how it is made."""
import json
import mmap
import pathlib
import re
import struct

import torch

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}

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


def of_folder(folder):
    """The fingerprint of a model's folder with safetensors, and the names of its weights' types. OSError, ValueError: it cannot
    be read."""
    folder, types = pathlib.Path(folder), set()
    try:
        if (folder / "model.safetensors").exists():
            sums = dict(_sums_of(folder / "model.safetensors", None, types))
        else:
            files = json.loads((folder / "model.safetensors.index.json").read_bytes())["weight_map"]
            sums = {}
            for file in sorted(set(files.values())):
                sums.update(_sums_of(folder / file, {name for name, of in files.items() if of == file}, types))
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{folder}: its safetensors cannot be read ({error})") from None
    if not sums:
        raise ValueError(f"{folder} holds no weights of a language model")
    return text_of(sums), types


def _sums_of(path, names, types):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as data:
        begin = 8 + struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:begin]).items():
            # Files of a decoder without a head leave out "model.".
            full = name if name.startswith(("model.", "lm_head.")) else "model." + name
            if not READ.fullmatch(full) or (names is not None and name not in names):
                continue
            if entry["dtype"] not in TYPES:
                raise ValueError(f"{name} is of type {entry['dtype']}, want one of {', '.join(TYPES)}")
            dtype, (first, last) = TYPES[entry["dtype"]], entry["data_offsets"]
            types.add(dtype)
            values = torch.frombuffer(data, dtype=dtype, offset=begin + first, count=(last - first) // dtype.itemsize)
            yield full, sum_of(values)
            del values  # the file cannot be closed before
