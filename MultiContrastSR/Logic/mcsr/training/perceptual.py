"""The perceptual term of DAASR: distance between features of VGG-19."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError

# Up to relu3_3: output channels of 3x3 convolutions, each with a ReLU; None halves the grid.
_LAYERS = (64, 64, None, 128, 128, None, 256, 256, 256)
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGFeatures(nn.Module):
    """relu3_3 of VGG-19, frozen, for grey images.

    Args:
        file: state dict as torchvision publishes it (vgg19-*.pth); None looks for one in torchvision's cache.

    Raises:
        InputError: when there is no such file or it holds something else.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self.features = _layers()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)
        path = file or _cached()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict({name: state[name] for name in self.state_dict()})
        except Exception as error:  # torch raises errors of many kinds for what is no state dict, or another one
            raise InputError(
                f"{path} is not the VGG-19 that the perceptual term needs; give torchvision's vgg19-*.pth."
            ) from error
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 256, H/4, W/4) of images (B, 1, H, W), which are clamped to 0..1 first."""
        colour = images.clamp(0, 1).expand(-1, 3, -1, -1)
        return self.features((colour - self.mean) / self.deviation)

    def distance(self, images: Tensor, truths: Tensor) -> Tensor:
        """Mean squared difference of the features of two batches (B, 1, H, W)."""
        return F.mse_loss(self(images).float(), self(truths).float())


def _layers() -> nn.Sequential:
    """Numbered as torchvision does it, layers 0 to 15 of its `features`."""
    layers: list[nn.Module] = []
    channels = 3
    for width in _LAYERS:
        if width is None:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def _cached() -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    found = sorted(folder.glob("vgg19-*.pth"))
    if not found:
        raise InputError(
            f"The perceptual term needs VGG-19, and there is no vgg19-*.pth in {folder}: put torchvision's file there,"
            " name one with --backbone, or leave `perceptual` out of the recipe's [loss]."
        )
    return found[0]
