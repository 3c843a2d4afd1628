"""What is trained: a network together with its loss, as one module, so that devices and processes see one forward."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import InputError
from ..networks import Network, SROutput
from ..networks.diffmsr import DiffMSR, DiffMSRStage1
from .data import Batch
from .losses import data_consistency_loss, l1_loss, loss_for, matching_loss, prior_loss
from .recipe import Recipe


class Objective(nn.Module):
    """A network with the loss of its paper.

    Args:
        network: whose forward pass and `aux` the loss reads.
        recipe: chooses the loss and the weights of its optional terms.
    """

    def __init__(self, network: Network, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.recipe = recipe
        self.loss = loss_for(recipe.network)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of a batch, whose sum is minimised."""
        output = self.network(batch.targets, batch.references)
        terms = self.loss(output, batch.truths, batch.references)
        if self.recipe.load_balance:
            # CD-DPE's published code computes it and drops it; without it one expert takes all.
            terms["load_balance"] = self.recipe.load_balance * output.aux["load_balance"]
        if self.recipe.matching:
            terms["matching"] = self.recipe.matching * matching_loss(output, batch.registered)
        return terms


class PriorStageObjective(Objective):
    """DiffMSR, stage 1: the prior is read off the truth (spec section 4)."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        output = self.network(batch.targets, batch.references, batch.truths)
        return _image_terms(output, batch.truths, self.network.config.scale)


class DiffusionStageObjective(Objective):
    """DiffMSR, stage 2: decoder, condition and denoiser together learn to do without the truth (spec section 4).

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

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See `Objective.forward`."""
        prior = self.teacher.encode_prior(batch.targets, batch.truths).detach()
        output = self.network(batch.targets, batch.references, prior=prior)
        return _image_terms(output, batch.truths, self.network.config.scale) | {"prior": prior_loss(output, prior)}


def objective_for(recipe: Recipe, network: Network, initial: Network | None) -> Objective:
    """The objective that a recipe asks for; `initial` gives stage 2 of DiffMSR its stage 1."""
    if recipe.stage is None:
        return Objective(network, recipe)
    if isinstance(network, DiffMSRStage1):
        return PriorStageObjective(network, recipe)
    if not isinstance(network, DiffMSR):
        raise InputError(f"{recipe.network} is trained in one stage; leave `stage` out of the recipe {recipe.name}.")
    if not isinstance(initial, DiffMSRStage1):
        raise InputError(f"{recipe.name} is the second stage of DiffMSR; give the weights of its first with --initial.")
    return DiffusionStageObjective(network, recipe, initial)


def _image_terms(output: SROutput, truths: Tensor, scale: int) -> dict[str, Tensor]:
    image = output.aux["complex"].float()
    return l1_loss(SROutput(image), _as_complex(truths), truths) | {
        "data_consistency": data_consistency_loss(image, _as_complex(truths), scale)
    }


def _as_complex(truths: Tensor) -> Tensor:
    # Magnitude images have no imaginary part (input convention "centred").
    return nn.functional.pad(truths, (0, 0, 0, 0, 0, 1))
