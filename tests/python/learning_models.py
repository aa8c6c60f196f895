"""Small models whose gates learn, and what they read: of the tests of distillation and of fine-tuning."""
import pytest
import torch

import seer
from model_families import create, load, token_ids

BLOCK = 16
ROWS = [token_ids(150)[0, begin:begin + 100] for begin in range(0, 50, 10)]


@pytest.fixture
def model(tmp_path):
    """A llama of 3 layers whose gates learn in passes with gradients."""
    model = seer.attach(create("llama3_rope_tied", tmp_path), seer.GateConfig(block_size=BLOCK), 0.5, train_gates=True)
    for layer in model.seer.layers:
        torch.nn.init.normal_(layer.attn_gate.mask_linear_k.weight, std=0.3)
    return model


def gates_of(model):
    return {name: x for name, x in model.named_parameters() if "attn_gate" in name}


def begin(folder):
    """A saved model with new gates."""
    return seer.attach(load(folder), seer.GateConfig(block_size=BLOCK), 0.5, seed=3)
