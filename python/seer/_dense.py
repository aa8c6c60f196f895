"""Dense attention where a layer stays dense: decoding, sliding windows. In pieces, so that no mask grows with the square of the
length."""
import torch
import torch.nn.functional as F

_MASK_ENTRIES = 1 << 24  # of the largest mask


def dense_attention(q, k, v, valid, window, scale):
    """Causal attention of q [B, H, T, D], the last tokens of k, v [B, Hk, S, D] -> [B, T, H, D].

    valid: bool [B, S], which keys are tokens, or None: all. window: keys that a query sees back, itself included, or None.
    """
    tokens, keys = q.shape[2], k.shape[2]
    gqa = q.shape[1] != k.shape[1]
    window = window if window and window < keys else None
    if valid is None and window is None and (tokens == 1 or tokens == keys):
        o = F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1, scale=scale, enable_gqa=gqa)
        return o.transpose(1, 2)
    if tokens == 1 and window is None:
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None], scale=scale, enable_gqa=gqa)
        return o.transpose(1, 2)
    widest = min(keys, window + 1024) if window else keys
    piece = max(16, min(1024, _MASK_ENTRIES // (widest * (1 if valid is None else q.shape[0]))))
    parts = []
    for begin in range(0, tokens, piece):
        end = min(tokens, begin + piece)
        last = keys - tokens + end  # one past the last key that any of these queries sees
        first = max(0, keys - tokens + begin - window + 1) if window else 0
        at_query = torch.arange(keys - tokens + begin, last, device=q.device)[:, None]
        at_key = torch.arange(first, last, device=q.device)
        mask = at_key <= at_query
        if window:
            mask = mask & (at_key > at_query - window)
        if valid is not None:
            mask = mask & valid[:, None, None, first:last]
        parts.append(F.scaled_dot_product_attention(q[:, :, begin:end], k[:, :, first:last], v[:, :, first:last], attn_mask=mask,
                                                    scale=scale, enable_gqa=gqa))
    return (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).transpose(1, 2)
