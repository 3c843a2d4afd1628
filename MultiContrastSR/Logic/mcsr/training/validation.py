"""How good a network is during training: its PSNR on validation subjects, and images to look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric

from ..metrics import psnr
from ..networks import Network, create_network
from ..networks.diffmsr import DiffMSRStage1
from .data import TrainingPair, read_sample
from .recipe import Recipe

STRIDE = 6
"""Every sixth slice."""

GAP = 2
"""Columns between the images of an example."""


class Validation(NamedTuple):
    """PSNR (dB, data range 1) by pair and what was compared; by pair an example (1, H, 4 W + gaps) in 0..1."""

    scores: dict[str, float]
    examples: dict[str, np.ndarray]


def validate_everywhere(fabric: Fabric, network: Network, pairs: list[TrainingPair], recipe: Recipe) -> Validation:
    """`validate` with the pairs shared out among the processes; the first gets the whole, the others some of it."""
    mine = validate(network, pairs[fabric.global_rank :: fabric.world_size], recipe)
    if fabric.world_size == 1:
        return mine
    everyone: list[Validation | None] = [None] * fabric.world_size
    torch.distributed.all_gather_object(everyone, mine)
    found = [validation for validation in everyone if validation is not None]
    return Validation(
        {name: value for validation in found for name, value in validation.scores.items()},
        {name: image for validation in found for name, image in validation.examples.items()},
    )


@torch.no_grad()
def validate(network: Network, pairs: list[TrainingPair], recipe: Recipe) -> Validation:
    """PSNR of every sixth slice by pair, with the reference and with the target as its own, beside sinc interpolation.

    Stage 1 of DiffMSR is given the truth, so its figures say how it trains and nothing more.
    """
    validation = Validation({}, {})
    device = next(network.parameters()).device
    sinc = create_network("sinc", scale=recipe.scale)
    for pair in pairs:
        rows: dict[str, list[float]] = {"reference": [], "self": [], "sinc": []}
        shown = pair.source.slices[::STRIDE]
        for index in shown:
            sample = read_sample(pair, index, recipe.scale, recipe.degradation)
            arrays = (sample.target_lr, sample.reference, sample.target_hr)
            lr, reference, truth = (torch.from_numpy(np.ascontiguousarray(a))[None].to(device) for a in arrays)
            helped = (truth,) if isinstance(network, DiffMSRStage1) else ()
            upsampled = sinc(lr, reference).sr
            results = {
                "reference": network(lr, reference, *helped).sr,
                "self": network(lr, upsampled, *helped).sr,
                "sinc": upsampled,
            }
            images = {name: np.maximum(result[0].cpu().numpy(), 0) for name, result in results.items()}
            for name, image in images.items():
                rows[name].append(psnr(image, sample.target_hr))
            if index == shown[len(shown) // 2]:
                row = (images["sinc"], images["reference"], sample.target_hr, sample.reference)
                validation.examples[pair.source.key] = side_by_side(*row)
        for name, values in rows.items():
            validation.scores[f"{pair.source.key} {name}"] = float(np.mean(values))
    return validation


def side_by_side(*images: np.ndarray) -> np.ndarray:
    """Input, result, truth and reference, each (1, H, W), as one image between white gaps; 0..1 of each is shown."""
    gap = np.ones((1, images[0].shape[1], GAP), np.float32)
    columns = [column for image in images for column in (np.clip(image, 0, 1), gap)]
    return np.concatenate(columns[:-1], axis=2)
