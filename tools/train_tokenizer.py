#!/usr/bin/env python3
"""Trains a byte-level BPE (split pattern of Llama 3) and writes tokenizer.json and tokenizer_config.json.

The same files and numbers give the same bytes. Example, the tokenizer of assets/reference:

    tools/train_tokenizer.py --out assets/reference books-train.jsonl.zst:14M proofs-train.jsonl.zst:10M
"""
import argparse
import gzip
import io
import json
import os
import pathlib
import sys

import zstandard
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
WINDOW = 50_000  # characters; every window of a document gives its share, so that all parts are seen
SCALE = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def source(argument):
    """PATH:CHARACTERS, the number with k, M or G where wanted."""
    path, _, count = argument.rpartition(":")
    try:
        characters = int(float(count.rstrip("kMG")) * SCALE.get(count[-1:], 1))
    except ValueError:
        characters = 0
    if not path or characters <= 0:
        raise argparse.ArgumentTypeError(f"{argument!r} is not FILE:CHARACTERS, as in books.jsonl.zst:14M")
    return pathlib.Path(path), characters


def documents(path):
    """Texts of JSON lines (.jsonl, .ndjson, .json); any other file is one text, line ends as they are. Also as .gz, .zst."""
    name, packing = path.name.lower(), ""
    if name.endswith((".gz", ".zst")):
        name, packing = name.rsplit(".", 1)
    with path.open("rb") as file:
        if packing == "zst":
            file = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(file, read_across_frames=True)
        elif packing == "gz":
            file = gzip.GzipFile(fileobj=file)
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
        if not name.endswith((".jsonl", ".ndjson", ".json")):
            yield text.read()
            return
        for line in text:
            if line.strip():
                yield json.loads(line)["text"]


def sample(path, characters):
    """About `characters` characters of a file: the same share of every window of every document."""
    texts = list(documents(path))
    total = sum(map(len, texts))
    if total < characters:
        raise SystemExit(f"train_tokenizer: error: {path} has {total} characters, {characters} wanted")
    pieces = [
        text[begin : begin + round(min(WINDOW, len(text) - begin) * characters / total)]
        for text in texts
        for begin in range(0, len(text), WINDOW)
    ]
    print(f"{path.name}: {sum(map(len, pieces)):,} of {total:,} characters", file=sys.stderr)
    return pieces


def train(pieces, entries):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (BOS, EOS, PAD)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    if tokenizer.get_vocab_size() != entries:
        raise SystemExit(
            f"train_tokenizer: error: {tokenizer.get_vocab_size()} entries came out, {entries} wanted: give more text"
        )
    return tokenizer


def write(path, text):
    """The old file or the whole new one, also after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=source, metavar="FILE:CHARACTERS")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the two files")
    parser.add_argument("--entries", type=int, default=8192, help="vocabulary, special tokens included")
    arguments = parser.parse_args()
    tokenizer = train([piece for s in arguments.sources for piece in sample(*s)], arguments.entries)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write(arguments.out / "tokenizer_config.json", json.dumps(config, indent=2))


if __name__ == "__main__":
    main()
