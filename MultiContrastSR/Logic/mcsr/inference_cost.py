"""What a network holds in memory while it runs, told without running it."""

from __future__ import annotations

import copy
import math
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .fast import fast_path
from .networks import Network

FIXED_BYTES = 96 * 2**20
"""What the first run of a network takes beside its tensors: code, threads, kernels of the library."""

MOST_BYTES_PER_PIXEL = 16 * 2**10
"""More than any of the ten networks holds for a pixel: where there is this much, nothing needs to be counted."""

_BEYOND_TENSORS = 1.25
"""Measured peak over the sum of the tensors, at most, for all ten networks at 512 x 512; the rest is work space."""

_SIDE = 256

_counted: weakref.WeakKeyDictionary[Network, dict[bool, float]] = weakref.WeakKeyDictionary()


def slice_bytes(network: Network, pixels: int, *, plain: bool = False) -> int:
    """Peak memory, about, of a run on one slice of a number of high-resolution pixels, without the weights.

    Args:
        network: in eval mode.
        pixels: of the slice.
        plain: of the plain network, which gives maps, instead of its fast path.
    """
    return FIXED_BYTES + math.ceil(pixels * _bytes_per_pixel(network, plain))


def pixels_within(network: Network, budget: int, *, plain: bool = False) -> int:
    """The largest slice, in high-resolution pixels, for which `slice_bytes` stays within a number of bytes."""
    return max(0, int((budget - FIXED_BYTES) / _bytes_per_pixel(network, plain)))


def _bytes_per_pixel(network: Network, plain: bool) -> float:
    """Largest sum of tensors that live at one time, counted on tensors without values; all grow with the pixels."""
    counted = _counted.setdefault(network, {})
    if plain not in counted:
        scale = network.config.scale
        side = (network.native_size or _SIDE) // scale
        empty = copy.deepcopy(network)
        empty = (empty if plain else fast_path(empty)).to("meta")
        target, reference = (torch.empty(1, 1, n, n, device="meta") for n in (side, side * scale))
        with torch.no_grad(), _LiveTensors() as live:
            empty(target, reference)
        counted[plain] = _BEYOND_TENSORS * live.peak / (side * scale) ** 2
    return counted[plain]


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors made inside while they live; a convolution also copies what it reads and gives.

    The copies are those of oneDNN, which has a memory layout of its own; of tensors with channels last it needs none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live = 0
        self._tensors: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = _tensors_in(result)
        for tensor in made:
            self._watch(tensor)
        copies = sum(map(_copied_bytes, (*made, *_tensors_in(args)))) if "convolution" in str(func) else 0
        self.peak = max(self.peak, self._live + copies)
        return result

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._tensors:
            self._live += size
        self._tensors[key] = self._tensors.get(key, 0) + 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._tensors[key] -= 1
        if not self._tensors[key]:
            del self._tensors[key]
            self._live -= size


def _tensors_in(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _copied_bytes(tensor: Tensor) -> int:
    return 0 if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) else tensor.nbytes
