"""HFTN-SR, the same slices sooner: see `FastHFTNSR`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.hftn_sr import HFTNSR, SCRFM, ChannelAttentionBlock
from ._layers import ConvolutionToFew, channels_last, exchange
from ._path import ChangedCopy, accelerates


@accelerates(HFTNSR)
class FastHFTNSR(ChangedCopy):
    """A copy of the network, channels last, with a few modules exchanged.

    In that layout transposed convolutions are six times as fast on the CPU and others half as fast again. All that
    depends on the reference alone is in its encoding. Matches are those of the plain network, but where the two best
    are within rounding of each other.
    """

    network: HFTNSR

    def __init__(self, plain: HFTNSR) -> None:
        super().__init__(plain)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        exchange(self.network, {ChannelAttentionBlock: GatedBlock, SCRFM: Reconstruction})
        self.network.out2 = ConvolutionToFew(plain.out2)  # type: ignore[assignment]


class GatedBlock(nn.Module):
    """RCAB; the gate is two matrix products."""

    def __init__(self, plain: ChannelAttentionBlock) -> None:
        super().__init__()
        self.c1, self.c2, self.ca = plain.c1, plain.c2, plain.ca

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y = self.c2(F.relu(self.c1(x), inplace=True))
        narrow = F.relu(_linear(self.ca["a"], y.mean(dim=(2, 3))))
        gate = torch.sigmoid(_linear(self.ca["b"], narrow))
        return torch.addcmul(x, y, gate[:, :, None, None].to(y.dtype))


class Reconstruction(nn.Module):
    """SCRFM; both halves of the fine features are convolved where they are, not joined first."""

    weight_of_first: Tensor
    weight_of_second: Tensor

    def __init__(self, plain: SCRFM) -> None:
        super().__init__()
        self.plain = plain
        first, second = (channels_last(half) for half in plain.out.weight.detach().chunk(2, dim=1))
        self.register_buffer("weight_of_first", first)
        self.register_buffer("weight_of_second", second)

    def forward(self, deep: Tensor, shallow: Tensor, maps: None) -> Tensor:
        """See `SCRFM.forward`."""
        plain = self.plain
        adapted = plain.adapted(deep, shallow, None)
        difference = shallow - plain.c2(F.relu(plain.c1(adapted), inplace=True))
        enlarged = F.interpolate(adapted, scale_factor=plain.scale, mode="bilinear", align_corners=False)
        first = F.relu(plain.d1(difference), inplace=True) + enlarged
        joined = F.conv2d(first, self.weight_of_first, plain.out.bias, padding=1)
        second = F.relu(plain.d2(difference + shallow), inplace=True)
        return F.relu(joined.add_(F.conv2d(second, self.weight_of_second, padding=1)), inplace=True)


def _linear(conv: Any, vectors: Tensor) -> Tensor:
    """What a 1x1 convolution gives for (B, C)."""
    return F.linear(vectors, conv.weight.flatten(1), conv.bias)
