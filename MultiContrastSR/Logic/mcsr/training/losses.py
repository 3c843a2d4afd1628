"""What each network is trained with (the loss sections of the specs)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..networks import SROutput
from .recipe import Recipe

Loss = Callable[[SROutput, Tensor, Tensor], dict[str, Tensor]]
"""From a forward pass, truths (B, 1, H, W) and references (B, 1, H, W) to the terms of a loss, not weighted yet."""

WEIGHTS: dict[str, dict[str, float]] = {
    "cd-dpe": {
        "l1": 1.0,
        "target_consistency": 1.0,
        "reference_consistency": 0.01,
        "mutual_information": 0.1,
        "load_balance": 0.0,
    },
    "daasr": {"l1": 1.0, "structure": 0.1, "texture": 0.01, "perceptual": 0.0, "matching": 0.0},
    "hftn-sr": {"l1": 1.0, "matching": 0.0},
    "dcamsr": {"l1": 1.0},
    "diffmsr": {"l1": 1.0, "data_consistency": 0.001, "prior": 1.0},
}
"""The terms of each network and their weights where a recipe gives no others: those of the papers. What needs a
backbone or is in no paper is off, as is the term "adversarial", which all networks have."""

MI_BINS = 32
MATCHING_TEMPERATURE = 0.1


def loss_weights(recipe: Recipe) -> dict[str, float]:
    """The weight of every term that a recipe trains with; those of weight 0 are left out.

    Raises:
        InputError: when the recipe weighs a term that its network does not have.
    """
    known = WEIGHTS.get(_family(recipe.network), {"l1": 1.0}) | {"adversarial": 0.0}
    if recipe.stage == 1:
        known.pop("prior", None)  # which the first stage makes and the second one learns to estimate
    ours = {"load_balance": recipe.load_balance, "matching": recipe.matching}
    asked = {name: weight for name, weight in ours.items() if weight} | recipe.loss
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise InputError(
            f"{recipe.name} weighs {', '.join(unknown)}; the terms of {recipe.network} are {', '.join(known)}."
        )
    return {name: weight for name, weight in (known | asked).items() if weight}


def loss_for(network: str) -> Loss:
    """The loss of a registered network or of its slim form, L1 for all that have none of their own.

    That of DiffMSR depends on the stage (`objective`).
    """
    return LOSSES.get(_family(network), l1_loss)


def _family(network: str) -> str:
    return network.removesuffix("-s")


def l1_loss(output: SROutput, truth: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Mean absolute error: DCAMSR, HFTN-SR (Eq. 19)."""
    return {"l1": F.l1_loss(output.sr.float(), truth)}


def cd_dpe_loss(output: SROutput, truth: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Reconstruction, feature consistency and mutual information (CD-DPE, Eq. 17-20)."""
    maps = {name: tensor.float() for name, tensor in output.aux.items()}
    information = mutual_information(maps["x_common"], maps["x_unique"]) + mutual_information(
        maps["y_common"], maps["y_unique"]
    )
    return {
        "l1": F.l1_loss(output.sr.float(), truth),
        "target_consistency": F.l1_loss(maps["x_rec"], truth),
        "reference_consistency": F.l1_loss(maps["y_rec"], reference),
        "mutual_information": information,
    }


def daasr_loss(output: SROutput, truth: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Three levels: result, structure and texture image (DAASR, Eq. 12-14); `perceptual` has the term on features."""
    return {
        "l1": F.l1_loss(output.sr.float(), truth),
        "structure": F.l1_loss(output.aux["structure"].float(), truth),
        "texture": F.l1_loss(output.aux["texture"].float(), truth),
    }


LOSSES: dict[str, Loss] = {"cd-dpe": cd_dpe_loss, "daasr": daasr_loss}


def data_consistency_loss(image: Tensor, truth: Tensor, scale: int) -> Tensor:
    """DiffMSR: mean squared error of unnormalised k-space outside the acquired band, as in the published code.

    Args:
        image: result (B, 2, H, W), real and imaginary part.
        truth: likewise.
        scale: the acquired band is the central 1/scale of rows and columns, which consistency replaces anyway.
    """
    difference = (image - truth).float()
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.complex(difference[:, 0], difference[:, 1])), dim=(-2, -1))
    outside = torch.ones(spectrum.shape[-2:], device=image.device)
    rows, columns = (slice(n // 2 - n // scale // 2, n // 2 - n // scale // 2 + n // scale) for n in outside.shape)
    outside[rows, columns] = 0
    # The mean is over both parts of every sample, as published.
    return (torch.view_as_real(spectrum) * outside[..., None]).square().mean()


def prior_loss(output: SROutput, prior: Tensor) -> Tensor:
    """DiffMSR, stage 2: mean absolute difference between the estimated prior (B, Z) and that of stage 1."""
    return F.l1_loss(output.aux["prior"].float(), prior)


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Parzen estimate of the mutual information of two maps (B, 1, H, W), nats, mean over the batch (CD-DPE).

    Values are clamped to [0, 1], so those outside get no gradient.
    """
    weights_a, weights_b = _soft_bins(a), _soft_bins(b)
    joint = weights_a.transpose(1, 2) @ weights_b / weights_a.shape[1]
    independent = weights_a.mean(dim=1)[:, :, None] * weights_b.mean(dim=1)[:, None, :]
    return (joint * (joint / (independent + 1e-6) + 1e-6).log()).sum(dim=(1, 2)).mean()


def _soft_bins(values: Tensor) -> Tensor:
    """Share of each pixel in each of 32 bins on [0, 1]: (B, N, 32)."""
    centres = torch.linspace(0, 1, MI_BINS, device=values.device)
    width = 1 / (MI_BINS - 1)
    distance = values.float().clamp(0, 1).flatten(1)[..., None] - centres
    weights = torch.exp(-(distance**2) / (2 * width**2))
    return weights / weights.sum(dim=-1, keepdim=True)


def matching_loss(output: SROutput, registered: Tensor) -> Tensor:
    """DAASR and HFTN-SR, not in their papers: a token's best match is the one at its own place.

    The published losses reach query and key through the score of the match that was chosen already, so that a short
    training never finds the right ones.

    Args:
        output: with "queries" (B, G, n, d) and "keys" (B, n, d) or (B, G, n, d) in `aux`, of unit length.
        registered: (B,) bool, which references lie on the target; the others have no right match.

    Returns:
        Cross-entropy in nats, mean over tokens and groups.
    """
    queries, keys = output.aux["queries"][registered].float(), output.aux["keys"][registered].float()
    if not len(queries):
        return output.sr.new_zeros(())
    keys = keys if keys.ndim == 4 else keys[:, None].expand(-1, queries.shape[1], -1, -1)
    logits = torch.einsum("bgnd,bgmd->bmgn", queries, keys) / MATCHING_TEMPERATURE
    own_place = torch.arange(keys.shape[2], device=keys.device)
    return F.cross_entropy(logits, own_place.expand(len(logits), logits.shape[2], -1))
