"""What is trained: a network together with its loss, as one module, so that devices and processes see one forward."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks import Network, SROutput
from ..networks.diffmsr import DiffMSR, DiffMSRStage1
from .data import Batch
from .losses import data_consistency_loss, l1_loss, loss_for, loss_weights, matching_loss, prior_loss
from .perceptual import VGGFeatures
from .recipe import Recipe


class Scored(NamedTuple):
    """The weighted terms of a batch, whose sum is minimised, and the images (B, 1, H, W) they are of."""

    terms: dict[str, Tensor]
    images: Tensor


class Objective(nn.Module):
    """A network with the loss of its paper.

    Args:
        network: whose forward pass and `aux` the loss reads.
        recipe: chooses the loss and the weights of its terms.
        backbone: file of the perceptual term's VGG-19, see `VGGFeatures`.
    """

    def __init__(self, network: Network, recipe: Recipe, backbone: Path | None = None) -> None:
        super().__init__()
        self.network = network
        self.loss = loss_for(recipe.network)
        self.weights = loss_weights(recipe)
        self.perceptual = VGGFeatures(backbone) if "perceptual" in self.weights else None

    def forward(self, batch: Batch) -> Scored:
        """Run the network on a batch and compare."""
        output, terms = self.compare(batch)
        return Scored({name: self.weights[name] * t for name, t in terms.items() if name in self.weights}, output.sr)

    def compare(self, batch: Batch) -> tuple[SROutput, dict[str, Tensor]]:
        """The network's output and the terms of the loss, not weighted yet."""
        output = self.network(batch.targets, batch.references)
        terms = self.loss(output, batch.truths, batch.references)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual.distance(output.aux["texture"], batch.truths)
        if "load_balance" in self.weights:
            # CD-DPE's published code computes it and drops it; without it one expert takes all.
            terms["load_balance"] = output.aux["load_balance"]
        if "matching" in self.weights:
            terms["matching"] = matching_loss(output, batch.registered)
        return output, terms


class PriorStageObjective(Objective):
    """DiffMSR, stage 1: the prior is read off the truth."""

    def compare(self, batch: Batch) -> tuple[SROutput, dict[str, Tensor]]:
        """See `Objective.compare`."""
        output = self.network(batch.targets, batch.references, batch.truths)
        return output, _image_terms(output, batch.truths, self.network.config.scale)


class DiffusionStageObjective(Objective):
    """DiffMSR, stage 2: decoder, condition and denoiser together learn to do without the truth.

    Args:
        network: of stage 2; its decoder starts as that of stage 1.
        recipe: see `Objective`.
        teacher: of stage 1; only its prior encoder is used, frozen.
    """

    def __init__(self, network: DiffMSR, recipe: Recipe, teacher: DiffMSRStage1) -> None:
        super().__init__(network, recipe)
        network.G.load_state_dict(teacher.G.state_dict())
        self.teacher = teacher.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> DiffusionStageObjective:
        """The teacher never trains."""
        super().train(mode)
        self.teacher.eval()
        return self

    def compare(self, batch: Batch) -> tuple[SROutput, dict[str, Tensor]]:
        """See `Objective.compare`; the diffusion starts from torch's global random numbers."""
        prior = self.teacher.encode_prior(batch.targets, batch.truths).detach()
        output = self.network(batch.targets, batch.references, prior=prior, generator=torch.random.default_generator)
        terms = _image_terms(output, batch.truths, self.network.config.scale)
        return output, terms | {"prior": prior_loss(output, prior)}


def objective_for(
    recipe: Recipe, network: Network, initial: Network | None = None, backbone: Path | None = None
) -> Objective:
    """The objective that a recipe asks for; `initial` gives stage 2 of DiffMSR its stage 1."""
    if recipe.stage is None:
        return Objective(network, recipe, backbone)
    if isinstance(network, DiffMSRStage1):
        return PriorStageObjective(network, recipe)
    if not isinstance(network, DiffMSR):
        raise InputError(f"{recipe.network} is trained in one stage; leave `stage` out of the recipe {recipe.name}.")
    if not isinstance(initial, DiffMSRStage1):
        raise InputError(f"{recipe.name} is the second stage of DiffMSR; give the weights of its first with --initial.")
    return DiffusionStageObjective(network, recipe, initial)


def _image_terms(output: SROutput, truths: Tensor, scale: int) -> dict[str, Tensor]:
    image, truth = output.aux["complex"].float(), _as_complex(truths)
    return l1_loss(SROutput(image), truth, truths) | {"data_consistency": data_consistency_loss(image, truth, scale)}


def _as_complex(truths: Tensor) -> Tensor:
    # Magnitude images have no imaginary part (input convention "centred").
    return nn.functional.pad(truths, (0, 0, 0, 0, 0, 1))
