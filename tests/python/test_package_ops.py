"""The functions of the package seer: plain and packed tensors, lists and their other forms, gradients, torch.compile, autocast,
and what is said of wrong arguments."""
import json
import math
import re
import subprocess
import sys

import pytest
import torch

import seer
from conftest import BUILD, PACKAGE_PATH, ROOT

ops = torch.ops.seer
B, T, HQ, HK, D, BLOCK = 2, 75, 4, 2, 32, 16


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(tokens=T, keys=None, dtype=torch.float32, batch=B):
    draw = lambda n, heads: torch.randn(batch, n, heads, D).to(dtype)
    return draw(tokens, HQ), draw(keys or tokens, HK), draw(keys or tokens, HK)


def random_lists(packing, heads=HQ):
    visible = packing.visible()
    mask = (torch.rand(heads, *visible.shape) < 0.4) & visible
    mask[:, torch.arange(len(visible)), visible.sum(1) - 1] = True
    return seer.BlockLists.from_mask(packing.split_rows(mask), packing)


def plain_packing(tokens=T, keys=None):
    return seer.Packing.of_batch(B, tokens, keys, BLOCK)


def expected(q, k, v, lists, causal=True):
    """Plain torch in f64 of plain tensors."""
    packing = lists.packing
    mask = lists.per_query_head(HQ).to_mask()
    i, j = torch.arange(q.shape[1]), torch.arange(k.shape[1])
    keep = mask[:, :, i // packing.block_q][..., j // packing.block]
    if causal:
        keep = keep & (j <= i[:, None] + k.shape[1] - q.shape[1])
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(HQ // HK, 1) for x in (k, v))
    scores = (q @ k.mT / math.sqrt(D)).masked_fill(~keep, -math.inf)
    return (scores.softmax(-1).nan_to_num(0) @ v).transpose(1, 2), scores.logsumexp(-1)


def close(got, want, limit=1e-5):
    torch.testing.assert_close(got.double(), want.double(), rtol=limit, atol=limit)


def gate(dim=D):
    made = seer.Gate(seer.GateConfig(block_size=BLOCK), HQ, HK, dim)
    made.mask_linear_k.weight.data.mul_(10)
    return made


def angles(packing):
    return seer.block_angles(1 / 10000 ** (torch.arange(0, D, 2) / D), packing)


# ---- Sequences and lists -------------------------------------------------------------------------


def test_packings_of_all_kinds_are_equal():
    made = seer.Packing.from_lengths([40, 0, 70], [50, 20, 70], 32, 16)
    assert made.cu_q.tolist() == [0, 40, 40, 110] and made.cu_k.tolist() == [0, 50, 70, 140]
    assert made.cu_rows.tolist() == [0, 3, 3, 8] and made.cu_blocks.tolist() == [0, 2, 3, 6]
    assert (made.num_rows, made.total_blocks, made.num_blocks) == (8, 6, 3)
    assert all(x.dtype == torch.int32 and x.is_contiguous() for x in made.cu())
    again = seer.Packing.from_cu_seqlens(torch.tensor([0, 40, 40, 110]), torch.tensor([0, 50, 70, 140]), 32, 16)
    assert all(torch.equal(x, y) for x, y in zip(made.cu(), again.cu())) and again[:2] == made[:2]
    batch, same = seer.Packing.of_batch(3, 40, 50, 32, 16), seer.Packing.from_lengths([40] * 3, [50] * 3, 32, 16)
    assert all(torch.equal(x, y) for x, y in zip(batch.cu(), same.cu())) and batch.is_batch and not same.is_batch
    moved = batch.with_blocks(16)
    assert (moved.block, moved.block_q, moved.is_batch) == (16, 16, True)
    assert torch.equal(moved.cu_blocks, seer.Packing.of_batch(3, 40, 50, 16).cu_blocks)


@pytest.mark.parametrize("q_lens,k_lens,block,block_q", [
    ([75], [75], 16, 16), ([40, 1, 0], [60, 9, 5], 16, 16), ([65, 3], [150, 3], 64, 1), ([33], [20], 16, 16)])
def test_visible_blocks(q_lens, k_lens, block, block_q):
    packing = seer.Packing.from_lengths(q_lens, k_lens, block, block_q)
    want = torch.zeros(packing.num_rows, packing.num_blocks, dtype=torch.bool)
    for b, (nq, nk) in enumerate(zip(q_lens, k_lens)):
        for i in range(nq):
            want[int(packing.cu_rows[b]) + i // block_q, :max(0, (i + nk - nq) // block + 1)] = True
    assert torch.equal(packing.visible(), want)


@pytest.mark.parametrize("heads", [HQ, HK])
def test_lists_to_mask_and_back(heads):
    packed = seer.Packing.from_lengths([40, 0, 70], [50, 20, 70], BLOCK)
    for packing in (packed, plain_packing()):
        lists = random_lists(packing, heads)
        mask = lists.to_mask()
        again = seer.BlockLists.from_mask(mask, packing)
        assert all(torch.equal(x, y) for x, y in zip(lists[:3], again[:3]))
        count, table = lists.padded()
        for row, (begin, n) in enumerate(zip(lists.begin.flatten().tolist(), lists.count.flatten().tolist())):
            blocks = lists.list[begin:begin + n].tolist()
            assert blocks == sorted(set(blocks)) == packing.join_rows(mask).flatten(0, 1)[row].nonzero().flatten().tolist()
            assert table.flatten(0, 1)[row].tolist() == blocks + [0] * (table.shape[2] - n)
        assert lists.density() == int(mask.sum()) / int(packing.visible().sum()) / heads
        assert torch.equal(lists.per_query_head(2 * heads).to_mask(), mask.repeat_interleave(2, -3))


def test_a_mask_without_a_packing_has_whole_blocks():
    mask = torch.ones(B, HQ, 3, 5, dtype=torch.bool)
    packing = seer.BlockLists.from_mask(mask, block=BLOCK).packing
    assert (packing.q_lens, packing.k_lens, packing.block) == ((48,) * B, (80,) * B, BLOCK)


def test_selected_lists_have_gaps_that_compact_closes():
    scores = torch.randn(B, HQ, 5, 5)
    lists = seer.select_blocks(scores, 0.5, plain_packing())
    assert (lists.list == -1).any()
    packed = lists.compact()
    assert packed.list.numel() == lists.listed and torch.equal(packed.to_mask(), lists.to_mask())
    assert packed.compact() is packed


@pytest.mark.parametrize("tokens,keys", [(T, T), (40, 100)])
@pytest.mark.parametrize("heads", [HQ, HK])
def test_flex_attention_of_the_same_blocks(tokens, keys, heads):
    from torch.nn.attention.flex_attention import flex_attention
    lists = random_lists(plain_packing(tokens, keys), heads)
    mask = lists.to_flex(HQ)
    assert torch.equal(mask.to_dense().bool(), lists.per_query_head(HQ).to_mask())
    again = seer.BlockLists.from_flex(mask)
    assert torch.equal(again.to_mask(), lists.per_query_head(HQ).to_mask()) and again.packing[:2] == lists.packing[:2]
    q, k, v = inputs(tokens, keys)
    theirs = flex_attention(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask, enable_gqa=True)
    close(seer.block_sparse_attention(q, k, v, lists), theirs.transpose(1, 2))


# ---- Functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [HQ, HK])
@pytest.mark.parametrize("tokens,keys", [(T, T), (40, 100)])
def test_attention_of_plain_and_packed_tensors(heads, tokens, keys):
    q, k, v = inputs(tokens, keys)
    lists = random_lists(plain_packing(tokens, keys), heads)
    o, lse = seer.block_sparse_attention(q, k, v, lists, return_lse=True)
    want_o, want_lse = expected(q, k, v, lists)
    close(o, want_o)
    close(lse, want_lse)
    packing = seer.Packing.from_lengths([tokens] * B, [keys] * B, BLOCK)
    packed = seer.BlockLists(*lists[:3], packing)
    o_packed, lse_packed = seer.block_sparse_attention(*(x.flatten(0, 1) for x in (q, k, v)), packed, return_lse=True)
    assert torch.equal(o_packed.view(o.shape), o) and torch.equal(lse_packed.view(HQ, B, tokens).transpose(0, 1), lse)
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(seer.block_sparse_attention(*heads_first, lists), o)


@pytest.mark.parametrize("heads", [HQ, HK])
def test_gradients(heads):
    lists = random_lists(plain_packing(), heads)
    tensors = [x.requires_grad_() for x in inputs()]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    weights = torch.randn(B, T, HQ, D)
    got = torch.autograd.grad(seer.block_sparse_attention(*tensors, lists), tensors, weights)
    want = torch.autograd.grad(expected(*exact, lists)[0], exact, weights.double())
    for x, y in zip(got, want, strict=True):
        close(x, y)


def test_gradients_in_float64():
    lists = random_lists(seer.Packing.of_batch(1, 20, 33, BLOCK), HK)
    tensors = [x[..., :4].double().requires_grad_() for x in inputs(20, 33, batch=1)]
    assert torch.autograd.gradcheck(lambda *x: seer.block_sparse_attention(*x, lists), tensors, fast_mode=True)


def test_pooled_attention():
    q, k, v = inputs()
    o, lse, pooled = seer.pooled_attention(q, k, v, block=BLOCK)
    every = seer.BlockLists.from_mask(plain_packing().split_rows(plain_packing().visible()[None].expand(HQ, -1, -1)), plain_packing())
    want_o, want_lse = expected(q, k, v, every)
    close(o, want_o)
    close(lse, want_lse)
    assert pooled.shape == (B, HQ, 5, 5)
    cu = torch.tensor([0, T, 2 * T])
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    o_packed, _, map_packed = seer.pooled_attention(*flat, cu, block=BLOCK)
    assert torch.equal(o_packed.view(o.shape), o) and torch.equal(map_packed.view(HQ, B, 5, 5).transpose(0, 1), pooled)
    rows = seer.pooled_attention(q, k, v, block=BLOCK, block_q=1, group_max=True, normalise=True)[2]
    assert rows.shape == (B, HK, T, 5)
    close(rows.sum(-1), torch.ones(B, HK, T))
    # The lists of the map's best blocks, all of them: dense attention again.
    lists = seer.select_blocks(pooled.log(), 0.0, plain_packing())
    close(seer.block_sparse_attention(q, k, v, lists), want_o)


@pytest.mark.parametrize("settings", [{}, dict(group_max=True, normalise=True, block_q=1), dict(scale=0.3, causal=False)])
@pytest.mark.parametrize("tokens,keys", [(T, T), (40, 100)])
def test_pooled_map_is_pooled_attention_without_values(settings, tokens, keys):
    q, k, v = inputs(tokens, keys)
    lse, pooled = seer.pooled_map(q, k, block=BLOCK, **settings)
    _, want_lse, want = seer.pooled_attention(q, k, v, block=BLOCK, **settings)
    assert lse.shape == (B, HQ, tokens) and pooled.shape == want.shape
    close(lse, want_lse)
    close(pooled, want)
    packing = seer.Packing.from_lengths([tokens] * B, [keys] * B)
    packed_lse, packed = seer.pooled_map(q.flatten(0, 1), k.flatten(0, 1), packing, BLOCK, **settings)
    assert torch.equal(packed_lse.view(HQ, B, tokens).transpose(0, 1), lse)
    assert torch.equal(packed.view(len(packed), B, *pooled.shape[2:]).transpose(0, 1), pooled)
    run = lambda q, k: seer.pooled_map(q, k, block=BLOCK, **settings)
    assert all(map(torch.equal, torch.compile(run, fullgraph=True, backend="aot_eager")(q, k), (lse, pooled)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(q, k)[1], run(q.bfloat16(), k.bfloat16())[1])


@pytest.mark.parametrize("rule,limit", [("nz_ratio", {"sparsity": 0.6}), ("head_budget", {"sparsity": 0.6}), ("threshold", {"strength": 0.3}),
                                        ("top_p", {"strength": [0.5, 0.6, 0.7, 0.8]}), ("row_budget", {"strength": 32})])
def test_attention_is_its_steps_and_the_op(rule, limit):
    q, k, v = inputs()
    own = gate()
    vectors = own(q, k, *angles(plain_packing()))
    scores = seer.gate_scores(vectors)
    assert scores.shape == (B, HQ, 5, 5)
    forced = dict(sink_blocks=1, local_blocks=1, last_dense_rows=1)
    lists = seer.select_blocks(scores, packing=vectors.packing, rule=rule, **limit, **forced)
    want = seer.block_sparse_attention(q, k, v, lists)
    o, chosen = seer.attention(q, k, v, vectors, rule=rule, return_lists=True, **limit, **forced)
    assert torch.equal(o, want) and all(torch.equal(x, y) for x, y in zip(chosen[:3], lists[:3]))
    assert 0 < lists.density() < 1
    close(o, expected(q, k, v, lists)[0])
    # The same sequences, packed.
    packing = seer.Packing.from_lengths([T] * B, block=BLOCK)
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    packed = own(*flat[:2], *angles(packing), packing)
    assert torch.equal(packed.q, vectors.q) and torch.equal(packed.k, vectors.k)
    assert torch.equal(seer.attention(*flat, packed, rule=rule, **limit, **forced).view(o.shape), o)


@pytest.mark.parametrize("type", ["Qavg_Kmaxminavg", "Qmaxavg_Kavg", "Qmin_Kmaxmin"])
def test_gate_with_and_without_gradients(type):
    own = seer.Gate(seer.GateConfig(type=type, block_size=BLOCK), HQ, HK, D)
    q, k, _ = inputs()
    plain = own(q, k, *angles(plain_packing()))
    for parameter in own.parameters():
        parameter.requires_grad_()
    trained = own(q.requires_grad_(), k, *angles(plain_packing()))
    assert torch.equal(plain.q, trained.q) and torch.equal(plain.k, trained.k)
    scores = seer.gate_scores(trained)
    scores[scores > -math.inf].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in own.parameters()) and q.grad is None
    assert own.config.is_double(D) == (own.mask_linear_q is not None) == (type == "Qmaxavg_Kavg")


def test_autocast():
    q, k, v = inputs()
    lists = random_lists(plain_packing())
    with torch.autocast("cpu", torch.bfloat16):
        o = seer.block_sparse_attention(q, k.bfloat16(), v, lists)
        assert seer.pooled_attention(q, k.bfloat16(), v, block=BLOCK)[0].dtype == torch.bfloat16
        assert seer.attention(q, k.bfloat16(), v, gate()(q, k, *angles(plain_packing())), 0.5).dtype == torch.bfloat16
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, seer.block_sparse_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), lists))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_without_graph_breaks(backend):
    own, tables = gate(), angles(plain_packing())

    def run(q, k, v):
        vectors = own(q, k, *tables)
        lists = seer.select_blocks(seer.gate_scores(vectors), 0.5, vectors.packing)
        o, lse, pooled = seer.pooled_attention(q.detach(), k.detach(), v.detach(), block=BLOCK)
        return (seer.attention(q, k, v, vectors, 0.5, sink_blocks=1) + seer.block_sparse_attention(q, k, v, lists), o, lse, pooled,
                lists.count)

    tensors = [x.requires_grad_() for x in inputs()]
    want, got = run(*tensors), torch.compile(run, fullgraph=True, backend=backend)(*tensors)
    for x, y in zip(got, want, strict=True):
        assert torch.equal(x, y)
    grads = [torch.autograd.grad(x[0].square().sum(), tensors) for x in (got, want)]
    for x, y in zip(*grads, strict=True):
        assert torch.equal(x, y)


def test_compile_of_packed_tensors():
    packing = seer.Packing.from_lengths([40, 30], block=BLOCK)
    lists, tensors = random_lists(packing), [x[0, :70] for x in inputs()]
    run = lambda q, k, v: (seer.block_sparse_attention(q, k, v, lists), *seer.pooled_attention(q, k, v, packing, block=BLOCK))
    for x, y in zip(torch.compile(run, fullgraph=True, backend="aot_eager")(*tensors), run(*tensors), strict=True):
        assert torch.equal(x, y)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_graph():
    q, k, v = (torch.randn(2, 300, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2))
    own = seer.Gate(seer.GateConfig(), 4, 2, 64, "cuda")
    tables = seer.block_angles(1 / 10000 ** (torch.arange(0, 64, 2, device="cuda") / 64), seer.Packing.of_batch(2, 300, device="cuda"))
    run = lambda: seer.attention(q, k, v, own(q, k, *tables), 0.5)
    want = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    out.fill_(-7)
    graph.replay()
    assert torch.equal(out, want)


# ---- Wrong arguments -----------------------------------------------------------------------------


def wrong(message, call):
    with pytest.raises(ValueError) as error:
        call()
    assert re.search(message, str(error.value)) and "\n" not in str(error.value), str(error.value)


def test_wrong_tensors():
    q, k, v = inputs()
    lists = random_lists(plain_packing())
    for message, change in (
            (r"block_sparse_attention: q is float32 \[75, 32\], want \[B, S, H, D\]", dict(q=q[0, :, 0])),
            (r"block_sparse_attention: k is float32 \[75, 2, 32\], want .* as q, float32 \[2, 75, 4, 32\]", dict(k=k[0])),
            ("q is int64 .*, want float32, float16 or bfloat16, or float64 on a CPU", dict(q=q.long())),
            ("v is float16 .* as q, float32", dict(v=v.half())),
            ("k is on meta, q on cpu, want one device", dict(k=k.to("meta"))),
            ("k is on cpu, q on meta, want one device", dict(q=q.to("meta"))),
            ("want k and v alike", dict(k=k[:, 1:])),
            ("want k and v alike", dict(k=k[..., 1:], v=v[..., 1:])),
            ("q has 3 heads, want a multiple of the 2 of k", dict(q=q[:, :, :3])),
            (r"q and k have \(2, 70, 75\) .* the lists were made for \(2, 75, 75\)", dict(q=q[:, 5:])),
            (r"q and k have \(150, 150\) .* but the lists were made for \(150, 150\) of plain tensors",
             dict(q=q.flatten(0, 1), k=k.flatten(0, 1), v=v.flatten(0, 1)))):
        wrong(message, lambda: seer.block_sparse_attention(**{**dict(q=q, k=k, v=v), **change}, lists=lists))


def test_wrong_sequences_and_scores():
    wrong("pooled_attention: q is float64 .*, want float32, float16 or bfloat16$", lambda: seer.pooled_attention(*(x.double() for x in inputs())))
    q, k, v = (x.flatten(0, 1) for x in inputs())
    wrong("pooled_map: k is bfloat16 .*, as q, float32", lambda: seer.pooled_map(inputs()[0], inputs()[1].bfloat16()))
    wrong(r"pooled_map: q is \[2, 75, 4, 32\], k \[2, 75, 2, 16\], want k as q but for", lambda: seer.pooled_map(inputs()[0], inputs()[1][..., :16]))
    wrong("pooled_map: q is packed, .*: say where sequences begin", lambda: seer.pooled_map(q, k))
    wrong("pooled_attention: q is packed, .*: say where sequences begin", lambda: seer.pooled_attention(q, k, v))
    wrong("prefix sums are for packed tensors", lambda: seer.pooled_attention(*inputs(), torch.tensor([0, T])))
    wrong(r"sequences were made for \(100, 100\)", lambda: seer.pooled_attention(q, k, v, torch.tensor([0, 100])))
    wrong(r"cu_seqlens_q must begin with 0 and never fall, got \[0, 5, 3\]", lambda: seer.Packing.from_cu_seqlens(torch.tensor([0, 5, 3])))
    wrong("cu_seqlens_q is float32", lambda: seer.Packing.from_cu_seqlens(torch.zeros(3)))
    wrong("2 query lengths and 1 key lengths", lambda: seer.Packing.from_lengths([1, 2], [1]))
    wrong("sequence 1 has -2 queries", lambda: seer.Packing.from_lengths([1, -2]))
    scores = torch.randn(B, HQ, 5, 5)
    wrong("the rule nz_ratio takes sparsity, and no strength", lambda: seer.select_blocks(scores, strength=0.5))
    wrong("the rule nz_ratio takes sparsity, and no strength: sparsity is missing", lambda: seer.select_blocks(scores))
    wrong("the rule top_p takes strength, and no sparsity", lambda: seer.select_blocks(scores, 0.5, rule="top_p"))
    wrong("sparsity is 1, want 0 or more, and less than 1", lambda: seer.select_blocks(scores, 1.0))
    wrong("packed scores .* want their packing", lambda: seer.select_blocks(scores[0], 0.5))
    wrong("scores is of class tuple, want float32", lambda: seer.select_blocks((scores, scores), 0.5))
    wrong("sink_blocks is 16777217, want a whole number, 0 to 16777216", lambda: seer.select_blocks(scores, 0.5, sink_blocks=2**24 + 1))
    wrong("prompt_tokens is 1099511627776, want a whole number", lambda: seer.select_blocks(scores, 0.5, prompt_tokens=2**40))
    wrong("scores is float64", lambda: seer.select_blocks(scores.double(), 0.5))
    wrong("want 10 rows in all and 5 blocks", lambda: seer.select_blocks(scores[:, :, 1:], 0.5, plain_packing()))
    wrong("mask is float32", lambda: seer.BlockLists.from_mask(scores))
    wrong("want 10 rows and 5 blocks in all for 2 sequences", lambda: seer.BlockLists.from_mask(scores[:, :, 1:] > 0, plain_packing()))
    wrong("lists are of packed tensors", lambda: random_lists(seer.Packing.from_lengths([40], block=BLOCK)).to_flex())
    wrong("lists of 4 heads cannot be shared by 6", lambda: random_lists(plain_packing()).per_query_head(6))
    own = gate()
    wrong("want those of the same tokens", lambda: own(*inputs(40, 50)[:2], None, None))
    wrong("it was made for 16", lambda: own(q, k, None, None, seer.Packing.from_lengths([T] * B)))
    wrong(r"gate: q has heads and features \[2, 32\], k \[2, 32\], but it was made for \[4, 32\] and \[2, 32\]", lambda: own(inputs()[1], inputs()[1], None, None))
    for settings, message in ((dict(type="Qfirst_Kavg"), "gate type 'Qfirst_Kavg' is not known"), (dict(block_size=50), "gate block size is 50"),
                              (dict(gate_dim=-3), "gate size is -3")):
        wrong(message, lambda: seer.GateConfig(**settings))
    wrong("gate: 5 query heads and 2 key heads", lambda: seer.Gate(seer.GateConfig(), 5, 2, D))
    for block in (8, 50, 144):
        wrong(f"block is {block}, want 16 to 128 tokens", lambda: seer.pooled_attention(*inputs(), block=block))
    wrong("block_q is 0, want 1 token or more", lambda: seer.pooled_attention(*inputs(), block_q=0))
    wrong("cu_seqlens_q is .*, want prefix sums", lambda: seer.Packing.from_cu_seqlens([0, 5]))


@pytest.mark.parametrize("settings,message", [
    (dict(sparsity=90), "sparsity is 90, want"), (dict(sparsity=math.nan), "sparsity is nan, want"), (dict(sparsity="0.9"), "sparsity is '0.9', want a number"),
    (dict(sparsity=True), "sparsity is True, want a number"), (dict(sparsity=[0.1, 0.2]), "sparsity has 2 numbers, want one, or one for each of 4 heads"),
    (dict(rule="best", sparsity=0.5), "unknown rule 'best', want nz_ratio, head_budget, threshold, top_p, row_budget"),
    (dict(rule="top_p", strength=1.5), "strength is 1.5, want 0 to 1 of the rule top_p"), (dict(rule="row_budget", strength=-5), "strength is -5, want"),
    (dict(sparsity=0.5, sink_blocks=-1), "sink_blocks is -1, want a whole number"), (dict(sparsity=0.5, local_blocks=1.5), "local_blocks is 1.5, want"),
    (dict(sparsity=0.5, prompt_tokens=-100), "prompt_tokens is -100, want"),
    (dict(sparsity=0.5, prompt_tokens=10), "prompt_tokens is 10, but a sequence has 75 keys: give the length of the complete prompt")])
def test_settings_of_rules_that_are_refused(settings, message):
    vectors = gate()(*inputs()[:2], *angles(plain_packing()))
    wrong(f"^(select_blocks: )?{message}", lambda: seer.select_blocks(seer.gate_scores(vectors), packing=vectors.packing, **settings))
    wrong(f"^(attention: )?{message}", lambda: seer.attention(*inputs(), vectors, **settings))


def test_limits_of_heads_as_tensors():
    scores, each = torch.randn(B, HQ, 5, 5), torch.tensor([0.1, 0.2, 0.3, 0.8])
    choose = lambda sparsity: seer.select_blocks(scores, sparsity, plain_packing()).count
    assert torch.equal(choose(each), choose(each.tolist())) and torch.equal(choose(each[3]), choose(each[3].item()))


def test_wrong_classes():
    q, k, v = inputs()
    lists, vectors = random_lists(plain_packing()), gate()(q, k, *angles(plain_packing()))
    wrong("q is of class NoneType, want", lambda: seer.block_sparse_attention(None, k, v, lists))
    wrong("k is of class ndarray, want", lambda: seer.pooled_map(q, k.numpy()))
    wrong("lists is of class Tensor, want seer.BlockLists", lambda: seer.block_sparse_attention(q, k, v, lists.to_mask()))
    wrong("lists are of 1 head, want the 4 of q or the 2 of k", lambda: seer.block_sparse_attention(q, k, v, random_lists(plain_packing(), 1)))
    wrong("vectors is of class tuple, want seer.GateVectors", lambda: seer.attention(q, k, v, (vectors.q, vectors.k), 0.5))
    wrong("vectors is of class Tensor, want seer.GateVectors", lambda: seer.gate_scores(vectors.q))
    wrong("lookups is of class tuple, want seer.Lookups", lambda: seer.attention(q, k, v, vectors, 0.5, lookups=(q, k)))
    wrong("packing is of class list, want seer.Packing", lambda: seer.pooled_attention(q[0], k[0], v[0], [0, T]))
    wrong("packing is of class Tensor, want seer.Packing", lambda: seer.BlockLists.from_mask(lists.to_mask(), torch.tensor([0, T])))
    wrong("the mask is of class Tensor, want FlexAttention's BlockMask", lambda: seer.BlockLists.from_flex(lists.to_mask()))
    for change in (dict(k=vectors.k[1:]), dict(q=vectors.q[:, :3]), dict(q=vectors.q.half()), dict(q=vectors.q[..., 1:])):
        wrong(r"attention: vectors are q .*, want float32 \[10 rows, heads, d\] and \[10 blocks", lambda: seer.attention(q, k, v, vectors._replace(**change), 0.5))
    wrong("vectors are of 4 heads, q has 2", lambda: seer.attention(k, k, v, vectors, 0.5))


def test_masks_of_flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask
    make = lambda of, *shape: create_block_mask(of, *shape, T, T, device="cpu", BLOCK_SIZE=BLOCK)
    q, k, v = inputs()
    dense = seer.pooled_attention(q, k, v)[0]
    for shape in ((None, None), (B, HQ), (None, HK)):  # of all, of each, of groups
        lists = seer.BlockLists.from_flex(make(lambda b, h, i, j: i >= j, *shape), batch=B, heads=HQ)
        close(seer.block_sparse_attention(q, k, v, lists), dense)
    window = make(lambda b, h, i, j: (i >= j) & (i - j < 20), B, HQ)
    wrong("mask_mod cuts 40 blocks that the causal rule leaves whole", lambda: seer.BlockLists.from_flex(window))
    assert torch.equal(seer.BlockLists.from_flex(window, strict=False).to_mask(), window.to_dense().bool())
    every = seer.BlockLists.from_flex(make(lambda b, h, i, j: i >= -1, B, HQ))
    close(seer.block_sparse_attention(q, k, v, every, causal=False), seer.pooled_attention(q, k, v, causal=False)[0])
    wrong("is of 2 sequences and 4 heads, which 3 sequences of 4 heads cannot share", lambda: seer.BlockLists.from_flex(every.to_flex(), batch=3))


# ---- The package ---------------------------------------------------------------------------------


def run_python(code, **environment):
    import os
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "tests",
                          env={**os.environ, "PYTHONPATH": PACKAGE_PATH, "SEER_BUILD": str(BUILD), **environment})


def test_hints_and_docstrings():
    import inspect
    for name in seer.__all__:
        of = getattr(seer, name)
        assert inspect.getdoc(of), name
        if inspect.isfunction(of):
            hints = of.__annotations__
            assert hints.keys() == {*inspect.signature(of).parameters, "return"}, name


def test_import_is_quick_and_leaves_transformers_alone():
    code = "import time, torch, sys; t = time.time(); import seer; print(time.time() - t, 'transformers' in sys.modules, seer.__version__)"
    seconds, loaded, version = run_python(code).stdout.split()
    assert float(seconds) < 1 and loaded == "False"
    assert version == re.search(r"project\(seer VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


@pytest.mark.parametrize("built,message", [("2.3.1", "this build is for torch 2.3, but torch "), (None, "is not there")])
def test_a_library_that_does_not_fit(tmp_path, built, message):
    if built:
        (tmp_path / "libseer.json").write_text(json.dumps({"version": "0.1.0", "torch": built}))
    found = run_python("import seer", SEER_BUILD=str(tmp_path))
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode and last.startswith("ImportError: seer: ") and message in last
