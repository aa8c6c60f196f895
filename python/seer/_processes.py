"""What processes of one job (torch.distributed) do together. One process alone is a job, too."""
from __future__ import annotations

import os
from typing import Callable, Iterable

import torch
import torch.distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def check_job(who: str) -> None:
    """ValueError: torchrun started several processes that do not know each other."""
    if size() == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{who}: this is one of {os.environ['WORLD_SIZE']} processes, and would train alone: call "
                         "torch.distributed.init_process_group() first")


def sum_over_processes(tensors: Iterable[torch.Tensor]) -> None:
    """In place, the same bits in all processes."""
    if size() > 1:
        for work in [dist.all_reduce(x, async_op=True) for x in tensors]:
            work.wait()


def of_first(make: Callable):
    """What `make()` gives, or raises, in the first process, in all of them."""
    if size() == 1:
        return make()
    box = [None]
    if rank() == 0:
        try:
            box = [(make(), None)]
        except Exception as error:
            box = [(None, error)]
    dist.broadcast_object_list(box)
    made, error = box[0]
    if error is not None:
        raise error
    return made


def first_alone(make: Callable):
    """What `make()` gives in the first process, None in others; what it raises, in all."""
    made = []
    of_first(lambda: made.append(make()))
    return made[0] if made else None


def take_from_first(tensors: Iterable[torch.Tensor]) -> None:
    if size() > 1:
        for x in tensors:
            dist.broadcast(x.data, 0)


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
