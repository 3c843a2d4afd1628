"""Pieces that several fast paths share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channels_last(x: Tensor) -> Tensor:
    """The same (B, C, H, W) with the channels of a pixel side by side, which the convolutions of the CPU like best."""
    return x.to(memory_format=torch.channels_last)  # contiguous() leaves a single channel as it is


def exchange(network: nn.Module, by_class: Mapping[type[nn.Module], Callable[[Any], nn.Module]]) -> None:
    """Put in the place of every module of some classes what is made of it."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) in by_class:
                setattr(module, name, by_class[type(child)](child))


class ConvolutionToFew(nn.Module):
    """A 3x3 convolution from many channels to one or two, of which the usual kernels leave most of the machine idle.

    First every pixel gives its nine contributions, a matrix product; then those are added up where they belong. A
    convolution and pixel shuffle before it, with nothing else between, become part of that product.

    Args:
        conv: with padding 1 and stride 1.
        after: a convolution of the same kind before it, followed by a pixel shuffle, if there is one.
        factor: of that pixel shuffle.
    """

    weight: Tensor
    bias: Tensor
    weight_of_taps: Tensor
    bias_of_taps: Tensor | None

    def __init__(self, conv: nn.Conv2d, after: nn.Conv2d | None = None, factor: int = 1) -> None:
        super().__init__()
        assert conv.bias is not None
        self.outputs, self.factor = conv.out_channels, factor
        # A pixel gives to its neighbour below what that takes from the one above.
        weight = conv.weight.detach().flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)
        self.register_buffer("weight", weight[..., None, None])
        self.register_buffer("bias", conv.bias.detach()[:, None, None])
        bias = None
        if after is not None:
            assert after.bias is not None
            before = after.weight.detach().unflatten(0, (-1, factor**2))
            bias = (weight @ after.bias.detach().unflatten(0, (-1, factor**2))).flatten()
            weight = torch.einsum("tc,cfdhw->tfdhw", weight, before).flatten(0, 1)
            self.register_buffer("weight_of_taps", channels_last(weight))
        else:
            self.register_buffer("weight_of_taps", self.weight, persistent=False)
        self.register_buffer("bias_of_taps", bias)

    def taps(self, x: Tensor) -> Tensor:
        """Contributions (B, 9 outputs, factor h, factor w) of features (B, C, h, w)."""
        taps = F.conv2d(x, self.weight_of_taps, self.bias_of_taps, padding=self.weight_of_taps.shape[-1] // 2)
        return F.pixel_shuffle(taps, self.factor)

    def gathered(self, taps: Tensor) -> Tensor:
        """The convolution's result (B, outputs, H, W), of what `taps` gave, float32."""
        size = taps.shape[-2:]
        return F.fold(taps.float().flatten(2), (size[0], size[1]), kernel_size=3, padding=1) + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, outputs, factor h, factor w)."""
        return self.gathered(self.taps(x))
