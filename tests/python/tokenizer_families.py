"""Small tokenizers in the form of every supported family, trained on generated text."""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
NEMO = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PHI4 = LLAMA3.replace(r"\s*[\r\n]+|", r"\s*[\r\n]|")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
          r"|\s+(?!\S)|\s")
GPT4O = NEMO.replace("]+|[^", "]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^").replace(r"\p{N}|", r"\p{N}{1,3}|")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]
PLAIN_SPECIAL = ["<unk>", "<s>", "</s>"]
OTHER_SPECIAL = ["<|begin|>", "<|end|>", "<|im_start|>"]


def words(seed=0, count=4000):
    """Words of made-up syllables, so that no text of others is needed."""
    draw = random.Random(seed)
    parts = ["ba", "ti", "ron", "the", "in", "qu", "ed", "ing", "er", "lo", "mé", "ß", "ки", "да", "の", "語", "한", "12"]
    return ["".join(draw.choices(parts, k=draw.randint(1, 4))) for _ in range(count)]


def training_text():
    draw = random.Random(1)
    marks = [" ", " ", " ", " ", ", ", ". ", "\n", "\n\n", "  ", " (", ") ", "'s ", "\t", " = ", "\r\n", "'ll "]
    return ["".join(w.capitalize() + m if draw.random() < 0.2 else w + m
                    for w, m in zip(words(), draw.choices(marks, k=4000)))]


def byte_level(split=None, normalizer=None, behavior="isolated", invert=False, ignore_merges=False,
               prefix_space=False, digits=False, bos=None, eos=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    for pattern in [split] if isinstance(split, str) else split or []:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior, invert=invert))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=split is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(training_text(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in OTHER_SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("wordy", single_word=True),
                          AddedToken("<pad>", lstrip=True, rstrip=True, normalized=False)])
    single = (f"{bos} " if bos else "") + "$A" + (f" {eos}" if eos else "")
    template = processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in (bos, eos) if t])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def sentence_piece(metaspace=None, added=(), fuse_unk=True, decoder_strip=1, complete=True):
    """A vocabulary as SentencePiece has it: <unk>, <s>, </s>, 256 bytes, pieces with ▁ for the space."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator([w for w in training_text()[0].split("\n")],
                                trainers.BpeTrainer(vocab_size=700, show_progress=False))
    state = json.loads(trained.to_str())["model"]
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)] if complete else []
    vocab = {}
    for token in PLAIN_SPECIAL + byte_tokens + sorted(state["vocab"], key=state["vocab"].get):
        vocab.setdefault(token, len(vocab))
    # Runs of spaces are tokens, too, as in the published vocabularies.
    merges = [tuple(m) for m in state["merges"]]
    for left, right in (("▁", "▁"), ("▁▁", "▁▁"), ("▁▁▁▁", "▁▁▁▁")):
        vocab.setdefault(left + right, len(vocab))
        merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=complete, fuse_unk=fuse_unk))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", **metaspace)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if decoder_strip:
        steps.append(decoders.Strip(" ", decoder_strip, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in PLAIN_SPECIAL])
    tokenizer.add_tokens(list(added))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


def phi3_added():
    return ([AddedToken("<|endoftext|>", special=True, normalized=False)] +
            [AddedToken(t, special=True, rstrip=True, normalized=False) for t in ("<|user|>", "<|end|>")] +
            [AddedToken("<|plain|>", normalized=True)])


def metaspace_decoder():
    tokenizer = sentence_piece(metaspace=dict(prepend_scheme="always", split=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "always")])
    return tokenizer


def decoded_by(make, *steps):
    """A tokenizer with another decoder."""
    tokenizer = make()
    tokenizer.decoder = decoders.Sequence(list(steps))
    return tokenizer


# Decoders that fuse tokens first, so that all later steps see one long token in pieces.
FUSED = {
    "fuse_replace_byte_level": lambda: decoded_by(
        lambda: byte_level(LLAMA3), decoders.Fuse(), decoders.Replace("the", "THE"), decoders.ByteLevel()),
    "fuse_replace_pieces": lambda: decoded_by(
        lambda: sentence_piece(decoder_strip=0), decoders.Fuse(), decoders.Replace("▁", " "), decoders.ByteLevel()),
    "byte_level_regex": lambda: decoded_by(
        lambda: byte_level(QWEN2), decoders.ByteLevel(), decoders.Replace(Regex(r"(?<=a)b|\s+$|on(?!g)|^ti"), "<>"),
        decoders.Strip("e", 1, 0)),
    "fuse_metaspace": lambda: decoded_by(
        lambda: sentence_piece(decoder_strip=0), decoders.Fuse(), decoders.Metaspace("▁", "never"),
        decoders.Strip("x", 3, 0)),
    "fuse_bytes": lambda: decoded_by(
        lambda: sentence_piece(decoder_strip=0), decoders.Fuse(), decoders.ByteFallback(), decoders.Replace("▁", " ")),
}

FAMILIES = {
    **FUSED,
    "llama3": lambda: byte_level(LLAMA3, ignore_merges=True, bos="<|begin|>"),
    "qwen2": lambda: byte_level(QWEN2, normalizers.NFC()),
    "nemo": lambda: byte_level(NEMO, bos="<|begin|>", eos="<|end|>"),
    "phi4": lambda: byte_level(PHI4, behavior="removed", invert=True),
    "cl100k": lambda: byte_level(CL100K),
    "gpt4o": lambda: byte_level(GPT4O),
    "deepseek": lambda: byte_level(DEEPSEEK, normalizers.Sequence([])),
    "gpt2": lambda: byte_level(prefix_space=True, digits=True),
    "nfkc": lambda: byte_level(r"\s+", normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()]),
                               behavior="merged_with_previous"),
    "nfd": lambda: byte_level("e", normalizers.NFD(), behavior="contiguous"),
    "nfkd": lambda: byte_level(r"\w+", normalizers.NFKD(), behavior="merged_with_next"),
    "mistral_v1": lambda: sentence_piece(),
    "mistral_v3": lambda: sentence_piece(dict(prepend_scheme="first", split=False)),
    "phi3": lambda: sentence_piece(added=phi3_added()),
    "metaspace_split": lambda: sentence_piece(dict(prepend_scheme="always", split=True), decoder_strip=0),
    "metaspace_never": lambda: sentence_piece(dict(prepend_scheme="never", split=False), decoder_strip=2),
    "metaspace_decoder": metaspace_decoder,
    "unknown_fused": lambda: sentence_piece(complete=False),
    "unknown_single": lambda: sentence_piece(complete=False, fuse_unk=False),
}


def save(tokenizer, folder, config=None, old_merges=False):
    """tokenizer.json and tokenizer_config.json; `old_merges` writes "a b" as older files do."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = json.loads(tokenizer.to_str())
    if old_merges:
        state["model"]["merges"] = [" ".join(m) for m in state["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config or {}), encoding="utf-8")
    return folder
