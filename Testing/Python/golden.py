"""The recipe for golden values: a formula fills the weights, so that no file of weights is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def pseudo_random(count: int, position: int) -> np.ndarray:
    """v in -0.5..0.5 of element i of the tensor at `position`, float64 (count,)."""
    index = np.arange(count, dtype=np.float64)
    t = 43758.5453 * np.sin((index + 1) * 12.9898 + (position + 1) * 78.233)
    return t - np.floor(t) - 0.5


@torch.no_grad()
def fill(
    network: nn.Module,
    keys: Iterable[str],
    value: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray],
    positions: Mapping[str, int] | None = None,
) -> None:
    """Fill the tensors of `keys` with value(key, v, shape).

    The position of a tensor is its key's place in plain string order, or what `positions` says instead.
    """
    state = network.state_dict()
    for place, key in enumerate(sorted(keys)):
        tensor = state[key]
        position = (positions or {}).get(key, place)
        filled = value(key, pseudo_random(tensor.numel(), position), tuple(tensor.shape))
        tensor.copy_(torch.from_numpy(filled.astype(np.float32)).reshape(tensor.shape))


def five_numbers(tensor: Tensor) -> list[float]:
    """Mean, unbiased deviation, and the elements at 0, n // 3 and n - 1 in C order."""
    flat = tensor.detach().double().flatten()
    count = len(flat)
    return [flat.mean().item(), flat.std().item(), *(flat[n].item() for n in (0, count // 3, count - 1))]


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 of sorted lines joined by newlines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def shape_text(tensor: Tensor) -> str:
    """Sizes joined by "x"."""
    return "x".join(str(n) for n in tensor.shape)


def counted_gmac(network: nn.Module, height: int, width: int) -> float:
    """Multiply-accumulates (1e9) of a network for a slice (height, width) of the result; nothing is computed."""
    scale = network.config.scale  # type: ignore[union-attr]
    shapes = ((height // scale, width // scale), (height, width))
    target, reference = (torch.empty(1, 1, *shape, device="meta") for shape in shapes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta").eval()(target, reference)
    return counter.get_total_flops() / 2e9


def key_family(key: str) -> str:
    """A key without the numbers of repeated blocks."""
    return ".".join(part for part in key.split(".") if not part.isdigit())
