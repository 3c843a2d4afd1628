"""Convolutional dictionaries on three scales, their adjoints, and the proximal step between them (CD-DPE).

Codes are lists of three feature maps, coarse first: 1/4, 1/2 and full size of the slice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv3

Codes = list[Tensor]
"""[(B, C_quarter, H/4, W/4), (B, C_half, H/2, W/2), (B, C_full, H, W)]."""


class Dictionary(nn.Module):
    """A linear synthesis D from codes to features, and its exact transpose on the same weights (CDM_D, CDM_E).

    No bias, activation or norm anywhere.

    Args:
        channels: of full, half and quarter size.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        full, half, quarter = channels
        self.bottleneck_conv = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.syn_up_list = nn.ModuleList([_Finer(quarter, half), _Finer(half, full)])
        self.syn_outc = nn.ModuleDict({"conv": nn.Conv2d(full, full, 1, bias=False)})

    def forward(self, codes: Codes) -> Tensor:
        """D: codes -> features (B, C_full, H, W)."""
        features = self.bottleneck_conv(codes[0])
        for finer, code in zip(self.syn_up_list, codes[1:], strict=True):
            features = finer(features, code)
        return self.syn_outc["conv"](features)

    def adjoint(self, features: Tensor) -> Codes:
        """D transposed: features (B, C_full, H, W) -> codes."""
        rest = F.conv_transpose2d(features, self.syn_outc["conv"].weight)  # type: ignore[arg-type]
        codes: Codes = []
        for finer in reversed(self.syn_up_list):
            rest, code = finer.adjoint(rest)  # type: ignore[operator]
            codes.insert(0, code)
        return [F.conv_transpose2d(rest, self.bottleneck_conv.weight, padding=1), *codes]

    @torch.no_grad()
    def initialise(self) -> None:
        """Kaiming uniform weights with gain 1, as the published dictionaries start."""
        for weight in self.parameters():
            nn.init.kaiming_uniform_(weight, nonlinearity="linear")


class _Finer(nn.Module):
    """One scale up: the coarser features, doubled in size, join the code of this scale."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False)
        self.conv = nn.Conv2d(2 * fine, fine, 3, padding=1, bias=False)

    def forward(self, coarse: Tensor, code: Tensor) -> Tensor:
        return self.conv(torch.cat([code, self.up(coarse)], dim=1))

    def adjoint(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features -> (what goes on to the coarser scale, the code of this one)."""
        code, rest = F.conv_transpose2d(features, self.conv.weight, padding=1).chunk(2, dim=1)
        return F.conv2d(rest, self.up.weight, stride=2), code


class Proximal(nn.Module):
    """The learned proximal operator of one scale: ReLU, residual channel-attention blocks, a convolution."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        attention = [_ChannelAttentionBlock(channels, reduction) for _ in range(blocks)]
        self.body = nn.Sequential(*attention, conv3(channels, channels))

    def forward(self, codes: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); no skip around the group."""
        return self.body(F.relu(codes))


class _ChannelAttentionBlock(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3(channels, channels), nn.ReLU(), conv3(channels, channels), _ChannelAttention(channels, reduction)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _ChannelAttention(nn.Module):
    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = channels // reduction
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))
