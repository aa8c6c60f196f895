"""torch.ops.seer: opcheck of every op, gradients and attention against plain torch formulas, and
torch.compile.
"""

import math
import re

import pytest
import torch
import torch.utils.checkpoint
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import seer

ops = torch.ops.seer


def Pack(q_lens, k_lens=None, block=16, block_q=None):
    """Packed sequences: the queries of each are its last positions. Rows have `block_q` tokens."""
    return seer.Packing.from_lengths(q_lens, k_lens, block, block_q)


def prefix(lens, unit=1):
    return seer.Packing.from_lengths(lens, block=unit, block_q=unit).cu_rows


PACKS = {
    "whole": Pack([64]),
    "odd_tail": Pack([75]),
    "packed": Pack([40, 1, 70]),
    "chunk": Pack([32, 20], [96, 20]),
    "empty_sequence": Pack([0, 33], [20, 33]),
}
# Of pooled_attn alone: a map row for each token (the target of decode gates), or for some of a block's.
OTHER_ROWS = {
    "token_rows": Pack([200, 1, 70], block=64, block_q=1),
    "token_rows_of_a_chunk": Pack([65, 1, 40], [150, 200, 40], block=64, block_q=1),
    "token_rows_empty_sequence": Pack([0, 33], [20, 33], block=64, block_q=1),
    "short_rows": Pack([100, 33], [130, 33], block=32, block_q=8),
    "long_rows": Pack([150, 33], [170, 33], block_q=128),
}


@pytest.fixture(params=PACKS.values(), ids=PACKS.keys())
def pack(request):
    return request.param


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def attention_inputs(pack, dtype=torch.float32, heads=4, kv_heads=2, dim=32):
    make = lambda tokens, h: torch.randn(tokens, h, dim).to(dtype)
    return make(sum(pack.q_lens), heads), make(sum(pack.k_lens), kv_heads), make(
        sum(pack.k_lens), kv_heads
    )


def lists_of(mask, pack):
    """Lists [L, R] of a mask [L, R, N]."""
    return seer.BlockLists.from_mask(mask, pack)[:3]


def random_mask(pack, heads):
    visible = pack.visible()
    mask = (torch.rand(heads, *visible.shape) < 0.4) & visible
    for r in range(pack.num_rows):  # the last visible block holds the row's own positions
        last = int(visible[r].sum()) - 1
        mask[:, r, last] = True
    return mask


def masked_attention(q, k, v, pack, mask, scale, causal=True):
    """Plain torch in f64: o [T, Hq, D], lse [Hq, T]."""
    q, k, v = q.double(), k.double(), v.double()
    outs, lses = [], []
    for b, (nq, nk) in enumerate(zip(pack.q_lens, pack.k_lens)):
        qs = q[pack.cu_q[b] : pack.cu_q[b + 1]].transpose(0, 1)
        group = q.shape[1] // k.shape[1]
        ks, vs = (
            x[pack.cu_k[b] : pack.cu_k[b + 1]].transpose(0, 1).repeat_interleave(group, 0)
            for x in (k, v)
        )
        i, j = torch.arange(nq), torch.arange(nk)
        keep = mask[:, int(pack.cu_rows[b]) + i // pack.block_q][:, :, j // pack.block]
        keep = keep.repeat_interleave(q.shape[1] // mask.shape[0], 0)
        if causal:
            keep = keep & (j <= i[:, None] + nk - nq)
        s = (qs @ ks.transpose(1, 2) * scale).masked_fill(~keep, -math.inf)
        lses.append(s.logsumexp(-1))
        outs.append((s.softmax(-1) @ vs).transpose(0, 1))
    return torch.cat(outs), torch.cat(lses, 1)


def gate_inputs(pack, heads=4, gate_heads=2, dim=24):
    q = torch.randn(pack.num_rows, heads, dim)
    k = torch.randn(pack.total_blocks, gate_heads, dim)
    return q, k


def project_inputs(rows=6, in_heads=2, out_heads=4, features=48, dim=16, rope=16):
    x = torch.randn(rows, in_heads, features)
    weight = torch.randn(out_heads, features, dim)
    cos, sin = torch.randn(rows, rope // 2), torch.randn(rows, rope // 2)
    return x, weight, cos, sin


def project_formula(x, weight, cos, sin):
    x = x.repeat_interleave(weight.shape[0] // x.shape[1], 1)
    y = torch.einsum("rhf,hfd->rhd", x, weight)
    half = cos.shape[1]
    a, b, rest = y[..., :half], y[..., half : 2 * half], y[..., 2 * half :]
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def score_formula(q, k, pack):
    group = q.shape[1] // k.shape[1]
    out = q.new_full((q.shape[1], pack.num_rows, pack.num_blocks), -math.inf)
    for b in range(len(pack.q_lens)):
        rows = slice(pack.cu_rows[b], pack.cu_rows[b + 1])
        blocks = slice(pack.cu_blocks[b], pack.cu_blocks[b + 1])
        keys = k[blocks].repeat_interleave(group, 1)
        part = torch.einsum("rhd,nhd->hrn", q[rows], keys) / math.sqrt(q.shape[2])
        out = out.clone()
        out[:, rows, : part.shape[2]] = part
    return out.masked_fill(~pack.visible(), -math.inf)


def loss_formula(scores, target, pack, skip, kind):
    losses = []
    for b, rows in enumerate((pack.cu_rows[1:] - pack.cu_rows[:-1]).tolist()):
        if rows == 0:
            continue
        first, blocks = int(skip * rows), int(pack.cu_blocks[b + 1] - pack.cu_blocks[b])
        part = slice(int(pack.cu_rows[b]) + first, int(pack.cu_rows[b]) + rows)
        s, t = scores[:, part, :blocks], target[:, part, :blocks]
        if kind == "mse":
            losses.append((s.softmax(-1) - t).square().mean())
        else:
            s = s.masked_fill(s == -math.inf, -1e30)
            losses.append((torch.xlogy(t, t) - t * s.log_softmax(-1)).mean())
    return torch.stack(losses).mean()


def loss_inputs(pack, heads=3):
    visible = pack.visible()
    scores = torch.randn(heads, *visible.shape).masked_fill(~visible, -math.inf)
    target = torch.rand(heads, *visible.shape) * visible
    return scores, target / target.sum(-1, keepdim=True)


def grad(values, *inputs, **options):
    return torch.autograd.grad(values, inputs, **options)


def close(got, want, limit=1e-5):
    torch.testing.assert_close(got.double(), want.double(), rtol=limit, atol=limit)


# ---- Values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pool(pack, dtype):
    x = torch.randn(sum(pack.k_lens), 3, 40).to(dtype)
    got = ops.attn_gate_pool(x, pack.cu_k, pack.cu_blocks, pack.total_blocks, pack.block, 7)
    want = []
    for b, n in enumerate(pack.k_lens):
        for begin in range(0, n, pack.block):
            at = int(pack.cu_k[b]) + begin
            part = x[at : at + min(pack.block, n - begin)].float()
            want.append(torch.cat([part.amax(0), part.amin(0), part.mean(0)], -1))
    close(got, torch.stack(want), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pool_carries_nan_from_every_place(dtype):
    """As amax, amin and mean do, whatever the NaN's place is in a group of tokens."""
    block, tokens = 16, 23  # 7 tokens in the last block
    cu, cu_blocks = prefix([tokens]), prefix([tokens], block)
    for place in range(tokens):
        x = torch.randn(tokens, 2, 40).to(dtype)
        x[place, 1, 3:37] = math.nan
        got = ops.attn_gate_pool(x, cu, cu_blocks, 2, block, 7)
        want = [torch.cat([p.amax(0), p.amin(0), p.mean(0)], -1) for p in x.float().split(block)]
        torch.testing.assert_close(got, torch.stack(want), rtol=1e-6, atol=1e-6, equal_nan=True)


def test_pool_of_a_slice(pack):
    x = torch.randn(sum(pack.k_lens), 5, 100)[:, 1:4, 7:71]
    args = pack.cu_k, pack.cu_blocks, pack.total_blocks, pack.block, 5
    close(ops.attn_gate_pool(x, *args), ops.attn_gate_pool(x.contiguous(), *args), 0)


@pytest.mark.parametrize("pools", [1, 2, 4])
def test_pool_and_rotate(pack, pools):
    x = torch.randn(sum(pack.k_lens), 2, 32)
    args = x, pack.cu_k, pack.cu_blocks, pack.total_blocks, pack.block, pools
    cos, sin = torch.randn(pack.total_blocks, 12), torch.randn(pack.total_blocks, 12)
    close(ops.attn_gate_pool(*args, cos, sin), ops.attn_gate_project(ops.attn_gate_pool(*args), None, cos, sin), 1e-6)


def strided(x):
    """The same values, not contiguous."""
    return torch.stack([x, x], -1)[..., 0]


def vectors_inputs(pack, heads=(4, 2), dim=32, q_weight=False, k_weight=True, dtype=torch.float32, contiguous=True):
    """Arguments of attn_gate_vectors. With a weight, queries are pooled two ways and keys three, without one way."""
    tokens, (heads_q, heads_kv) = sum(pack.k_lens), heads
    q, k = torch.randn(tokens, heads_q, dim).to(dtype), torch.randn(tokens, heads_kv, dim).to(dtype)
    weights = [0.2 * torch.randn(heads_q, pools * dim, dim) if given else None
               for pools, given in ((2, q_weight), (3, k_weight))]
    angles = torch.randn(pack.total_blocks, dim // 2)
    rest = *weights, angles.cos(), angles.sin()
    if not contiguous:
        rest = [x if x is None else strided(x) for x in rest]
    return (q, k, pack.cu_k, pack.cu_blocks, pack.total_blocks, pack.block, 6 if q_weight else 4, 7 if k_weight else 4, *rest)


def vectors_by_steps(q, k, cu, cu_blocks, num_blocks, block, q_pools, k_pools, q_weight, k_weight, cos, sin):
    def settled(x):
        if x.is_cuda:
            torch.cuda.synchronize()
        return x

    def of(x, pools, weight):
        args = x, cu, cu_blocks, num_blocks, block, pools
        if weight is None:
            return settled(ops.attn_gate_pool(*args, cos, sin))
        return settled(ops.attn_gate_project(settled(ops.attn_gate_pool(*args)), weight, cos, sin))

    return of(q, q_pools, q_weight), of(k, k_pools, k_weight)


VECTORS = {
    "single": {},
    "double": {"q_weight": True},
    "bf16": {"dim": 64, "dtype": torch.bfloat16},
    "features_for_other_kernels": {"dim": 40},
    "rotated_after_pooling": {"dim": 36, "dtype": torch.bfloat16},
    "without_weights": {"k_weight": False},
    "weight_of_q_alone": {"q_weight": True, "k_weight": False},
    "strided": {"dim": 64, "contiguous": False},
    "strided_double": {"dim": 64, "q_weight": True, "contiguous": False},
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors(pack, case):
    args = vectors_inputs(pack, **VECTORS[case])
    for got, want in zip(ops.attn_gate_vectors(*args), vectors_by_steps(*args)):
        close(got, want, 0)


def test_opcheck_of_vectors_of_a_double_gate():
    torch.library.opcheck(ops.attn_gate_vectors.default, vectors_inputs(PACKS["packed"], q_weight=True))


@pytest.mark.parametrize("rope", [16, 8])
def test_project_and_gradient(rope):
    x, weight, cos, sin = project_inputs(rope=rope)
    weight.requires_grad_()
    exact = weight.detach().double().requires_grad_()
    got = ops.attn_gate_project(x, weight, cos, sin)
    want = project_formula(x.double(), exact, cos.double(), sin.double())
    close(got, want)
    dy = torch.randn_like(got)
    (found,), (expected,) = grad((got * dy).sum(), weight), grad((want * dy).sum(), exact)
    close(found, expected)


def test_project_without_weight():
    x, _, cos, sin = project_inputs(features=16)
    eye = torch.eye(16).expand(2, 16, 16)
    close(ops.attn_gate_project(x, None, cos, sin), project_formula(x, eye, cos, sin))
    close(ops.attn_gate_project(x, None, None, None), x, 0)


def test_score_and_gradients(pack):
    q, k = gate_inputs(pack)
    q.requires_grad_(), k.requires_grad_()
    exact_q, exact_k = (x.detach().double().requires_grad_() for x in (q, k))
    got = ops.attn_gate_score(q, k, *pack.cu(), pack.num_blocks, pack.block)
    want = score_formula(exact_q, exact_k, pack)
    assert torch.equal(got == -math.inf, want == -math.inf)
    close(got, want)
    weight = torch.randn_like(got)
    seen = got > -math.inf
    got_grads = grad((got[seen] * weight[seen]).sum(), q, k)
    want_grads = grad((want[seen] * weight[seen]).sum(), exact_q, exact_k)
    for found, expected in zip(got_grads, want_grads):
        close(found, expected)
    (only_k,) = grad((ops.attn_gate_score(q.detach(), k, *pack.cu(), pack.num_blocks, pack.block)[
        seen] * weight[seen]).sum(), k)
    close(only_k, want_grads[1])


@pytest.mark.parametrize("kind,skip", [("kl", 0.25), ("mse", 0.0)])
def test_loss_and_gradient(pack, kind, skip):
    scores, target = loss_inputs(pack)
    scores.requires_grad_()
    exact = scores.detach().double().requires_grad_()
    got = ops.gate_loss(scores, target, pack.cu_rows, pack.cu_blocks, skip, kind)
    want = loss_formula(exact, target.double(), pack, skip, kind)
    assert got.dtype == torch.float64 and got.shape == ()
    close(got, want, 1e-6)
    close(*(x[0] for x in (grad(10 * got, scores), grad(10 * want, exact))), 1e-6)


def test_whole_gate_gradient(pack):
    """pool -> project -> score -> loss: the weight's gradient against f64 torch."""
    x = torch.randn(sum(pack.k_lens), 2, 16)
    pooled = ops.attn_gate_pool(x, pack.cu_k, pack.cu_blocks, pack.total_blocks, pack.block, 7)
    weight = (0.2 * torch.randn(4, 48, 16)).requires_grad_()
    cos, sin = torch.randn(pack.total_blocks, 8), torch.randn(pack.total_blocks, 8)
    q, _ = gate_inputs(pack, dim=16)
    _, target = loss_inputs(pack, heads=4)
    k_gate = ops.attn_gate_project(pooled, weight, cos, sin)
    scores = ops.attn_gate_score(q, k_gate, *pack.cu(), pack.num_blocks, pack.block)
    loss = ops.gate_loss(scores, target, pack.cu_rows, pack.cu_blocks, 0.25, "kl")

    exact = weight.detach().double().requires_grad_()
    k_exact = project_formula(pooled.double(), exact, cos.double(), sin.double())
    want = loss_formula(score_formula(q.double(), k_exact, pack), target.double(), pack, 0.25, "kl")
    close(loss, want, 1e-6)
    found, expected = grad(loss, weight)[0], grad(want, exact)[0]
    close(found / expected.abs().max(), expected / expected.abs().max())


@pytest.mark.parametrize("list_heads", [4, 2])
@pytest.mark.parametrize("dtype,limit", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_block_sparse_attn(pack, list_heads, dtype, limit):
    q, k, v = attention_inputs(pack, dtype)
    mask = random_mask(pack, list_heads)
    o, lse = ops.block_sparse_attn(
        q, k, v, *pack.cu()[:3], *lists_of(mask, pack), pack.block, 0.2, True
    )
    want_o, want_lse = masked_attention(q, k, v, pack, mask, 0.2)
    assert o.dtype == dtype and lse.dtype == torch.float32
    close(o, want_o, limit)
    close(lse, want_lse, limit)


@pytest.mark.parametrize("list_heads", [4, 2])
@pytest.mark.parametrize("dtype,limit", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_block_sparse_attn_gradients(pack, list_heads, dtype, limit):
    inputs = [x.requires_grad_() for x in attention_inputs(pack, dtype)]
    mask = random_mask(pack, list_heads)
    o, lse = ops.block_sparse_attn(*inputs, *pack.cu()[:3], *lists_of(mask, pack), pack.block, 0.2, True)
    assert o.requires_grad and not lse.requires_grad
    weights = torch.randn(o.shape, dtype=dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    want = grad(masked_attention(*exact, pack, mask, 0.2)[0], *exact, grad_outputs=weights.double())
    for x, y in zip(grad(o, *inputs, grad_outputs=weights), want, strict=True):
        assert x.dtype == dtype
        close(x, y, limit)


def listed_attention(pack, heads=4):
    """A call of block_sparse_attn as a function of q, k and v."""
    lists = lists_of(random_mask(pack, heads), pack)
    return lambda q, k, v: ops.block_sparse_attn(q, k, v, *pack.cu()[:3], *lists, pack.block, 0.2, True)[0]


@pytest.mark.parametrize("list_heads", [4, 2])
@pytest.mark.parametrize("q_lens,k_lens", [([19, 0, 2], [19, 3, 20]), ([3], [40])], ids=["packed", "chunk"])
def test_finite_differences(q_lens, k_lens, list_heads):
    """The op itself in float64, which its reference computes."""
    pack = Pack(q_lens, k_lens)
    inputs = [x.requires_grad_() for x in attention_inputs(pack, torch.float64, dim=6)]
    assert torch.autograd.gradcheck(listed_attention(pack, list_heads), inputs, nondet_tol=0)


def test_gradients_through_views_and_checkpoints():
    """A gradient without memory of its own, projections as they come, activations computed again."""
    pack, inputs = PACKS["packed"], [x.requires_grad_() for x in attention_inputs(PACKS["packed"])]
    attend = listed_attention(pack)
    want = grad(attend(*inputs).sum(), *inputs)
    wide = torch.cat([x.flatten(1) for x in inputs], 1).detach().requires_grad_()
    q, k, v = (x.unflatten(1, (-1, inputs[0].shape[2])) for x in wide.split([x[0].numel() for x in inputs], 1))
    close(grad(attend(q, k, v).sum(), wide)[0], torch.cat([x.flatten(1) for x in want], 1), 0)
    again = torch.utils.checkpoint.checkpoint(attend, *inputs, use_reentrant=False)
    for x, y in zip(grad(again.sum(), *inputs), want, strict=True):
        close(x, y, 0)
    with pytest.raises(RuntimeError, match="it can be differentiated once only"):
        grad(attend(*inputs).sum(), *inputs, create_graph=True)


@pytest.mark.parametrize("group_max,normalise", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("which", [*PACKS, *OTHER_ROWS])
def test_pooled_attn(which, group_max, normalise):
    pack = {**PACKS, **OTHER_ROWS}[which]
    q, k, v = attention_inputs(pack)
    o, lse, found = ops.pooled_attn(
        q, k, v, *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block_q, pack.block, 0.2, True,
        group_max, normalise,
    )
    assert found.shape == (2 if group_max else 4, pack.num_rows, pack.num_blocks)
    full = pack.visible()[None].expand(4, -1, -1)
    want_o, want_lse = masked_attention(q, k, v, pack, full, 0.2)
    close(o, want_o)
    close(lse, want_lse)
    want = torch.zeros(4, pack.num_rows, pack.num_blocks, dtype=torch.float64)
    for b, (nq, nk) in enumerate(zip(pack.q_lens, pack.k_lens)):
        for i in range(nq):
            row, t = int(pack.cu_rows[b]) + i // pack.block_q, int(pack.cu_q[b]) + i
            keys = k[pack.cu_k[b] : pack.cu_k[b] + i + nk - nq + 1].double()
            s = torch.einsum("hd,jhd->hj", q[t].double(), keys.repeat_interleave(2, 1)) * 0.2
            for n, p in enumerate(s.softmax(-1).split(pack.block, -1)):
                want[:, row, n] = torch.maximum(want[:, row, n], p.amax(-1))
    if group_max:
        want = want.view(2, 2, *want.shape[1:]).amax(1)
    if normalise:
        want = want / want.sum(-1, keepdim=True)
    close(found, want)
    lse_alone, alone = ops.pooled_map(
        q, k, *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block_q, pack.block, 0.2, True, group_max, normalise)
    assert torch.equal(alone, found) and torch.equal(lse_alone, lse)


@pytest.mark.parametrize("group_max", [False, True])
@pytest.mark.parametrize("which", ["chunk", "token_rows_of_a_chunk", "short_rows"])
@pytest.mark.parametrize("where", ["query", "key"])
def test_pooled_attn_shows_nan_where_o_does(which, group_max, where):
    """A query whose scores hold NaN makes the map NaN in its row, in the blocks that it sees; no more."""
    pack = {**PACKS, **OTHER_ROWS}[which]
    q, k, v = attention_inputs(pack)
    (q if where == "query" else k)[7, 1] = math.nan
    args = *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block_q, pack.block, 0.2, True, group_max
    o, lse, found = ops.pooled_attn(q, k, v, *args, False)
    is_nan = o.isnan().all(-1).T  # [Hq, T]
    assert torch.equal(is_nan, lse.isnan()) and is_nan.any() and not is_nan.all()
    want = torch.zeros(4, pack.num_rows, pack.num_blocks, dtype=torch.bool)
    for b, (nq, nk) in enumerate(zip(pack.q_lens, pack.k_lens)):
        for i in range(nq):
            row = int(pack.cu_rows[b]) + i // pack.block_q
            seen = (i + nk - nq) // pack.block + 1
            want[:, row, :seen] |= is_nan[:, int(pack.cu_q[b]) + i, None]
    if group_max:
        want = want.view(2, 2, *want.shape[1:]).any(1)
    assert torch.equal(found.isnan(), want)
    lse_alone, alone = ops.pooled_map(q, k, *args, False)
    assert torch.equal(alone.view(torch.int32), found.view(torch.int32)) and torch.equal(lse_alone.isnan(), lse.isnan())
    clean = ops.pooled_attn(q.nan_to_num(), k.nan_to_num(), v, *args, False)[2]
    rows = ~want.any(-1)
    close(found[rows], clean[rows])


def test_block_select(pack):
    scores = torch.randn(2, pack.num_rows, pack.num_blocks)
    begin, count, chosen = ops.block_select(scores, *pack.cu()[:3], pack.block, "row_budget", [32])
    for h in range(2):
        for b, (nq, nk) in enumerate(zip(pack.q_lens, pack.k_lens)):
            for m in range(-(-nq // pack.block)):
                r = int(pack.cu_rows[b]) + m
                first = m * pack.block + nk - nq
                last = min((m + 1) * pack.block, nq) - 1 + nk - nq
                end = last // pack.block + 1
                want = set(scores[h, r, :end].topk(min(2, end)).indices.tolist())
                want |= set(range(first // pack.block, end))
                at = int(begin[h, r])
                assert chosen[at : at + int(count[h, r])].tolist() == sorted(want)


def test_gaps_of_lists_hold_nothing(pack):
    """So that equal choices are equal tensors."""
    scores = torch.randn(3, pack.num_rows, pack.num_blocks)
    for rule, strength in (("nz_ratio", 0.3), ("threshold", 0.1), ("top_p", 0.5), ("head_budget", 0.3)):
        args = scores, *pack.cu()[:3], pack.block, rule, [strength], 1, 1, 2
        begin, count, listed = ops.block_select(*args)
        kept = torch.zeros(len(listed), dtype=torch.bool)
        for at, n in zip(begin.flatten().tolist(), count.flatten().tolist()):
            kept[at : at + n] = True
        assert (listed[~kept] == -1).all() and (listed[kept] >= 0).all()
        assert all(torch.equal(x, y) for x, y in zip(ops.block_select(*args), (begin, count, listed)))


def test_selected_blocks_run(pack):
    """What block_select gives is what block_sparse_attn takes."""
    q, k, v = attention_inputs(pack)
    scores = torch.randn(4, pack.num_rows, pack.num_blocks)
    lists = ops.block_select(scores, *pack.cu()[:3], pack.block, "nz_ratio", [1.0])
    o, _ = ops.block_sparse_attn(q, k, v, *pack.cu()[:3], *lists, pack.block, 0.2, True)
    want, _ = masked_attention(q, k, v, pack, pack.visible()[None].expand(4, -1, -1), 0.2)
    close(o, want)


def sparse_inputs(pack):
    """Arguments of sparse_attention before its selection."""
    return (*attention_inputs(pack), *gate_inputs(pack), *pack.cu(), pack.num_blocks, pack.block, 0.2, True)


@pytest.mark.parametrize("rule,strength", [("nz_ratio", 0.4), ("top_p", 0.5), ("row_budget", 32)])
def test_sparse_attention_is_its_three_steps(pack, rule, strength):
    q, k, v, q_gate, k_gate, *rest = args = sparse_inputs(pack)
    scores = ops.attn_gate_score(q_gate, k_gate, *pack.cu(), pack.num_blocks, pack.block)
    lists = ops.block_select(scores, *pack.cu()[:3], pack.block, rule, [strength], 1, 0, 2)
    want = *ops.block_sparse_attn(q, k, v, *pack.cu()[:3], *lists, pack.block, 0.2, True), *lists
    for x, y in zip(ops.sparse_attention(*args, rule, [strength], 1, 0, 2), want, strict=True):
        assert torch.equal(x, y)


def test_forced_blocks_count_within():
    args = sparse_inputs(PACKS["odd_tail"])
    count = ops.sparse_attention(*args, "row_budget", [48.0], 1, 0, forced_within=True)[3]
    assert count.tolist() == [[1, 2, 3, 3, 3]] * 4
    with pytest.raises(RuntimeError, match="in one sequence only"):
        ops.sparse_attention(*sparse_inputs(PACKS["packed"]), "row_budget", [48.0], forced_within=True)


def newest_tokens(pack, tokens=1, heads=4, dim=32):
    return torch.randn(tokens * len(pack.k_lens), heads, dim)


@pytest.mark.parametrize("tokens,window", [(1, 0), (1, 20), (3, 0), (3, 20)])
def test_decode_attn(pack, tokens, window):
    _, k, v = attention_inputs(pack)
    q = newest_tokens(pack, tokens)
    o, lse = ops.decode_attn(q, k, v, pack.cu_k, window, 0.2)
    for b, n in enumerate(pack.k_lens):
        keys, values = (
            x[pack.cu_k[b] : pack.cu_k[b + 1]].double().repeat_interleave(2, 1).transpose(0, 1) for x in (k, v)
        )
        at = slice(b * tokens, (b + 1) * tokens)
        i, j = torch.arange(tokens)[:, None] + n - tokens, torch.arange(n)
        seen = (j <= i) & (j > i - (window or n + 1))
        s = (q[at].double().transpose(0, 1) @ keys.transpose(1, 2) * 0.2).masked_fill(~seen, -math.inf)
        close(o[at], (s.softmax(-1).nan_to_num(0) @ values).transpose(0, 1))
        close(lse[:, at], s.logsumexp(-1))


def test_decode_attn_of_one_sequence_needs_no_prefix_sums():
    pack = PACKS["odd_tail"]
    _, k, v = attention_inputs(pack)
    q = newest_tokens(pack)
    for got, want in zip(ops.decode_attn(q, k, v, None, 0, 0.2), ops.decode_attn(q, k, v, pack.cu_k, 0, 0.2)):
        assert torch.equal(got, want)


@pytest.mark.parametrize("dim", [20, 100])
def test_every_head_size_runs_on_the_cpu(dim):
    pack = PACKS["chunk"]
    q, k, v = attention_inputs(pack, dim=dim)
    mask = random_mask(pack, 4)
    want, _ = masked_attention(q, k, v, pack, mask, 0.1)
    close(ops.block_sparse_attn(q, k, v, *pack.cu()[:3], *lists_of(mask, pack), pack.block, 0.1, True)[0], want)
    every = pack.visible()[None].expand(4, -1, -1)
    want, want_lse = masked_attention(q, k, v, pack, every, 0.1)
    o, lse, _ = ops.pooled_attn(
        q, k, v, *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block_q, pack.block, 0.1, True, False, True
    )
    close(o, want)
    close(lse, want_lse)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"q": torch.randn(3, 4, 32)}, "3 query tokens of 2 sequences"),
        ({"window": -1}, "window is -1"),
        ({"scale": math.nan}, "scale is nan"),
        ({"cu_k": torch.tensor([0, 96, 116])}, "cu_k must be int32"),
        ({"k": torch.randn(116, 2, 16)}, "head size"),
    ],
)
def test_decode_attn_says_what_is_wrong(change, message):
    pack = PACKS["chunk"]
    _, k, v = attention_inputs(pack)
    args = {"q": newest_tokens(pack), "k": k, "v": v, "cu_k": pack.cu_k, "window": 0, "scale": 0.2}
    with pytest.raises(RuntimeError, match=message):
        ops.decode_attn(**(args | change))
    on_meta = {name: x.to("meta") if torch.is_tensor(x) else x for name, x in (args | change).items()}
    with pytest.raises(RuntimeError, match=message):
        ops.decode_attn(**on_meta)


# ---- Lookup heads --------------------------------------------------------------------------------


def lookup_inputs(pack, dtype=torch.float32, heads=4, rank=32):
    return attention_inputs(pack, dtype, heads, heads, rank)[:2]


def lookup_formula(q, k, pack, scale):
    """Scores, and log-sum-exp of the blocks' maxima [L, T]."""
    heads = q.shape[1]
    scores, lse = q.new_full((heads, pack.num_rows, pack.num_blocks), -math.inf), q.new_full((heads, len(q)), -math.inf)
    for b, (nq, nk) in enumerate(zip(pack.q_lens, pack.k_lens)):
        first, row0 = int(pack.cu_q[b]), int(pack.cu_rows[b])
        s = torch.einsum("ihr,jhr->hij", q[first:first + nq], k[pack.cu_k[b]:pack.cu_k[b] + nk]) * scale
        s = s.masked_fill(torch.ones(nq, nk, dtype=torch.bool).triu(nk - nq + 1), -math.inf)
        maxima = torch.stack([part.amax(-1) for part in s.split(pack.block, -1)], -1)
        sums = maxima.logsumexp(-1)
        lse[:, first:first + nq] = sums.detach()
        for m, part in enumerate((maxima - sums[..., None]).split(pack.block, 1)):
            scores[:, row0 + m, :part.shape[-1]] = part.amax(1) if part.shape[1] else -math.inf
    return scores, lse


def test_lookup_score(pack):
    q, k = (x.double().requires_grad_() for x in lookup_inputs(pack))
    want, want_lse = lookup_formula(q, k, pack, 0.2)
    args = *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block, 0.2
    copies = [x.detach().float().requires_grad_() for x in (q, k)]
    scores, lse = ops.lookup_score(*copies, *args)
    hidden = want.isinf()
    assert torch.equal(scores.isinf(), hidden) and not lse.requires_grad
    close(scores.masked_fill(hidden, 0), want.masked_fill(hidden, 0))
    close(lse, want_lse)
    alone = (~hidden).sum(-1, keepdim=True) == 1  # all queries of such a row score 0: any is the largest
    weights = torch.randn(scores.shape, dtype=torch.float64).masked_fill(hidden | alone, 0)
    want_grads = grad(want[~hidden], q, k, grad_outputs=weights[~hidden])
    for x, y in zip(grad(scores, *copies, grad_outputs=weights.float()), want_grads, strict=True):
        close(x, y)
    with torch.no_grad():
        assert torch.equal(scores, ops.lookup_score(*copies, *args)[0])


@pytest.mark.parametrize("where", ["query", "key"])
def test_lookup_score_keeps_nan(where):
    pack = PACKS["chunk"]
    q, k = lookup_inputs(pack)
    (q if where == "query" else k)[7, 1] = math.nan
    scores, lse = ops.lookup_score(q, k, *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block, 0.2)
    assert scores[1].isnan().any() and lse[1].isnan().any()
    assert not scores[[0, 2, 3]].isnan().any() and not lse[[0, 2, 3]].isnan().any()


def project_inputs_of_lookups(pack, dtype=torch.float32, dim=64, rank=32):
    """Arguments of lookup_project: heads that repeat, and q and k that are parts of other tensors."""
    q, k, _ = attention_inputs(pack, dtype, 6, 3, 2 * dim)
    weights = [torch.randn(3, dim, rank) / 8 for _ in "qk"]
    return q[..., :dim], k[..., dim:], *weights, torch.tensor([1, 2, 5]), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lookup_project(dtype):
    q, k, *weights, heads, kv_heads = args = project_inputs_of_lookups(PACKS["packed"], dtype)
    for got, x, weight, of in zip(ops.lookup_project(*args), (q, k), weights, (heads, kv_heads), strict=True):
        assert got.dtype == (torch.float32 if dtype == torch.float32 else torch.float16)
        close(got.double(), torch.einsum("tld,ldr->tlr", x.double().index_select(1, of), weight.double()), 1e-3 if dtype != torch.float32 else 1e-5)


def test_sparse_attention_with_lookup_heads(pack):
    q, k, v, q_gate, k_gate, *rest = args = sparse_inputs(pack)
    heads = torch.tensor([1, 3])
    lookup_q, lookup_k = lookup_inputs(pack, heads=2, rank=16)
    scores = ops.attn_gate_score(q_gate, k_gate, *pack.cu(), pack.num_blocks, pack.block)
    own, _ = ops.lookup_score(lookup_q, lookup_k, *pack.cu()[:3], pack.num_rows, pack.num_blocks, pack.block, 0.2)
    lists = ops.block_select(scores.index_copy(0, heads, own), *pack.cu()[:3], pack.block, "row_budget", [32])
    want = *ops.block_sparse_attn(q, k, v, *pack.cu()[:3], *lists, pack.block, 0.2, True), *lists
    given = dict(lookup_q=lookup_q, lookup_k=lookup_k, lookup_heads=heads)
    for x, y in zip(ops.sparse_attention(*args, "row_budget", [32], **given), want, strict=True):
        assert torch.equal(x, y)
    del given["lookup_k"]
    with pytest.raises(RuntimeError, match="come together"):
        ops.sparse_attention(*args, "row_budget", [32], **given)


# ---- The dispatcher ------------------------------------------------------------------------------


def calls(pack):
    """One call of every op: name -> (arguments, which of them get gradients)."""
    q, k, v = attention_inputs(pack)
    q_gate, k_gate = gate_inputs(pack)
    scores, target = loss_inputs(pack, heads=4)
    x, weight, cos, sin = project_inputs()
    cu, three, block = pack.cu(), pack.cu()[:3], pack.block
    lists = lists_of(random_mask(pack, 4), pack)
    y = ops.attn_gate_project(x, weight, cos, sin)
    return {
        "attn_gate_pool": ((k, pack.cu_k, pack.cu_blocks, pack.total_blocks, block, 7), ()),
        "attn_gate_vectors": (vectors_inputs(pack), ()),
        "attn_gate_project": ((x, weight, cos, sin), (1,)),
        "attn_gate_project_grad": ((y, x, cos, sin), ()),
        "attn_gate_score": ((q_gate, k_gate, *cu, pack.num_blocks, block), (0, 1)),
        "attn_gate_score_grad": ((target, q_gate, k_gate, *cu, block, True), ()),
        "gate_loss": ((scores, target, pack.cu_rows, pack.cu_blocks, 0.25, "kl"), (0,)),
        "gate_loss_with_grad": ((scores, target, pack.cu_rows, pack.cu_blocks, 0.0, "mse"), ()),
        "block_select": ((scores, *three, block, "nz_ratio", [0.3], 1, 1, 2), ()),
        "block_sparse_attn": ((q, k, v, *three, *lists, block, 0.2, True), (0, 1, 2)),
        "block_sparse_attn_backward": (
            (torch.randn(q.shape), *ops.block_sparse_attn(q, k, v, *three, *lists, block, 0.2, True), q, k, v, *three,
             *lists, block, 0.2, True), ()),
        "lookup_project": (project_inputs_of_lookups(pack), ()),
        "lookup_score": ((*lookup_inputs(pack), *three, pack.num_rows, pack.num_blocks, block, 0.2), (0, 1)),
        "lookup_score_grad": ((target, *lookup_inputs(pack), torch.randn(4, len(q)), *three, block, 0.2), ()),
        "decode_attn": ((newest_tokens(pack), k, v, pack.cu_k, 0, 0.2), ()),
        "sparse_attention": ((*sparse_inputs(pack), "nz_ratio", [0.3], 1, 1, 2), ()),
        "pooled_attn": (
            (q, k, v, *three, pack.num_rows, pack.num_blocks, pack.block_q, block, 0.2, True, True, True),
            (),
        ),
        "pooled_map": ((q, k, *three, pack.num_rows, pack.num_blocks, pack.block_q, block, 0.2, True, False, True), ()),
    }


OPS = sorted(calls(PACKS["whole"]))


def test_every_op_is_checked():
    names = {s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("seer::")}
    assert names == {"seer::" + name for name in OPS}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("which", ["whole", "packed"])
def test_opcheck(name, which):
    args, differentiable = calls(PACKS[which])[name]
    args = [a.detach().requires_grad_() if i in differentiable else a for i, a in enumerate(args)]
    torch.library.opcheck(getattr(ops, name).default, tuple(args))


def test_opcheck_of_a_map_row_for_each_token():
    pack = OTHER_ROWS["token_rows_of_a_chunk"]
    args = (*attention_inputs(pack), *pack.cu()[:3], pack.num_rows, pack.num_blocks, 1, pack.block, 0.2)
    torch.library.opcheck(ops.pooled_attn.default, (*args, True, True, True))


def rotated_pool(pack):
    """Arguments of attn_gate_pool with RoPE."""
    cos, sin = torch.randn(pack.total_blocks, 8), torch.randn(pack.total_blocks, 8)
    return attention_inputs(pack)[1], pack.cu_k, pack.cu_blocks, pack.total_blocks, pack.block, 4, cos, sin


def test_opcheck_of_a_rotated_pool():
    torch.library.opcheck(ops.attn_gate_pool.default, rotated_pool(PACKS["packed"]))


@pytest.mark.parametrize("index,value,message", [
    (5, 7, "cos and sin rotate one pooling, pools has 3"), (7, None, "cos and sin together"),
    (7, lambda s: s[:-1], "want the same"), (slice(6, 8), lambda angles: [x[:-1] for x in angles], "one for each block"),
    (slice(6, 8), lambda angles: [x.repeat(1, 9) for x in angles], "features rotate, want at most")])
def test_wrong_angles_of_a_pool(index, value, message):
    args = list(rotated_pool(PACKS["packed"]))
    args[index] = value(args[index]) if callable(value) else value
    with pytest.raises(RuntimeError, match=message):
        ops.attn_gate_pool(*args)


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_a_cuda_implementation(name):
    key = "CompositeImplicitAutograd" if name == "sparse_attention" else "CUDA"  # made of others
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"seer::{name}", key)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
OF_HALF_PRECISION = {"block_sparse_attn", "block_sparse_attn_backward", "decode_attn", "lookup_score", "lookup_score_grad",
                     "pooled_attn", "pooled_map", "sparse_attention"}  # on a GPU
ON_GPU_IN_F32 = sorted(set(OPS) - OF_HALF_PRECISION)


def on_gpu(args):
    return [a.cuda() if isinstance(a, torch.Tensor) else a for a in args]


def rows_of(begin, count, listed):
    """The blocks of every row, head by head."""
    begin, count, listed = begin.cpu().flatten(), count.cpu().flatten(), listed.cpu()
    return [listed[b : b + n].tolist() for b, n in zip(begin.tolist(), count.tolist())]


@needs_gpu
@pytest.mark.parametrize("name", ON_GPU_IN_F32)
@pytest.mark.parametrize("which", ["whole", "packed", "chunk", "empty_sequence"])
def test_cuda_equals_cpu(name, which):
    args = calls(PACKS[which])[name][0]
    want, got = getattr(ops, name)(*args), getattr(ops, name)(*on_gpu(args))
    if name == "block_select":
        assert all(torch.equal(x.cpu(), y) for x, y in zip(got, want, strict=True))
        return
    want, got = ((x,) if isinstance(x, torch.Tensor) else x for x in (want, got))
    for x, y in zip(got, want, strict=True):
        assert x.is_cuda and x.dtype == y.dtype
        torch.testing.assert_close(x.cpu(), y, rtol=1e-4, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("dim", [64, 96, 128, 256])
def test_cuda_gradients_equal_cpu(dim):
    pack = Pack([65, 1, 200], [150, 200, 200], block=64)
    inputs = [x.requires_grad_() for x in attention_inputs(pack, torch.bfloat16, dim=dim)]
    copies = [x.detach().cuda().requires_grad_() for x in inputs]
    lists = lists_of(random_mask(pack, 4), pack)
    o = ops.block_sparse_attn(*inputs, *pack.cu()[:3], *lists, 64, 0.1, True)[0]
    on_device = ops.block_sparse_attn(*copies, *on_gpu(pack.cu()[:3]), *on_gpu(lists), 64, 0.1, True)[0]
    weights = torch.randn(o.shape, dtype=o.dtype)
    for x, y in zip(grad(on_device, *copies, grad_outputs=weights.cuda()), grad(o, *inputs, grad_outputs=weights), strict=True):
        close(x.cpu(), y, 3e-2)


@needs_gpu
@pytest.mark.parametrize("block_q", [1, 64])
def test_cuda_map_equals_cpu(block_q):
    pack = Pack([65, 1, 40], [150, 200, 40], block=64, block_q=block_q)
    args = (*attention_inputs(pack, torch.bfloat16, dim=64), *pack.cu()[:3], pack.num_rows,
            pack.num_blocks, block_q, 64, 0.125, True, True, True)
    want, got = ops.pooled_attn(*args), ops.pooled_attn(*on_gpu(args))
    got += ops.pooled_map(*on_gpu((*args[:2], *args[3:])))
    for x, y, limit in zip(got, (*want, *want[1:]), (2e-2, *[1e-4] * 4), strict=True):
        assert x.is_cuda and x.dtype == y.dtype
        close(x.cpu(), y, limit)


@needs_gpu
@pytest.mark.parametrize("rank", [16, 32, 64])
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256])  # 80 and 256 by torch's own products
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_cuda_lookup_projections_equal_cpu(dtype, dim, rank):
    for pack in (PACKS["packed"], Pack([700], [1001], block=64)):
        q, k, *rest = project_inputs_of_lookups(pack, dtype, dim, rank)
        rounded = [w.to(dtype).float() for w in rest[:2]]  # as kernels multiply
        want = ops.lookup_project(q, k, *rounded, *rest[2:])
        for _ in range(2):
            for x, y in zip(ops.lookup_project(q.cuda(), k.cuda(), *on_gpu(rest)), want, strict=True):
                assert x.dtype == y.dtype
                close(x.cpu().float(), y.float(), 1e-3)


@needs_gpu
def test_cuda_lookup_project_reads_no_token_behind_the_last():
    pack = Pack([300], [513], block=64)
    q, k, *rest = on_gpu(project_inputs_of_lookups(pack, torch.bfloat16, 128))
    behind = [torch.cat([x, torch.full_like(x, math.nan)])[:len(x)] for x in (q, k)]
    for x, y in zip(ops.lookup_project(*behind, *rest), ops.lookup_project(q, k, *rest), strict=True):
        assert torch.equal(x, y) and x.isfinite().all()


@needs_gpu
@pytest.mark.parametrize("rank", [16, 32, 64])
def test_cuda_lookup_scores_equal_cpu(rank):
    pack = Pack([65, 1, 200], [150, 200, 200], block=64)
    inputs = [x.requires_grad_() for x in lookup_inputs(pack, torch.bfloat16, rank=rank)]
    copies = [x.detach().cuda().requires_grad_() for x in inputs]
    args = *pack.cu()[:3], pack.num_rows, pack.num_blocks, 64, 0.2
    want, got = ops.lookup_score(*inputs, *args), ops.lookup_score(*copies, *on_gpu(args))
    for x, y in zip(got, want, strict=True):
        close(x.cpu().nan_to_num(neginf=0), y.nan_to_num(neginf=0), 1e-4)
    for x, y in zip(ops.lookup_score(*copies, *on_gpu(args), 1000), got, strict=True):  # by one thread block
        assert torch.equal(x, y)
    weights = torch.randn(want[0].shape).masked_fill(want[0].isinf(), 0)
    for x, y in zip(grad(got[0], *copies, grad_outputs=weights.cuda()), grad(want[0], *inputs, grad_outputs=weights), strict=True):
        close(x.cpu(), y, 1e-2)


@needs_gpu
@pytest.mark.parametrize("fill", [False, True], ids=["", "memory_filled"])
@pytest.mark.parametrize("case", VECTORS)
def test_steps_that_run_beside_each_other(case, fill):
    """Kernels that start before those ahead have ended: the bits of one after another, again and again."""
    pack = Pack([3000, 0, 5001, 200], block=64)
    settings = {"dim": 64, **VECTORS[case]}
    inputs = [on_gpu(vectors_inputs(pack, (8, 8 if case.endswith("without_weights") else 2), **settings)) for _ in range(2)]
    cu = on_gpu(pack.cu())

    def follow(q, k):
        scores = ops.attn_gate_score(q, k, *cu, pack.num_blocks, pack.block)
        begin, count, listed = ops.block_select(scores, *cu[:3], pack.block, "nz_ratio", [0.3])
        at = torch.arange(pack.num_blocks, device="cuda")
        blocks = listed[(begin[..., None] + at).clamp(max=len(listed) - 1)].where(at < count[..., None], -1)
        return [q, k, scores, count, blocks]

    want = [follow(*vectors_by_steps(*args)) for args in inputs]
    torch.cuda.synchronize()
    wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    torch.use_deterministic_algorithms(fill)  # torch fills new memory then, by a kernel
    try:
        for i in range(100):  # nothing waits; the other input's results have left their memory
            got = follow(*ops.attn_gate_vectors(*inputs[i % 2]))
            for x, y in zip(got, want[i % 2]):
                wrong += (x != y).sum()
                x.fill_(-7)
    finally:
        torch.use_deterministic_algorithms(False)
    assert wrong.item() == 0


@needs_gpu
@pytest.mark.parametrize("rule,strength", [("nz_ratio", 0.3), ("top_p", 0.7), ("head_budget", 0.4)])
def test_cuda_graph_of_gate_and_selection(rule, strength):
    pack = PACKS["packed"]
    args = on_gpu(vectors_inputs(pack))
    cu_q, cu_k, cu_rows, cu_blocks = on_gpu(pack.cu())

    def run():
        q, k = ops.attn_gate_vectors(*args)
        scores = ops.attn_gate_score(q, k, cu_q, cu_k, cu_rows, cu_blocks, pack.num_blocks, pack.block)
        return ops.block_select(scores, cu_q, cu_k, cu_rows, pack.block, rule, [strength])

    want = rows_of(*run())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    for x in out:
        x.fill_(-7)
    graph.replay()
    assert rows_of(*out) == want


@pytest.mark.parametrize("name,which", [("pooled_attn", 2), ("pooled_map", 1),
                                        ("attn_gate_pool", 0), ("attn_gate_project", 0), ("attn_gate_vectors", 1),
                                        ("attn_gate_vectors", 9)])
def test_gradients_that_do_not_exist(name, which):
    args = list(calls(PACKS["whole"])[name][0])
    args[which] = args[which].detach().requires_grad_()
    with pytest.raises(RuntimeError, match=f"seer::{name}: no gradient with respect to"):
        getattr(ops, name)(*args)
    with torch.no_grad():
        getattr(ops, name)(*args)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend):
    pack = PACKS["packed"]
    q, k, v = (x.requires_grad_() for x in attention_inputs(pack))
    x = torch.randn(sum(pack.k_lens), 2, 32)
    weight = (0.2 * torch.randn(4, 96, 32)).requires_grad_()
    q_gate, _ = gate_inputs(pack, dim=32)
    _, target = loss_inputs(pack, heads=4)
    cos, sin = torch.randn(pack.total_blocks, 16), torch.randn(pack.total_blocks, 16)

    def run(x, weight, q, k, v):
        pooled = ops.attn_gate_pool(x, pack.cu_k, pack.cu_blocks, pack.total_blocks, 16, 7)
        k_gate = ops.attn_gate_project(pooled, weight, cos, sin)
        scores = ops.attn_gate_score(q_gate, k_gate, *pack.cu(), pack.num_blocks, 16)
        lists = ops.block_select(scores, *pack.cu()[:3], 16, "nz_ratio", [0.5])
        o, _ = ops.block_sparse_attn(q, k, v, *pack.cu()[:3], *lists, 16, 0.2, True)
        return ops.gate_loss(scores, target, pack.cu_rows, pack.cu_blocks, 0.25, "kl"), o

    want_loss, want_o = run(x, weight, q, k, v)
    want = grad(want_loss + want_o.square().sum(), weight, q, k, v)
    loss, o = torch.compile(run, fullgraph=True, backend=backend)(x, weight, q, k, v)
    close(loss.detach(), want_loss.detach(), 0)
    close(o.detach(), want_o.detach(), 0)
    for got, expected in zip(grad(loss + o.square().sum(), weight, q, k, v), want, strict=True):
        close(got, expected, 0)


# ---- Wrong arguments -----------------------------------------------------------------------------


def change(name, index, value):  # an index, or a slice for several arguments
    args = list(calls(PACKS["packed"])[name][0])
    args[index] = value(args[index]) if callable(value) else value
    return getattr(ops, name), args


WRONG = [
    ("block_sparse_attn", 0, lambda q: q[0], "q has 2 axes"),
    ("block_sparse_attn", 0, lambda q: q.long(), "want float32, float16 or bfloat16, or float64 on the CPU"),
    ("pooled_attn", 0, lambda q: q.double(), "want float32, float16 or bfloat16"),
    ("block_sparse_attn", 1, lambda k: k.half(), "k is .*as q"),
    ("block_sparse_attn", 1, lambda k: k[:-1], "k and v alike"),
    ("block_sparse_attn", 0, lambda q: q.transpose(1, 2).contiguous().transpose(1, 2), "stride"),
    ("block_sparse_attn", 3, lambda c: c.long(), "cu_q must be int32"),
    ("block_sparse_attn", 3, lambda c: c[:-1], "cu_k has 4 entries, want 3 as cu_q"),
    ("block_sparse_attn", 0, lambda q: q[:, :3], "q has 3 heads, want a multiple of the 2 of k"),
    ("block_sparse_attn", 6, lambda b: b.int(), "list_begin must be int64"),
    ("block_sparse_attn", 6, lambda b: b[:3], "list_count must be int32"),
    ("block_sparse_attn", slice(6, 8), lambda lists: [x[:3] for x in lists], "3 heads, want the 4 of q or the 2 of k"),
    ("block_sparse_attn", 8, lambda l: l.long(), "list must be int32"),
    ("block_sparse_attn", 10, math.nan, "scale is nan"),
    ("block_sparse_attn", 9, 17, "block is 17, want a multiple of 16"),
    ("block_sparse_attn", 9, 256, "block is 256"),
    ("block_sparse_attn_backward", 0, lambda g: g[:-1], "grad_o is .*as q"),
    ("block_sparse_attn_backward", 0, lambda g: g.half(), "grad_o is .*as q"),
    ("block_sparse_attn_backward", 1, lambda o: o[:, :2], "o is .*as q"),
    ("block_sparse_attn_backward", 2, lambda lse: lse.T, "lse must be float32"),
    ("block_sparse_attn_backward", 2, lambda lse: lse.double(), "lse must be float32"),
    ("pooled_attn", 2, lambda v: v[1:], "k and v alike"),
    ("pooled_attn", 6, -1, "num_rows is -1"),
    ("pooled_map", 1, lambda k: k[..., 1:], "want one head size"),
    ("pooled_map", 1, lambda k: k.bfloat16(), "k is BFloat16, want Float as q"),
    ("lookup_project", 2, lambda w: w[:, :8], r"weight_q .*"),
    ("lookup_project", 3, lambda w: w[..., :16], r"weight_k is \[3, 64, 16\], want \[3, 64, 32\] as weight_q"),
    ("lookup_project", 4, lambda h: h.int(), r"heads is Int \[3\], want int64 \[3\]"),
    ("lookup_project", 5, lambda h: h[:2], r"kv_heads is Long \[2\], want int64 \[3\]"),
    ("lookup_score", 1, lambda k: k[:, :2], "q has 4 heads, k 2; each lookup head has keys of its own"),
    ("lookup_score", 1, lambda k: k.half(), "k is Half, want Float as q"),
    ("lookup_score", 6, 2**40, "num_blocks is 1099511627776"),
    ("lookup_score_grad", 0, lambda d: d[:2], "dscores has 2 heads, want 4"),
    ("lookup_score_grad", 3, lambda lse: lse.T, "lse is .*, want float32"),
    ("pooled_attn", 7, 2**40, "num_blocks is 1099511627776"),
    ("pooled_attn", 10, 0.0, "scale is 0"),
    ("pooled_attn", 8, 0, "block_q is 0, want 1"),
    ("pooled_attn", 8, 129, "block_q is 129, want 1"),
    ("pooled_attn", 9, 24, "block_k is 24, want a multiple of 16"),
    ("attn_gate_pool", 5, 8, "pools is 8"),
    ("attn_gate_pool", 3, 2**31, "num_blocks is 2147483648"),
    ("attn_gate_vectors", 0, lambda q: q[:-1], "q .* and k .* of the same tokens"),
    ("attn_gate_vectors", 1, lambda k: k[0], "q .* and k .* of the same tokens"),
    ("attn_gate_vectors", 1, lambda k: k.double(), "vectors: k is .*, want float32"),
    ("attn_gate_vectors", 5, 0, "block is 0"),
    ("attn_gate_vectors", 6, 8, "q_pools is 8"),
    ("attn_gate_vectors", 6, 7, "cos and sin rotate one pooling, q_pools has 3"),
    ("attn_gate_vectors", 9, lambda w: w[:, :-1], "k_weight takes 95 features, pooled k has 96"),
    ("attn_gate_vectors", 11, None, "cos and sin together"),
    ("attn_gate_project", 1, lambda w: w[:3], "want a multiple of the 2 of x"),
    ("attn_gate_project", 1, lambda w: w[:, :-1], "weight takes 47 features, x has 48"),
    ("attn_gate_project", 2, None, "cos and sin together"),
    ("attn_gate_score", 1, lambda k: k[..., :-1], "q_gate has 24 features, k_gate 23"),
    ("attn_gate_project_grad", 0, lambda dy: dy[:-1], "dy has 5 rows, x has 6"),
    ("attn_gate_project_grad", 0, lambda dy: dy[:, :3], "dy has 3 heads, want a multiple of the 2 of x"),
    ("attn_gate_score", 0, lambda q: q[:, :3], "q_gate has 3 heads, want a multiple of the 2 of k_gate"),
    ("attn_gate_score", 0, lambda q: q.double(), "q_gate is .*, want float32"),
    ("attn_gate_score_grad", 0, lambda d: d[:2], "dscores is .*, want 4 heads of 9 rows"),
    ("gate_loss", 5, "huber", 'kind is "huber", want kl or mse'),
    ("gate_loss", 4, 1.0, "skip is 1"),
    ("gate_loss", 1, lambda t: t[1:], "want the same"),
    ("gate_loss", 1, lambda t: t.half(), "target is .*, want float32"),
    ("gate_loss", 3, lambda c: c[:-1], "cu_blocks has 3 entries, want 4"),
    ("block_select", 5, "best", 'unknown rule "best", want nz_ratio'),
    ("block_select", 6, [0.1, 0.2, 0.3], "3 strengths, want 1 or one for each of 4 heads"),
    ("block_select", 6, [], "0 strengths"),
    ("block_select", 6, [1.5], "strength of nz_ratio is 1.5"),
    ("block_select", 0, lambda s: s[0], "scores has 2 axes, want .heads, rows, blocks."),
    ("block_select", slice(10, None), lambda _: [3], "a prompt of 3 key blocks cannot hold 5"),
    ("block_select", slice(10, None), lambda _: [-1], "prompt_blocks is -1"),
]
# What only the contents of tensors show: seen on the CPU.
WRONG_CONTENTS = [
    ("lookup_project", 4, lambda h: h + 4, r"heads\[1\] is 6, want 0 to 5"),
    ("block_sparse_attn", 3, lambda c: c - torch.tensor([0, 0, 0, 70]).int(), "cu_q ends with 41, want 111"),
    ("block_sparse_attn", 3, lambda c: c.flip(0), "cu_q begins with 111"),
    ("block_sparse_attn", 3, torch.tensor([0, 50, 41, 111], dtype=torch.int32), "falls from 50"),
    ("block_sparse_attn", 5, lambda c: c + torch.tensor([0, 1, 1, 1]).int(), "sequence 0 4 blocks"),
    ("block_sparse_attn", 8, lambda l: l + 7, "names block"),
    ("block_sparse_attn", 8, lambda l: l - 1, "names block -1"),
    ("block_sparse_attn", 8, lambda l: l[:-1], "takes entries"),
    ("block_sparse_attn", 6, lambda b: b - 1, "takes entries -1"),
    ("block_sparse_attn", 6, lambda b: b + 2**62, "takes entries"),
    ("block_sparse_attn", 7, lambda c: c - 100, "takes entries"),
    ("pooled_attn", 6, 5, "cu_rows ends with 9, want 5"),
    ("pooled_attn", 7, 2, "the map 2 blocks"),
    ("pooled_attn", 8, 1, "cu_rows gives sequence 0 3 blocks, want 40"),
    ("attn_gate_pool", 3, 4, "cu_blocks ends with 9, want 4"),
    ("attn_gate_score", 6, 2, "scores of 2 key blocks, but a sequence has 5"),
    ("gate_loss", 1, lambda t: t + 0.1, "has mass on a masked key block"),
    ("block_select", 0, lambda s: s * math.nan, "hold NaN"),
    ("block_select", 0, lambda s: s[..., :2], "the scores 2 blocks"),
]


def ids(wrong):
    return [f"{w[0]}-{w[3]}" for w in wrong]


def error_of(op, args):
    with pytest.raises(RuntimeError) as error:
        op(*args)
    return str(error.value)


def on_meta(args):
    return [a.to("meta") if isinstance(a, torch.Tensor) else a for a in args]


@pytest.mark.parametrize("name,index,value,want", WRONG + WRONG_CONTENTS, ids=ids(WRONG + WRONG_CONTENTS))
def test_wrong_arguments(name, index, value, want):
    message = error_of(*change(name, index, value))
    assert re.search(want, message) and "\n" not in message


@pytest.mark.parametrize("name,index,value,want", WRONG, ids=ids(WRONG))
def test_wrong_arguments_on_meta_and_of_fake_tensors(name, index, value, want):
    """The same error as of real tensors, word by word."""
    op, args = change(name, index, value)
    message = error_of(op, args)
    assert error_of(op, on_meta(args)) == message
    with FakeTensorMode() as mode:
        assert message in error_of(op, [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args])


TENSORS = [(name, i) for name in OPS for i, a in enumerate(calls(PACKS["packed"])[name][0]) if isinstance(a, torch.Tensor)]


@pytest.mark.parametrize("name,index", TENSORS)
def test_one_tensor_elsewhere(name, index):
    """A weight left on `meta` beside real tensors, and the other way round."""
    args = list(calls(PACKS["packed"])[name][0])
    meta = on_meta(args)
    args[index], meta[index] = meta[index], args[index]
    for mixed in (args, meta):
        message = error_of(getattr(ops, name), mixed)
        assert re.search("is on (meta|cpu), want (meta|cpu) as ", message), message


@pytest.mark.parametrize("name", OPS)
def test_forms_on_meta(name):
    """Results on `meta` have the form of real ones."""
    for pack in PACKS.values():
        args = calls(pack)[name][0]
        real, meta = getattr(ops, name)(*args), getattr(ops, name)(*on_meta(args))
        for x, y in zip(*([r] if isinstance(r, torch.Tensor) else r for r in (real, meta)), strict=True):
            assert y.is_meta and (x.shape, x.dtype, x.stride()) == (y.shape, y.dtype, y.stride())


@pytest.mark.parametrize("name,index", [t for t in TENSORS if calls(PACKS["packed"])[t[0]][0][t[1]].is_floating_point()])
def test_forward_mode_is_refused(name, index):
    args = list(calls(PACKS["packed"])[name][0])
    with forward_ad.dual_level():
        args[index] = forward_ad.make_dual(args[index], torch.ones_like(args[index]))
        with pytest.raises(RuntimeError, match="no forward-mode derivative with respect to"):
            getattr(ops, name)(*args)


def test_jvp_is_refused():
    x, weight, cos, sin = project_inputs()
    with pytest.raises(RuntimeError, match="no forward-mode derivative with respect to weight"):
        torch.func.jvp(lambda w: ops.attn_gate_project(x, w, cos, sin), (weight,), (weight,))


LARGE = 2**31 + 2  # as an int: -2147483646, even and negative; 2**32 + 2 would be 2


@pytest.mark.parametrize("size", [LARGE, 2**32 + 2, 70000])
@pytest.mark.parametrize("name,index,axis", [
    ("attn_gate_pool", 0, 1), ("attn_gate_vectors", 0, 1), ("attn_gate_project", 0, 1), ("attn_gate_project", 1, 0),
    ("attn_gate_project_grad", 0, 1), ("attn_gate_score", 0, 1), ("attn_gate_score_grad", 0, 0), ("gate_loss", 0, 0),
    ("gate_loss_with_grad", 1, 0), ("block_select", 0, 0), ("block_sparse_attn", 0, 1), ("pooled_attn", 0, 1)])
def test_too_many_heads(name, index, axis, size):
    args = list(calls(PACKS["whole"])[name][0])
    x = args[index].narrow(axis, 0, 1)
    args[index] = x.expand([size if i == axis else n for i, n in enumerate(x.shape)])
    message = error_of(getattr(ops, name), args)
    assert f"has {size} heads, want 65535 at most" in message
    assert error_of(getattr(ops, name), on_meta(args)) == message


@pytest.mark.parametrize("tokens", [2**28 + 1, 2**31 - 1, 2**32 + 64])
@pytest.mark.parametrize("name,index", [("attn_gate_pool", 0), ("block_sparse_attn", 0), ("block_sparse_attn", 1), ("pooled_attn", 1)])
def test_too_many_tokens(name, index, tokens):
    args = list(calls(PACKS["whole"])[name][0])
    args[index] = args[index][:1].expand(tokens, -1, -1)
    assert f"has {tokens} rows, want 268435456 at most" in error_of(getattr(ops, name), args)


def test_prefix_sums_near_the_end_of_int32():
    scores = torch.zeros(1, 0, 1)
    cu = torch.tensor([0, 2**31 - 1], dtype=torch.int32)
    none = torch.zeros(2, dtype=torch.int32)
    message = error_of(ops.block_select, (scores, none, cu, none, 16, "nz_ratio", [0.5]))
    assert "cu_k ends with 2147483647, want at most 268435456" in message
