"""What processes of one job (torch.distributed) do together. One process alone is a job, too."""
from __future__ import annotations

import torch
import torch.distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_sharded(x: torch.Tensor) -> bool:
    """By FSDP2."""
    return hasattr(x, "full_tensor")


def is_model_sharded(model: torch.nn.Module) -> bool:
    """Some of its weights, by FSDP2. ValueError: by FSDP1, which keeps them in vectors that a gate's gradient does not reach."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule
    modules = list(model.modules())
    by_fsdp2 = any(isinstance(x, FSDPModule) for x in modules)
    if not by_fsdp2 and any(getattr(x, "_is_fsdp_managed_module", False) for x in modules):
        raise ValueError("seer: gates cannot learn in a model that FSDP1 shards: take FSDP2 (fully_shard, accelerate's fsdp_version: 2)")
    return by_fsdp2


def whole(x: torch.Tensor) -> torch.Tensor:
    """All of a tensor, of which every process may have a shard (FSDP2): then all must ask."""
    if not is_sharded(x):
        return x
    home = x.device_mesh.device_type  # shards may wait in host memory
    return (x if x.device.type == home else x.to(home)).full_tensor()
