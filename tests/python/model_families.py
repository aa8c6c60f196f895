"""Small random models of every supported family, and folders that the installed transformers writes of them.

As a program: makes the folder of each model named, with the ids of a text and the logits that this transformers has
for it.   python model_families.py FOLDER NAME...
"""
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Phi3Config, Qwen2Config, Qwen3Config

SMALL = dict(
    vocab_size=160, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    initializer_range=0.2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LONG = dict(short_factor=[1.0 + 0.05 * i for i in range(8)], long_factor=[1.0 + 0.9 * i for i in range(8)])
PARTIAL = dict(short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[1.0, 2.0, 3.0, 5.0, 8.0, 13.0])


def config(cls, **settings):
    return cls(**{**SMALL, **settings})


MODELS = {
    "llama3_rope_tied": config(LlamaConfig, rope_scaling=LLAMA3, tie_word_embeddings=True),
    "llama_bias_head_dim": config(LlamaConfig, head_dim=24, attention_bias=True, mlp_bias=True),
    "llama_no_gqa": config(LlamaConfig, num_key_value_heads=4, rope_theta=500000.0),
    "llama_linear": config(LlamaConfig, rope_scaling=dict(type="linear", factor=4.0)),
    "llama_dynamic_grown": config(LlamaConfig, max_position_embeddings=64,
                                  rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama_dynamic_short": config(LlamaConfig, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    "llama_yarn": config(LlamaConfig, rope_scaling=dict(rope_type="yarn", factor=4.0,
                                                        original_max_position_embeddings=128)),
    "llama_yarn_same_lengths": config(LlamaConfig, rope_scaling=dict(rope_type="yarn", factor=4.0,
                                                                     original_max_position_embeddings=512)),
    "mistral": config(MistralConfig, sliding_window=None, head_dim=32),
    "mistral_window": config(MistralConfig, sliding_window=37),
    "qwen2": config(Qwen2Config),
    "qwen2_tied_yarn": config(Qwen2Config, tie_word_embeddings=True,
                              rope_scaling=dict(type="yarn", factor=2.0)),
    "qwen2_window_layers": config(Qwen2Config, use_sliding_window=True, sliding_window=37, max_window_layers=1),
    "qwen3": config(Qwen3Config, head_dim=32),
    "qwen3_bias": config(Qwen3Config, head_dim=16, attention_bias=True),
    "phi3": config(Phi3Config),
    "phi3_window": config(Phi3Config, sliding_window=50),
    "phi3_longrope_short": config(Phi3Config, original_max_position_embeddings=256,
                                  rope_scaling=dict(type="longrope", **LONG)),
    "phi3_longrope_long": config(Phi3Config, original_max_position_embeddings=100,
                                 rope_scaling=dict(type="longrope", **LONG)),
    "phi4_mini": config(Phi3Config, partial_rotary_factor=0.75, tie_word_embeddings=True,
                        original_max_position_embeddings=100,
                        rope_scaling=dict(type="longrope", **PARTIAL)),
}
LENGTH = 150  # tokens: not a multiple of anything, longer than the windows and than the short contexts
DTYPE = "dtype" if transformers.__version__.startswith("5.") else "torch_dtype"


def randomise(model):
    """transformers starts biases at 0 and norms at 1, which would hide that they are left out."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, **{DTYPE: dtype}).eval()


def create(name, folder, dtype=torch.float32, **save):
    torch.manual_seed(sorted(MODELS).index(name))
    model = AutoModelForCausalLM.from_config(MODELS[name]).eval()
    randomise(model)
    model.to(dtype).save_pretrained(folder, **save)
    # The configuration objects of transformers keep what they were given: read back what was written.
    return load(folder, dtype)


def token_ids(length=LENGTH):
    return torch.randint(3, SMALL["vocab_size"], (1, length), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def main():
    folder = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:]:
        model, ids = create(name, folder / name), token_ids()
        (folder / name / "ids.json").write_text(json.dumps(ids[0].tolist()))
        save_file({"logits": model(ids).logits[0]}, folder / name / "expected.safetensors")


if __name__ == "__main__":
    main()
