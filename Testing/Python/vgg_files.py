"""A state dict as torchvision publishes it for VGG-19, with random values and without its large last layers."""

from __future__ import annotations

from pathlib import Path

import torch

WIDTHS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
BEYOND = {16: (256, 256), 19: (256, 512)}


def write_vgg(folder: Path, name: str = "vgg19-made-up.pth") -> Path:
    """The file, with layers beyond relu3_3 too."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, (before, after) in (WIDTHS | BEYOND).items():
        gain = (2 / (9 * before)) ** 0.5
        state[f"features.{layer}.weight"] = gain * torch.randn(after, before, 3, 3, generator=generator)
        state[f"features.{layer}.bias"] = torch.zeros(after)
    path = folder / name
    torch.save(state, path)
    return path
