"""The C++ tokenizer against the `tokenizers` library, for small tokenizers in the form of every family."""
import json
import random
import time
import unicodedata

import pytest
from transformers import PreTrainedTokenizerFast

from tokenizer_families import FAMILIES, FUSED, OTHER_SPECIAL, PLAIN_SPECIAL, save, words
from tokenizer_program import Program

TEXTS = [
    "", " ", "  ", "\n", "a", " a", "a ", "Hello, world!", "It's we'll I'M THEY'RE 'Tis 'ſ 's", "don''t",
    "the ringing of qu'ing bells, tiron 1234567 12.5e-3 ½ ٣٤٥ ⅷ",
    "def f(x):\n    if x >= 10:\n\t\treturn [x ** 2, {'a': 1}]  # note\n\n\nclass A:\r\n    pass\r\n",
    "emoji 😀👍🏽👩‍👩‍👧‍👦🇩🇪 and more 🙂🙂🙂", "中文，日本語のテスト。한국어 텍스트 語の語",
    "e\u0301 é o\u0308\u0323 \u0344 Å \u212b ﬁ ① ｶﾞ 각 \u1100\u1161\u11a8 \uf900", "مرحبا שלום नमस्ते ไทย",
    "runs:" + " " * 7 + "x" + "\t\t \t" + "\n \n  \n" + " " * 33 + "end   ",
    "\u00a0nbsp\u2003em\u3000wide\u0085nel\u200bzero\u180emvs\ufeff", "\x00\x01\x7f controls \x1b[0m",
    "▁low▁line ▁ a▁b  ▁▁", "<0x41> <0xE2><0x82><0xAC> <unk>", "http://a.b/c?d=e&f=%20 x_y-z@w.org #tag $12.30",
    "x" * 300 + " " + "the" * 200, "ÀÉÎ ΑΒΓ αβγς ДА да ß SS ǅ ŉ İ ı", "\U0001fbf9 \U00010d40 \U00031350 \u0897",
    "<s>a</s> b<s>", "<|begin|>x<|end|><|im_start|>user\nhi<|end|>", "  <pad>  <pad>x", "wordy words wordywordy xwordy, wordy",
    "<think>\n</think><thin", "<|user|> hi<|end|>\n<|endoftext|> <|plain|>  x<|user|>\n\n y", "<|<|end|>|> <|end|",
    "mixed the語のki да12ba 12語",
]
BROKEN = [
    b"\xff", b"a\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98 \xf0\x9f\x98\x80", b"\xed\xa0\x80",
    b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"ok \x80\x80 ok", b"\xe0\x80\x80", b"\xf1\x80\x80\xe4\xb8\xad",
]


@pytest.fixture(scope="module")
def program(build):
    running = Program(build / "tokenizer_driver")
    yield running
    running.close()


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, program, tmp_path_factory):
    """The library's tokenizer, with ours loaded from the same file."""
    made = FAMILIES[request.param]()
    old = request.param in ("mistral_v1", "gpt2")
    program("load", folder=str(save(made, tmp_path_factory.mktemp(request.param), old_merges=old)))
    return made


def fuzz_texts(seed, count):
    draw = random.Random(seed)
    alphabet = [chr(c) for c in range(0x20, 0x7F)] + list("\n\r\t   éßжの語한😀\u0301\u200d\u3000")
    pool = words(seed, 50) + TEXTS + OTHER_SPECIAL + PLAIN_SPECIAL + [" ", "\n", "'s", "1", "<pad>", "wordy"]
    for _ in range(count):
        yield "".join(draw.choice(pool) if draw.random() < 0.6 else draw.choice(alphabet)
                      for _ in range(draw.randint(1, 12)))


def check(pair, program, text):
    for special in (False, True):
        want = pair.encode(text, add_special_tokens=special).ids
        got = program.encode(text, special)
        assert got == want, repr(text)
    for skip in (False, True):
        decoded = pair.decode(want, skip_special_tokens=skip)
        assert program.decode(want, skip) == decoded, repr(text)
        pieces = program.stream(want, skip)
        assert "".join(pieces) == decoded, (repr(text), pieces)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts(pair, program, text):
    check(pair, program, text)


def test_fuzz(pair, program):
    for text in fuzz_texts(3, 400):
        check(pair, program, text)


@pytest.mark.parametrize("broken", BROKEN, ids=[b.hex() for b in BROKEN])
def test_broken_utf8(pair, program, broken):
    want = pair.encode(broken.decode(errors="replace")).ids
    assert program.encode(broken, True) == want


def test_random_ids_decode(pair, program):
    draw = random.Random(5)
    size = pair.get_vocab_size()
    for _ in range(300):
        ids = [draw.randrange(size) for _ in range(draw.randint(1, 20))] + [size + 7]
        for skip in (False, True):
            assert program.decode(ids, skip) == pair.decode(ids, skip_special_tokens=skip), ids


def test_byte_tokens_decode(pair, program):
    """Runs of bytes that form characters, in part or not at all."""
    draw = random.Random(6)
    ids = [pair.token_to_id(f"<0x{b:02X}>") for b in range(256)]
    if None in ids:
        from tokenizers import pre_tokenizers
        table = sorted(pre_tokenizers.ByteLevel.alphabet())
        ids = [pair.token_to_id(c) for c in table]
        if None in ids:
            ids = list(range(3, 200))
    for _ in range(300):
        run = [ids[b % len(ids)] for b in draw.choice(["中", "é", "😀", "a"]).encode()] * 2
        if draw.random() < 0.5:
            del run[draw.randrange(len(run))]
        run += draw.choices(ids, k=draw.randint(0, 3))
        assert program.decode(run) == pair.decode(run, skip_special_tokens=False), run


def test_vocabulary(pair, program, tmp_path):
    answer = program("load", folder=str(save(pair, tmp_path)))
    assert answer["vocab_size"] == max(pair.get_vocab().values()) + 1
    assert answer["bos"] is None and answer["eos"] is None


def test_stream_gives_characters_when_they_are_complete(program, tmp_path):
    made = FAMILIES["mistral_v1"]()
    program("load", folder=str(save(made, tmp_path)))
    ids = made.encode("a 😀 中", add_special_tokens=False).ids
    pieces = program.stream(ids)
    assert "".join(pieces) == "a 😀 中"
    assert "😀" in pieces and "中" in pieces and pieces[-1] == ""


@pytest.mark.parametrize("name", FUSED)
def test_fused_text_comes_as_it_is_decodable(program, tmp_path, name):
    made = FUSED[name]()
    program("load", folder=str(save(made, tmp_path)))
    ids = made.encode("word and words, then more of them. " * 10, add_special_tokens=False).ids
    pieces = program.stream(ids)
    assert "".join(pieces) == made.decode(ids)
    longest_wait = max(len(part) for part in "".join("." if piece else "-" for piece in pieces).split("."))
    assert longest_wait <= 3, pieces


def test_normal_forms(program, tmp_path):
    """Every code point alone, and sequences of marks, through the four Unicode forms."""
    draw = random.Random(7)
    characters = [chr(c) for c in range(0x30000) if not 0xD800 <= c < 0xE000]
    marks = [c for c in characters if unicodedata.combining(c)]
    bases = [c for c in characters if unicodedata.decomposition(c)] + list("aeio")
    clusters = ["".join([draw.choice(bases), *draw.choices(marks, k=draw.randint(1, 3))]) for _ in range(5000)]
    for name in ("qwen2", "nfd", "nfkc", "nfkd"):
        made = FAMILIES[name]()
        program("load", folder=str(save(made, tmp_path / name)))
        for units in (characters, clusters):
            text = "x".join(units)
            assert program.encode(text) == made.encode(text, add_special_tokens=False).ids, name


def test_config_tokens(program, tmp_path):
    made = FAMILIES["llama3"]()
    config = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>", "special": True}, "pad_token": None}
    answer = program("load", folder=str(save(made, tmp_path, config)))
    assert answer["bos"] == made.token_to_id("<|begin|>") and answer["eos"] == made.token_to_id("<|end|>")


END = {"content": "<|end|>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False}
ADDED = {"content": "<|late|>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
# Files beside tokenizer.json, in the forms that they have had.
BESIDE = {
    "config": {"tokenizer_config.json": {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": None}},
    "map": {"special_tokens_map.json": {"bos_token": "<|begin|>", "eos_token": END}},
    "map_over_config": {"tokenizer_config.json": {"bos_token": "<|im_start|>", "eos_token": "<|end|>"},
                        "special_tokens_map.json": {"bos_token": "<|begin|>"}},
    "map_beside_decoder": {"tokenizer_config.json": {"eos_token": "<|end|>", "added_tokens_decoder": {}},
                           "special_tokens_map.json": {"bos_token": "<|begin|>"}},
    "words": {"tokenizer_config.json": {"eos_token": "the", "pad_token": "<think>"}},
    "unknown": {"tokenizer_config.json": {"pad_token": "<P>", "unk_token": "<U>", "eos_token": "<E>",
                                          "image_token": "<I>", "additional_special_tokens": ["<X>", "<|end|>", "<Y>"]}},
    "extra": {"tokenizer_config.json": {"extra_special_tokens": {"audio_token": "<A>"}},
              "special_tokens_map.json": {"additional_special_tokens": ["<Z>"]}},
    "decoder": {"tokenizer_config.json": {"added_tokens_decoder": {
        "903": {**ADDED, "content": "<think>", "special": True}, "906": {**ADDED, "special": True}}}},
    "added": {"added_tokens.json": {"<|late|>": 906, "<later>": 907},
              "special_tokens_map.json": {"sep_token": "<|late|>"}},
}


@pytest.mark.parametrize("name", BESIDE)
def test_files_beside(program, tmp_path, name):
    """Special and added tokens as transformers finds them."""
    save(FAMILIES["llama3"](), tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    for file, content in BESIDE[name].items():
        (tmp_path / file).write_text(json.dumps(content))
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    answer = program("load", folder=str(tmp_path))
    assert (answer["bos"], answer["eos"]) == (theirs.bos_token_id, theirs.eos_token_id)
    assert answer["vocab_size"] == max(theirs.get_vocab().values()) + 1
    text = "a<think> b <|late|> <later>x<P><U><E><I><X><Y><Z><A> the end<|end|>  <|begin|>z"
    ids = program.encode(text)
    assert ids == theirs(text, add_special_tokens=False).input_ids
    for skip in (False, True):
        assert program.decode(ids, skip) == theirs._tokenizer.decode(ids, skip_special_tokens=skip)


def test_eos_of_the_model(program, tmp_path):
    """Where no tokenizer file names one, those of generation, then of the model."""
    save(FAMILIES["llama3"](), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert program("load", folder=str(tmp_path))["eos"] == 7
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 7]}))
    assert program("load", folder=str(tmp_path))["eos"] == 9
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "the"}))
    assert program("load", folder=str(tmp_path))["eos"] == FAMILIES["llama3"]().token_to_id("the")


@pytest.mark.parametrize("name", ["llama3", "mistral_v1", "mistral_v3"])
def test_long_texts_take_linear_time(program, tmp_path, name):
    """10 MB with an unbroken word of 100,000 characters, and 2 MB of white space."""
    made = FAMILIES[name]()
    program("load", folder=str(save(made, tmp_path)))
    draw = random.Random(8)
    prose = " ".join(draw.choices(words(), k=700_000))
    text = prose + " " + "".join(draw.choices("abingtelonqu", k=100_000)) + " " + prose
    start = time.monotonic()
    ids = program.encode(text)
    assert time.monotonic() - start < 60
    assert ids == made.encode(text, add_special_tokens=False).ids
    blank = " " * 1_000_000 + "x" + "\n \t" * 300_000
    start = time.monotonic()
    ids = program.encode(blank)
    assert time.monotonic() - start < 60
    assert program.decode(ids) == made.decode(ids)
