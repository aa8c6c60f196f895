"""Is an output right? Sampled rows against attention in f32."""
import dataclasses

import torch

from cases import BLOCK

# Limits of |o - reference| / |reference| of a row: about four times what rounding P and o to the dtype costs.
LIMITS = {"bf16": 1e-2, "f16": 2e-3}
LSE_LIMIT = 2e-3


@dataclasses.dataclass
class Reference:
    """One sampled row: its head, its queries, and what comes out of them."""
    head: int
    row: int
    o: torch.Tensor    # [64, D] f32
    lse: torch.Tensor  # [64] f32


def sample(shape, lists, heads_of_lists, count=24, seed=0):
    """(head, row) pairs: drawn at random, and the first row, the last row and the longest list."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda end: torch.randint(end, (count,), generator=generator).tolist()
    pairs = list(zip(draw(shape.heads_q), draw(shape.rows)))
    pairs += [(0, 0), (shape.heads_q - 1, shape.rows - 1), (shape.heads_q - 1, 0), (0, shape.rows - 1)]
    if lists is not None:
        longest = int(lists.count.argmax())
        pairs.append((longest // shape.rows * (shape.heads_q // heads_of_lists), longest % shape.rows))
    return list(dict.fromkeys(pairs))


def references(shape, q, k, v, lists, pairs, causal=True):
    """Attention of the sampled rows over their listed blocks (None: all visible), in f32 without TF32.

    causal: diagonal blocks are masked, else attended to as a whole.
    """
    assert not torch.backends.cuda.matmul.allow_tf32
    device, out = q.device, []
    for head, row in pairs:
        if lists is None:
            blocks = torch.arange(row + shape.offset + 1, device=device)
        else:
            of = head * lists.count.shape[0] // shape.heads_q
            begin, count = int(lists.begin[of, row]), int(lists.count[of, row])
            blocks = lists.list[begin:begin + count].long()
        keys = (blocks[:, None] * BLOCK + torch.arange(BLOCK, device=device)).flatten()
        queries = torch.arange(row * BLOCK, row * BLOCK + BLOCK, device=device)
        kv_head = head * shape.heads_kv // shape.heads_q
        scores = q[queries, head].float() @ k[keys, kv_head].float().T * shape.scale
        if causal:
            scores.masked_fill_(keys > queries[:, None] + shape.offset * BLOCK, -torch.inf)
        out.append(Reference(head, row, scores.softmax(-1) @ v[keys, kv_head].float(), scores.logsumexp(-1)))
    return out


def compare(shape, o, lse, found):
    """Errors of o [T, Hq, D] and lse [Hq, T] (one of them may be None) at the sampled rows; `status` is "ok" or says what is wrong."""
    errors = {"rows_checked": len(found)}
    if o is not None:
        differences = [o[ref.row * BLOCK:(ref.row + 1) * BLOCK, ref.head].float() - ref.o for ref in found]
        relative = torch.stack([d.norm() / ref.o.norm() for d, ref in zip(differences, found)])  # NaN stays the largest
        errors["max_rel_error"] = relative.max().item()
        errors["max_abs_error"] = torch.stack([d.abs().max() for d in differences]).max().item()
    if lse is not None:
        off = [lse[ref.head, ref.row * BLOCK:(ref.row + 1) * BLOCK] - ref.lse for ref in found]
        errors["max_lse_error"] = torch.stack(off).abs().max().item()
    limit = LIMITS[shape.dtype]
    if not torch.isfinite(lse if o is None else o).all():
        errors["status"] = "wrong: not finite"
    elif o is not None and not errors["max_rel_error"] <= limit:
        worst = found[int(relative.argmax())]
        errors["status"] = (f"wrong: head {worst.head}, row {worst.row} differs by {errors['max_rel_error']:.2e}, "
                            f"limit {limit:g}")
    elif lse is not None and not errors["max_lse_error"] <= LSE_LIMIT:
        errors["status"] = f"wrong: lse differs by {errors['max_lse_error']:.2e}, limit {LSE_LIMIT:g}"
    else:
        errors["status"] = "ok"
    # JSON has no NaN.
    return {key: value if not isinstance(value, float) or abs(value) < float("inf") else None
            for key, value in errors.items()}


def whole_difference(o, other):
    """|o - other| / |other| over everything, head by head: finds rows that no sample met."""
    square, norm = 0.0, 0.0
    for h in range(o.shape[1]):
        square += (o[:, h].float() - other[:, h].float()).square().sum().item()
        norm += other[:, h].float().square().sum().item()
    return (square / norm) ** 0.5
