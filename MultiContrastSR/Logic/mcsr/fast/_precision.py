"""The precision that a fast path runs its convolutions in."""

from __future__ import annotations

import torch
from torch import Tensor


def working_dtype(x: Tensor) -> torch.dtype:
    """That of autocast where it is on for the device of `x` (half precision was asked for), else float32.

    A fast path keeps its weights in this type and casts where it must, so that autocast itself has nothing to do.
    """
    kind = x.device.type
    if not _autocast_is_on(kind):
        return torch.float32
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(kind)
    return torch.get_autocast_cpu_dtype() if kind == "cpu" else torch.get_autocast_gpu_dtype()


def _autocast_is_on(kind: str) -> bool:
    if hasattr(torch, "get_autocast_dtype"):  # from 2.4 on the question can name the device
        known = getattr(torch.amp, "is_autocast_available", ("cpu", "cuda").__contains__)
        return bool(known(kind)) and torch.is_autocast_enabled(kind)
    return torch.is_autocast_cpu_enabled() if kind == "cpu" else torch.is_autocast_enabled()
