"""What a network costs: parameters, and multiply-accumulate operations for a slice."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ._registry import Network, create_network


def parameter_count(network: Network) -> int:
    """Trainable values; a tensor that goes by two names counts once."""
    return sum(p.numel() for p in network.parameters())


def gmac(name: str, height: int, width: int, **config: object) -> float:
    """Multiply-accumulates (1e9) of convolutions and matrix products for one high-resolution slice.

    Counted on tensors without values, so that nothing is computed.

    Args:
        name: registered name.
        height: of the result, pixels, a multiple of the scale.
        width: of the result, pixels, a multiple of the scale.
        config: fields to replace in the default config.
    """
    with torch.device("meta"):
        network = create_network(name, **config).eval()
        scale = network.config.scale
        target, reference = torch.empty(1, 1, height // scale, width // scale), torch.empty(1, 1, height, width)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(target, reference)
    return counter.get_total_flops() / 2e9
