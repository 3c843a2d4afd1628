"""Displacement fields between two feature maps, and the warp that follows them (CD-DPE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv3, double, full_precision


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Sample an image where the displacement points to: out[r, c] = image[r + d_row, c + d_column].

    Linear interpolation in float32; beyond the border its pixels repeat.

    Args:
        image: (B, C, H, W).
        displacement: (B, 2, H, W), pixels along columns, then along rows.
    """
    height, width = image.shape[-2:]
    with full_precision(image):
        image, displacement = image.float(), displacement.float()
        columns = torch.linspace(-1, 1, width, device=image.device) + displacement[:, 0] * (2 / (width - 1))
        rows = torch.linspace(-1, 1, height, device=image.device)[:, None] + displacement[:, 1] * (2 / (height - 1))
        grid = torch.stack([columns, rows], dim=-1)
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


class OffsetNetwork(nn.Module):
    """net_T: where features `b` find their like in features `a`, and how far to trust it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset_conv1_1 = conv3(2 * channels, channels)
        self.offset_conv2_1 = conv3(channels, channels)
        self.offset_conv3_1 = conv3(channels, channels, stride=2)
        self.offset_conv4_1 = conv3(channels, channels)
        self.offset_conv6_1 = conv3(channels, channels, stride=2)
        self.offset_conv7_1 = conv3(channels, channels)
        self.offset_conv1_2 = conv3(2 * channels, channels)
        self.offset_conv2_2 = conv3(channels, channels)
        self.offset_conv3_2 = conv3(2 * channels, channels)
        self.offset_conv4_2 = conv3(channels, channels)
        self.offset_last = conv3(channels, 2)
        self.mask_last = conv3(channels, 1)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) twice, H and W multiples of 4 -> displacement (B, 2, H, W), mask (B, 1, H, W) in 0..1."""
        full = _chain(torch.cat([a, b], dim=1), self.offset_conv1_1, self.offset_conv2_1)
        half = _chain(full, self.offset_conv3_1, self.offset_conv4_1)
        quarter = _chain(half, self.offset_conv6_1, self.offset_conv7_1)
        half = _chain(torch.cat([double(quarter), half], dim=1), self.offset_conv1_2, self.offset_conv2_2)
        full = _chain(torch.cat([double(half), full], dim=1), self.offset_conv3_2, self.offset_conv4_2)
        return self.offset_last(full), self.mask_last(full).sigmoid()


def _chain(x: Tensor, *convolutions: nn.Conv2d) -> Tensor:
    for convolution in convolutions:
        x = F.leaky_relu(convolution(x), 0.1)
    return x
