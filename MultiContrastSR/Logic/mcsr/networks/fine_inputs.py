"""What the networks that upsample first do with their inputs before anything else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ._registry import Network
from .blocks import upsample_slices


def fine_inputs(network: Network, target_lr: Tensor, reference: Any) -> tuple[Tensor, Any]:
    """The target on the fine grid (B, 1, H, W), and the reference as the network encodes it.

    A target that is on the reference's grid already is not upsampled again; without a reference it is its own.

    Args:
        network: what it encodes has a `shape` that ends in (H, W).
        target_lr: see `Network.forward`.
        reference: see there.
    """
    target = target_lr
    if reference is None or tuple(target_lr.shape[-2:]) != tuple(reference.shape[-2:]):
        target = upsample_slices(target_lr, network.config.scale, network.config.upsampling)
    if reference is None:
        reference = target
    if isinstance(reference, Tensor):
        reference = network.encode_reference(reference)
    if tuple(target.shape[-2:]) != tuple(reference.shape):
        raise ValueError(f"reference {reference.shape} does not fit the upsampled target {tuple(target.shape[-2:])}")
    return target, reference
