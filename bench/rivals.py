"""The implementations that are compared. Each is a small class:

name        as in the results; sparse: works on the lists, else on everything
causal      masks diagonal blocks; else it attends to them as a whole
missing()   why it cannot be used here at all ("" if it can): the package, say
can_run()   why it cannot run this shape, "" if it can
prepare()   layouts, masks, plans: none of it is timed
run()       what is timed
output()    run()'s result as (o [T, Hq, D], lse [Hq, T] or None)
"""
import functools
import importlib
import importlib.util
import os

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import block_lists
import timing
from cases import BLOCK

DTYPE = {"bf16": torch.bfloat16, "f16": torch.float16}


class Inputs:
    """q [T, Hq, D], k, v [S, Hk, D], drawn from N(0, 1), and other layouts of the same values."""

    def __init__(self, shape, device, seed=0):
        generator = torch.Generator(device).manual_seed(seed)
        draw = lambda length, heads: torch.randn(length, heads, shape.head_dim, device=device, generator=generator,
                                                 dtype=DTYPE[shape.dtype])
        self.q = draw(shape.len_q, shape.heads_q)
        self.k, self.v = draw(shape.len_k, shape.heads_kv), draw(shape.len_k, shape.heads_kv)

    @functools.cached_property
    def heads_first(self):
        """q, k, v as [1, H, tokens, D], contiguous."""
        return tuple(x.transpose(0, 1).contiguous().unsqueeze(0) for x in (self.q, self.k, self.v))

    @functools.cached_property
    def repeated(self):
        """The same with K and V copied for every query head."""
        q, k, v = self.heads_first
        return q, *(x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))


class Implementation:
    sparse, causal = False, True
    module = ""   # what has to be importable
    install = ""  # how to get it

    def __init__(self, shape):
        self.shape, self.note = shape, ""

    @classmethod
    @functools.cache
    def missing(cls):
        if not cls.module:
            return ""
        if not importlib.util.find_spec(cls.module.split(".")[0]):
            return f"not installed ({cls.install})"
        try:
            importlib.import_module(cls.module)
        except Exception as error:  # a package that does not fit this torch or CUDA, or lacks one itself
            return f"not usable ({one_line(error)})"
        return ""

    @classmethod
    def version(cls):
        if not cls.module:
            return "part of torch"
        return getattr(importlib.import_module(cls.module.split(".")[0]), "__version__", "of unknown version")

    def can_run(self):
        return ""

    def fastest(self, choices, choose):
        """The choice whose run, after choose(choice), takes the least time. One that fails is left out."""
        seconds, failed = {}, None
        for choice in choices:
            try:
                choose(choice)
                seconds[choice] = min(timing.warm_up(self.run)[0] for _ in range(3))
            except Exception as error:  # a choice that does not fit the chip
                failed = error
                print(f"  {self.name} with {choice}: {one_line(error)}")
        if not seconds:
            raise failed
        return min(seconds, key=seconds.get)

    def output(self, result):
        return result.squeeze(0).transpose(0, 1), None


class Seer(Implementation):
    name, sparse = "seer", True

    def prepare(self, inputs, lists):
        cu = lists.packing.cu()[:3]
        self.args = (inputs.q, inputs.k, inputs.v, *cu, *lists[:3], BLOCK, self.shape.scale, True)

    def run(self):
        return torch.ops.seer.block_sparse_attn(*self.args)

    def output(self, result):
        return result


class Sdpa(Implementation):
    """torch's scaled_dot_product_attention, dense. Grouped heads through enable_gqa where the backend takes it,
    else K and V repeated beforehand; `note` says which."""
    backend = None

    def prepare(self, inputs, lists):
        self.scale, self.inputs, self.gqa = self.shape.scale, inputs.heads_first, {}
        if self.shape.heads_q != self.shape.heads_kv:
            self.gqa, self.note = {"enable_gqa": True}, "enable_gqa"
            try:
                self.run()
            except RuntimeError:
                self.inputs, self.gqa, self.note = inputs.repeated, {}, "K, V repeated"

    def run(self):
        with sdpa_kernel(self.backend):
            return torch.nn.functional.scaled_dot_product_attention(*self.inputs, is_causal=True, scale=self.scale,
                                                                    **self.gqa)


class Flash2(Sdpa):
    name, backend = "torch FlashAttention-2", SDPBackend.FLASH_ATTENTION

    def run(self):
        if self.shape.offset == 0:
            return super().run()
        from torch.nn.attention.bias import causal_lower_right
        with sdpa_kernel(self.backend):  # is_causal would mean the upper left here
            return torch.nn.functional.scaled_dot_product_attention(
                *self.inputs, attn_mask=causal_lower_right(self.shape.len_q, self.shape.len_k), scale=self.scale,
                **self.gqa)


class Cudnn(Sdpa):
    name, backend = "torch cuDNN", SDPBackend.CUDNN_ATTENTION

    def can_run(self):
        return "torch gives cuDNN no causal mask with an offset" if self.shape.offset else ""


class Flex(Implementation):
    """torch.compile'd flex_attention on the same 64 x 64 lists, compiled anew for each shape."""
    name, sparse = "FlexAttention", True
    # (num_warps, num_stages). Default tiles of 128 queries do not fit blocks of 64. `tune` tries all, once for each
    # head size and dtype.
    choices, tune, best = ((4, 3), (4, 2), (8, 2), (8, 3)), False, {}
    mask_mod = staticmethod(functools.cache(block_lists.causal_mask_mod))

    @staticmethod
    @functools.cache
    def compiled():
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # one kernel each: no pool of processes
        from torch.nn.attention.flex_attention import flex_attention
        torch._dynamo.config.recompile_limit = 1024
        torch._dynamo.config.accumulated_recompile_limit = 4096
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # never the slow path without saying so
        return torch.compile(flex_attention, dynamic=False, fullgraph=True)

    def prepare(self, inputs, lists):
        s = self.shape
        self.inputs = inputs.heads_first
        self.mask = lists.to_flex(s.heads_q, self.mask_mod(s.offset * BLOCK), with_backward=False)
        key = s.head_dim, s.dtype
        if self.tune and key not in self.best:
            self.best[key] = self.fastest(self.choices, self.choose)
        self.choose(self.best.get(key, self.choices[0]))

    def choose(self, choice):
        warps, stages = choice
        self.note = f"{warps} warps, {stages} stages"
        # Every row keeps its diagonal, so no row is empty.
        self.options = {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": warps, "num_stages": stages,
                        "ROWS_GUARANTEED_SAFE": True}

    def run(self):
        return self.compiled()(*self.inputs, block_mask=self.mask, scale=self.shape.scale,
                               enable_gqa=self.shape.heads_q != self.shape.heads_kv, kernel_options=self.options)


class FlashAttn(Implementation):
    """The flash-attn package, dense; grouped heads and the offset are its own."""
    name, module, install = "flash-attn", "flash_attn", "pip install flash-attn"

    def prepare(self, inputs, lists):
        self.inputs = tuple(x.unsqueeze(0) for x in (inputs.q, inputs.k, inputs.v))

    def run(self):
        from flash_attn import flash_attn_func
        return flash_attn_func(*self.inputs, softmax_scale=self.shape.scale, causal=True)

    def output(self, result):
        return result.squeeze(0), None


class FlashAttn3(FlashAttn):
    name, module, install = "flash-attn 3", "flash_attn_interface", "built from hopper/ of flash-attention's sources"

    def run(self):
        from flash_attn_interface import flash_attn_func
        result = flash_attn_func(*self.inputs, softmax_scale=self.shape.scale, causal=True)
        return result[0] if isinstance(result, tuple) else result


class FlashInfer(Implementation):
    """FlashInfer's VariableBlockSparseAttentionWrapper: one map for each kv head, keys gathered token by token.

    Its causal rule counts in gathered keys from the end. That is the true one, for each row's last block is the
    diagonal. Where query heads of a group have lists of their own, K and V are repeated beforehand. By itself it takes
    fa3 on Hopper, whose tiles of 128 queries are half empty here: fa2 is tried too, once for each kind of shape.
    """
    name, sparse, module, install = "FlashInfer", True, "flashinfer", "pip install flashinfer-python"
    backends, best = ("fa3", "fa2"), {}

    def prepare(self, inputs, lists):
        s, heads = self.shape, lists.count.shape[0]
        if lists.listed * BLOCK >= 2 ** 29:
            raise RuntimeError(f"its plan would hold {lists.listed * BLOCK} int32 indices")
        own = heads == s.heads_kv
        self.inputs = tuple(x.squeeze(0) for x in (inputs.heads_first if own else inputs.repeated))
        plan = functools.partial(self.plan, lists)
        key = s.head_dim, s.dtype, s.heads_q // heads
        if key not in self.best:
            self.best[key] = self.fastest(self.backends, plan)
        plan(self.best[key])
        self.note = self.best[key] + ("" if own else ", K, V repeated")

    @staticmethod
    @functools.cache
    def workspace(device):
        """For partial results of a run, so that all plans can share it."""
        return torch.empty(512 << 20, dtype=torch.uint8, device=device)

    def plan(self, lists, backend):
        from flashinfer.sparse import VariableBlockSparseAttentionWrapper
        s, heads, device = self.shape, lists.count.shape[0], lists.list.device
        sizes = lambda n: torch.full((heads, n), BLOCK, dtype=torch.int32, device=device)
        self.wrapper = VariableBlockSparseAttentionWrapper(self.workspace(device), backend=backend)
        self.wrapper.plan(lists.to_mask()[0], sizes(s.rows), sizes(s.blocks), s.heads_q, heads,
                          s.head_dim, causal=True, sm_scale=s.scale, q_data_type=DTYPE[s.dtype])

    def run(self):
        return self.wrapper.run(*self.inputs)

    def output(self, result):
        return result.transpose(0, 1), None


class CudnnBlockSparse(Implementation):
    """The block-sparse forward of nvidia-cudnn-frontend: for Hopper, written for blocks of 64.

    It has no causal rule: the diagonal blocks count as a whole, as many blocks and no masking. It can split long lists
    over the keys, so that K and V of a split fit into L2; its own choice for lists of one length is tried beside 1.
    """
    name, sparse, causal = "cuDNN block-sparse", True, False
    module, install = "cudnn.block_sparse_attention", "pip install nvidia-cudnn-frontend"

    def can_run(self):
        return "" if self.shape.head_dim in (64, 96, 128) else "it has D 64, 96 and 128"

    def prepare(self, inputs, lists):
        self.inputs = inputs.heads_first
        count, table = lists.per_query_head(self.shape.heads_q).padded()
        self.lists = {"q2k_block_index": table[None], "q2k_block_nums": count[None]}
        choices = {1, self.splits_for_l2()}
        self.choose(self.fastest(choices, self.choose) if len(choices) > 1 else 1)

    def splits_for_l2(self):
        """As nvidia-cudnn-frontend's kv_splits="auto", which takes 1 where counts differ between rows; 4 at most."""
        s = self.shape
        of_head, l2 = 2 * s.len_k * s.head_dim * 2, torch.cuda.get_device_properties().L2_cache_size
        splits = 1
        while of_head > splits * l2 * 3 // 4 and splits < 4:
            splits *= 2
        return splits

    def choose(self, splits):
        self.splits, self.note = splits, "no causal mask" + (f", {splits} splits" if splits > 1 else "")

    def run(self):
        from cudnn.block_sparse_attention import block_sparse_attention_forward
        return block_sparse_attention_forward(*self.inputs, **self.lists, sparse_block_size=BLOCK,
                                              softmax_scale=self.shape.scale, kv_splits=self.splits)

    def output(self, result):
        return result["o_tensor"].squeeze(0).transpose(0, 1), result["lse_tensor"].squeeze(0)


ALL = (Seer, Flash2, Cudnn, Flex, FlashAttn, FlashAttn3, FlashInfer, CudnnBlockSparse)


def one_line(error):
    """An exception as a reason: its kind and first lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:2]])[:300]
