#!/usr/bin/env python3
"""Writes the fuzz targets' first inputs and dictionaries: make_seeds.py FOLDER."""
import gzip
import json
import pathlib
import re
import struct
import sys

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
ALPHABET = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
SPECIAL = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)


def configs():
    for family, name in [("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3"), ("phi3", "Phi3")]:
        config = {"architectures": [f"{name}ForCausalLM"], "model_type": family, **SIZES, "num_key_value_heads": 2,
                  "head_dim": 8, "max_position_embeddings": 4096, "rope_theta": 1e4, "rms_norm_eps": 1e-5,
                  "hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "bfloat16", "sliding_window": 128,
                  "use_sliding_window": True, "max_window_layers": 1, "bos_token_id": 1, "eos_token_id": [2, 3]}
        yield config
        yield {**config, "layer_types": ["full_attention", "sliding_attention"], "dtype": "float16"}
    for scaling in [
            {"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 4},
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 1024},
            {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.5,
             "truncate": False, "original_max_position_embeddings": 1024, "attention_factor": 1.1},
            {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}]:
        yield {**config, "rope_scaling": scaling, "original_max_position_embeddings": 1024}
        yield {**config, "rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5, **scaling}}


def tokenizers():
    byte_level = {c: i for i, c in enumerate(ALPHABET)} | {"Ġt": 256, "he": 257, "Ġthe": 258}
    plain = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{b:02X}>": 3 + b for b in range(256)} | {
        "▁": 259, "a": 260, "b": 261, "▁a": 262, "ab": 263}
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
           "vocab": byte_level, "merges": ["Ġ t", ["h", "e"], "Ġt he"]}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+"},
             "behavior": "Isolated", "invert": False}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    base = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None}
    yield {**base, "added_tokens": [{"id": 259, "content": "<|end|>", **SPECIAL}], "model": bpe,
           "pre_tokenizer": level, "decoder": level}
    yield {**base, "added_tokens": [{"id": 300, "content": "<x>", **SPECIAL, "special": False, "lstrip": True}],
           "normalizer": {"type": "NFC"}, "model": bpe, "decoder": level,
           "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                             split, {**level, "use_regex": False}]}}
    yield {**base, "added_tokens": [{"id": 1, "content": "<s>", **SPECIAL}],
           "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                          {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Lowercase"}]},
           "pre_tokenizer": None, "post_processor": template,
           "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"},
                       {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
           "model": {**bpe, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                     "vocab": plain, "merges": ["▁ a", "a b"]}}
    yield {**base, "added_tokens": [], "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
           "split": True}, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False},
           "model": {**bpe, "vocab": plain, "unk_token": "<unk>", "merges": []}}


def safetensors(entries, data):
    return json.dumps(entries).encode() + b"\n" + data


def seeds():
    for config in configs():
        yield "config", json.dumps(config).encode() + b'\0{"eos_token_id": [2, 5], "bos_token_id": 1}'
        yield "gate_folder", json.dumps({
            **config, "base_model": "m", "seerattn_gate_type": "Qavg_Kmaxminavg", "seerattn_gate_block_size": 64,
            "seerattn_gate_hidden_size": 128, "seerattn_gate_force_double": True,
            "seer_lookup_rank": 32, "seer_lookup_heads": {"0": [1, 3], "10": [0]}}).encode()
    for tokenizer in tokenizers():
        parts = [json.dumps(tokenizer), "The the  a ab<|end|> é 語\n"]
        special = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "additional_special_tokens": ["<q>"]}
        yield "tokenizer", "\0".join([*parts, json.dumps({
            **special, "chat_template": "{{ messages }}",
            "added_tokens_decoder": {"300": {"content": "<y>", **SPECIAL}}})]).encode()
        yield "tokenizer", "\0".join([*parts, "{}", json.dumps(special), '{"<r>": 301}']).encode()
    tensor = {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}
    yield "safetensors", safetensors({"__metadata__": {"format": "pt"}, "a": tensor}, b"12345678")
    yield "safetensors", safetensors({"a": tensor, "b": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]}}, b"1234567890")
    lines = b'{"text": "one", "n": NaN}\n\n{"text": "two"}\r\n{"text": 3}\n'
    for kind in (0, 1, 2, 6, 7):
        yield "text", bytes([kind]) + lines
    yield "text", b"\1" + b'[{"text": "one"}, {"text": "two"}]'
    yield "text", b"\4" + gzip.compress(lines, mtime=0)
    # A Zstandard frame with one raw block.
    frame = b"\x28\xb5\x2f\xfd\x20" + bytes([len(lines)]) + struct.pack("<I", len(lines) << 3 | 1)[:3] + lines
    yield "text", b"\3" + frame
    state = {"format": "pt", "state": json.dumps({"step": 3, "tokens": 96})}
    header = json.dumps({"__metadata__": state, "w": tensor}).encode()
    files = [{"task": "distill", "loop": {"steps": 6}}, {"step": 3, "loss": 1.5}]
    yield "run_folder", b"\0".join(json.dumps(f).encode() + b"\n" for f in files) + b"\0" + (
        struct.pack("<Q", len(header)) + header + b"\0" * 8)


def main(folder):
    words = {}
    for number, (target, data) in enumerate(seeds()):
        (folder / target).mkdir(parents=True, exist_ok=True)
        (folder / target / f"{number:03}").write_bytes(data)
        words.setdefault(target, set()).update(re.findall(rb'"[\w.<>|]{2,40}"', data))
    for target, found in words.items():
        lines = [b'"\\"' + word[1:-1] + b'\\""' for word in sorted(found)[:400]]
        (folder / f"{target}.dict").write_bytes(b"\n".join(lines) + b"\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
