"""LPIPS, where its backbone is present: nothing is downloaded here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from .metrics import SliceDistance

BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
"""AlexNet trained on ImageNet, under the name that torchvision gives it in torch's own cache."""


def find_lpips(device: str = "cpu") -> SliceDistance | str:
    """Learned perceptual distance of two slices (Zhang et al. 2018; AlexNet; 0 for equal slices).

    Slices (H, W) are clipped to 0..1, repeated to three channels and mapped to -1..1.

    Args:
        device: where it runs.

    Returns:
        The distance; or, where a package or the backbone is missing, one sentence on what to do.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE_FILE
    if not (find_spec("torchmetrics") and find_spec("torchvision")):
        return "LPIPS is left out: its packages are missing; run: pip install torchmetrics torchvision"
    if not file.is_file():
        return f"LPIPS is left out: its backbone is missing; put {BACKBONE_FILE} into {file.parent}."
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device).eval()
    except (ImportError, RuntimeError):  # a torchvision for another torch, or a damaged file
        return f"LPIPS is left out: torchvision does not fit this torch, or {file} is damaged; install them again."

    def distance(result: np.ndarray, truth: np.ndarray) -> float:
        first, second = (
            torch.from_numpy(np.clip(a, 0, 1).astype(np.float32)).to(device).expand(1, 3, *a.shape)
            for a in (result, truth)
        )
        with torch.inference_mode():
            value = float(network(first, second))
            network.reset()
        return value

    return distance
