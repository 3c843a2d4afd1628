"""Pieces that several networks share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import upsampling_matrix

UPSAMPLINGS = ("sinc", "bilinear", "bicubic", "keys", "nearest")


def conv3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with bias and padding 1."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)


class ResidualBlock(nn.Module):
    """out = x + conv3(ReLU(conv3(x))): no norm, no scaling, no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3(channels, channels)
        self.conv2 = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv2(F.relu(self.conv1(x)))


def residual_blocks(channels: int, count: int) -> nn.ModuleList:
    """A list of residual blocks; apply it with `run`."""
    return nn.ModuleList([ResidualBlock(channels) for _ in range(count)])


def run(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """Apply blocks one after the other."""
    for block in blocks:
        x = block(x)
    return x


def upsample_slices(slices: Tensor, factor: int, mode: str) -> Tensor:
    """Bring slices (B, 1, h, w) onto the grid that is `factor` times finer.

    All modes put a coarse pixel amid the fine ones it covers. "sinc" is the adjoint of the k-space degradation;
    "bicubic" is cubic convolution with a = -0.75 as in the papers' code, "keys" with a = -0.5, which keeps ramps.
    """
    if factor == 1:
        return slices
    if mode == "sinc":
        rows, columns = (
            torch.as_tensor(upsampling_matrix(n, factor), dtype=slices.dtype, device=slices.device)
            for n in slices.shape[-2:]
        )
        with full_precision(slices):  # the image that networks add to: half precision would round it to 1 in 256
            return rows @ slices @ columns.T
    if mode == "nearest":
        return F.interpolate(slices, scale_factor=factor, mode="nearest")
    if mode in UPSAMPLINGS:
        keys = mode == "keys"  # with antialias the cubic kernel has a = -0.5
        mode = "bicubic" if keys else mode
        return F.interpolate(slices, scale_factor=factor, mode=mode, align_corners=False, antialias=keys)
    raise ValueError(f"unknown upsampling '{mode}'; known are {', '.join(UPSAMPLINGS)}")


def instance_norm(x: Tensor) -> Tensor:
    """Every channel (B, C, H, W) with mean 0 and deviation 1, float32.

    torch's own (2.13, CPU) returns a wrong gradient for a batch of one when it comes in channels_last order.
    """
    variance, mean = torch.var_mean(x.float(), dim=(2, 3), keepdim=True, unbiased=False)
    return (x - mean) * (variance + 1e-5).rsqrt()


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W), linear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def has_autocast(device: str) -> bool:
    """Whether half precision can be switched on, and off, on a kind of device.

    It cannot on "meta", on which costs are counted, and on "mps" before version 2.5 of PyTorch. The question itself
    came with 2.3.
    """
    known = getattr(torch.amp, "is_autocast_available", ("cpu", "cuda").__contains__)
    return bool(known(device))


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """A stretch without autocast: positions, norms and matches do not survive half precision."""
    return torch.autocast(x.device.type, enabled=False) if has_autocast(x.device.type) else nullcontext()


def pad_to(slices: Tensor, height: int, width: int) -> Tensor:
    """Pad (B, C, H, W) at the far ends to (height, width) by repeating the border."""
    bottom, right = height - slices.shape[-2], width - slices.shape[-1]
    return F.pad(slices, (0, right, 0, bottom), mode="replicate") if bottom or right else slices


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that is at least `size`."""
    return -(-size // multiple) * multiple
