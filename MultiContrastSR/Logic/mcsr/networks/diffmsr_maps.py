"""What DiffMSR's internal tensors say."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ._map_spec import MapSpec
from .diffmsr_config import LEVELS, DiffMSRConfig

GROUPS = dict(zip(LEVELS, ("group 1", "group 2", "group 3", "group 4", "last group"), strict=True))


def map_specs(config: DiffMSRConfig) -> dict[str, MapSpec]:
    """All maps of DiffMSR; in the raw layout attention is between rows of channels and has no place in the image."""
    specs = _specs_of_result() | _specs_of_attention(config) | _specs_of_features(config.cell) | _specs_of_prior()
    if config.token_layout == "spatial":
        specs |= _specs_of_point(config)
    return specs


def attention_spread(weights: Tensor) -> Tensor:
    """Entropy over the keys in units of its maximum, mean over heads: (B, windows, heads, N, M) -> (B, windows, N)."""
    weights = weights.float()
    entropy = -(weights * weights.clamp_min(1e-12).log()).sum(dim=-1) / math.log(weights.shape[-1])
    return entropy.mean(dim=2).clamp(0, 1)


def attention_of_pixel(maps: Mapping[str, Tensor], config: DiffMSRConfig, row: int, column: int) -> dict[str, Tensor]:
    """Weights of one high-resolution pixel, laid on the token grid and 0 outside its window.

    Args:
        maps: captured, spatial layout.
        config: of the network.
        row: of the pixel.
        column: of the pixel.

    Returns:
        "attended_reference" (B, heads, h, w), and for each group "attended_LEVEL" (B, 1, h, w): each token as the head
        sees it that attends to the token's sub-position.
    """
    batch, _, height, width = maps["features_fused"].shape
    window = config.window
    y, x = row // config.cell, column // config.cell
    top, left = y - y % window, x - x % window
    number = (top // window) * (width // window) + left // window
    query = (y - top) * window + x - left

    def placed(weights: Tensor) -> Tensor:
        canvas = weights.new_zeros(batch, weights.shape[1], height, width)
        canvas[..., top : top + window, left : left + window] = weights
        return canvas

    attended = maps["attention_reference"][:, number, :, query].unflatten(-1, (window, window))
    points = {"attended_reference": placed(attended)}
    head_of_subposition = [p * config.heads // 4 for p in range(4)]
    for level in LEVELS:
        cells = maps[f"attention_{level}"][:, number, :, query].unflatten(-1, (window // 2, window // 2))
        points[f"attended_{level}"] = placed(F.pixel_shuffle(cells[:, head_of_subposition], 2))
    return points


def magnitude(image: Tensor) -> Tensor:
    """(B, 2, H, W) -> (B, 1, H, W); its gradient at 0 is 0, not infinite."""
    # A norm over two channels takes forty times as long on the CPU.
    return torch.complex(*image.float().split(1, dim=1)).abs()


def _specs_of_result() -> dict[str, MapSpec]:
    return {
        "added": MapSpec(
            "Added detail",
            "What the network added to the interpolated target: positive is brighter than the interpolation.",
            "Result",
            unit="scaled intensity",
            colours="diverging",
        ),
        "effect_of_prior": MapSpec(
            "Effect of the prior",
            "Bright: without the diffusion prior the result would be another here.",
            "Prior",
            unit="scaled intensity",
            limits=(0.0, None),
        ),
        "spread_over_seeds": MapSpec(
            "Spread over random seeds",
            "Bright: the result depends on the random start of the diffusion here (standard deviation over 8 starts).",
            "Prior",
            unit="scaled intensity",
            limits=(0.0, None),
        ),
    }


def _specs_of_attention(config: DiffMSRConfig) -> dict[str, MapSpec]:
    def spread(title: str, meaning: str) -> MapSpec:
        if config.token_layout == "raw":
            title, meaning = f"{title}, by row", f"{meaning} A profile along the rows: these weights mix whole rows."
        return MapSpec(
            title, meaning, "Attention", unit="entropy, 0 to 1", limits=(0.0, 1.0), cell=config.cell, smooth=False
        )

    specs = {
        "reference_contribution": MapSpec(
            "Contribution of the reference",
            "Bright: the reference changed the features here, compared with the target as its own reference.",
            "Reference",
            limits=(0.0, None),
            cell=config.cell,
        ),
        "attention_spread_reference": spread(
            "Spread of attention on the reference",
            "0: the place draws on one spot of the reference; 1: on all of its window alike.",
        ),
    }
    for level, group in GROUPS.items():
        specs[f"attention_spread_{level}"] = spread(
            f"Spread of attention, {group}",
            "0: the place draws on one spot of its surroundings; 1: on all of its window alike.",
        )
    return specs


def _specs_of_features(cell: int) -> dict[str, MapSpec]:
    def features(title: str, meaning: str) -> MapSpec:
        return MapSpec(title, meaning, "Features", kind="features", cell=cell)

    specs = {
        "features_target": features("Target features", "Bright: structure in the target."),
        "features_reference": features("Reference features", "Bright: structure in the reference."),
        "features_fused": features(
            "Fused features", "Target after attention to the reference; bright: strong response."
        ),
    }
    for level, group in GROUPS.items():
        specs[f"features_{level}"] = features(f"Features, {group}", f"After the {group}; bright: strong response.")
    return specs


def _specs_of_prior() -> dict[str, MapSpec]:
    return {
        "prior_trajectory": MapSpec(
            "Prior, from noise to clean",
            "First row: the random start; each further row: the prior after one more diffusion step; last: as used.",
            "Prior",
            kind="table",
            colours="diverging",
        ),
        "condition": MapSpec(
            "Condition", "What the diffusion is told of the target.", "Prior", kind="table", colours="diverging"
        ),
        "modulation": MapSpec(
            "Modulation by the prior",
            "For attention and feed-forward part of every block in turn: factors of the features, then offsets.",
            "Prior",
            kind="table",
            colours="diverging",
        ),
    }


def _specs_of_point(config: DiffMSRConfig) -> dict[str, MapSpec]:
    def table(title: str, meaning: str) -> MapSpec:
        return MapSpec(title, meaning, "Attention", kind="table", limits=(0.0, 1.0))

    def point(title: str, meaning: str, kind: str) -> MapSpec:
        return MapSpec(
            title, meaning, "Attention", kind, limits=(0.0, 1.0), cell=config.cell, smooth=False, of_point=True
        )

    specs = {
        "attended_reference": point(
            "Reference seen by a pixel",
            "Bright: the chosen pixel draws on this spot of the reference; one channel for each head.",
            "features",
        ),
        "attention_reference": table(
            "Attention on the reference", "Per window, head and query: the weight of every place of the reference."
        ),
    }
    for level, group in GROUPS.items():
        specs[f"attended_{level}"] = point(
            f"Surroundings seen by a pixel, {group}",
            "Bright: the chosen pixel draws on this spot of the target's features.",
            "image",
        )
        specs[f"attention_{level}"] = table(
            f"Attention, {group}", "Per window, head and query: the weight of every 2x2 cell of the window."
        )
    return specs
