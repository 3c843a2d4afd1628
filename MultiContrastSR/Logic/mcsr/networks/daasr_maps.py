"""What DAASR's internal tensors say."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ._map_spec import MapSpec

TOKEN = 4
"""Side of a token in high-resolution pixels."""


def map_specs(groups: int, scale: int) -> dict[str, MapSpec]:
    """All maps of DAASR with `groups` groups, the last group first."""
    specs = _result_specs()
    for number in range(groups, 0, -1):
        specs |= _matching_specs(number)
    specs |= _point_specs(groups)
    for number in range(groups, 0, -1):
        specs |= _feature_specs(number, scale)
    return specs | _table_specs(groups)


def group_maps(
    number: int,
    structure: Tensor,
    attention: Tensor,
    gated: Tensor,
    transferred: Tensor,
    index: Tensor,
    score: Tensor,
    grid: tuple[int, int],
) -> dict[str, Tensor]:
    """The maps of group `number` (from 1); shapes as in `daasr.Aligned`, `grid` the reference's tokens."""
    return {
        f"displacement_g{number}": displacement(index, grid),
        f"score_g{number}": score,
        f"structure_features_g{number}": structure,
        f"transferred_g{number}": transferred,
        f"gated_g{number}": gated,
        f"channel_attention_g{number}": attention,
    }


def summary_maps(
    added: Tensor, aux: Mapping[str, Tensor], matched: Tensor, scores: Tensor, grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Images of the whole network, what the last group compares, and how the matching developed over the groups.

    Args:
        added: what the network added to the interpolation (B, 1, H, W).
        aux: see `daasr.DAASR.forward`.
        matched: P of every group (B, G, n_h, n_w).
        scores: C, likewise.
        grid: (rows, columns) of the reference's tokens.
    """
    choices = matched.flatten(2)
    return {
        "added": added,
        "structure": aux["structure"],
        "texture": aux["texture"],
        "texture_minus_structure": aux["texture"] - aux["structure"],
        "queries": aux["queries"][:, -1].transpose(1, 2).unflatten(2, matched.shape[2:]),
        "keys": aux["keys"].transpose(1, 2).unflatten(2, grid),
        "mean_score": scores.flatten(2).mean(dim=-1),
        "match_agreement": (choices[:, :, None] == choices[:, None]).float().mean(dim=-1),
    }


def point_maps(maps: Mapping[str, Tensor], groups: int, row: int, column: int) -> dict[str, Tensor]:
    """Score of every reference token for the token of pixel (row, column) in the last group, and the place it took.

    Returns:
        "match_scores" and "match_source", both (B, 1, rows, columns) of the reference's token grid.
    """
    token = (row // TOKEN, column // TOKEN)
    scores = torch.einsum("bd,bdyx->byx", maps["queries"][:, :, token[0], token[1]].float(), maps["keys"].float())
    right, down = (maps[f"displacement_g{groups}"][:, :, token[0], token[1]] / TOKEN).long().unbind(1)
    rows = torch.arange(scores.shape[1], device=scores.device)[None, :, None] - (token[0] + down)[:, None, None]
    columns = torch.arange(scores.shape[2], device=scores.device)[None, None] - (token[1] + right)[:, None, None]
    distance = torch.maximum(rows.abs(), columns.abs())
    return {"match_scores": scores[:, None], "match_source": (2 - distance).clamp_min(0)[:, None]}


def displacement(index: Tensor, grid: tuple[int, int]) -> Tensor:
    """From each token to its match, in pixels along columns, then rows: (B, n_h, n_w) -> (B, 2, n_h, n_w)."""
    rows = torch.arange(index.shape[1], device=index.device)[:, None]
    columns = torch.arange(index.shape[2], device=index.device)
    steps = torch.stack([index % grid[1] - columns, index // grid[1] - rows], dim=1)
    return TOKEN * steps.float()


def _result_specs() -> dict[str, MapSpec]:
    def difference(title: str, meaning: str) -> MapSpec:
        return MapSpec(title, meaning, "Result", unit="scaled intensity", colours="diverging")

    def image(title: str, meaning: str) -> MapSpec:
        return MapSpec(title, meaning, "Result", unit="scaled intensity", colours="grey")

    return {
        "added": difference(
            "Added detail",
            "What the network added to the interpolated target: positive is brighter than the interpolation.",
        ),
        "structure": image(
            "Structure image",
            "The image that the features show before the last group takes texture from the reference.",
        ),
        "texture": image("Texture image", "The image that the texture taken over by the last group shows."),
        "texture_minus_structure": difference(
            "Texture minus structure",
            "Where the texture taken over departs from the structure: positive, the texture is brighter.",
        ),
    }


def _matching_specs(number: int) -> dict[str, MapSpec]:
    return {
        f"score_g{number}": MapSpec(
            f"Match score, group {number}",
            "How like the best place in the reference is (1: the same pattern); the texture taken over is weighted by "
            "it.",
            "Matching",
            unit="cosine similarity",
            limits=(-1.0, 1.0),
            cell=TOKEN,
        ),
        f"displacement_g{number}": MapSpec(
            f"Match displacement, group {number}",
            "From each 4x4 block to the place in the reference it was matched with; none where both lie at the same "
            "place, arbitrary in air.",
            "Matching",
            kind="displacement",
            unit="pixels",
            colours="wheel",
            cell=TOKEN,
            smooth=False,
        ),
    }


def _point_specs(groups: int) -> dict[str, MapSpec]:
    return {
        "match_scores": MapSpec(
            f"Match scores of a pixel, group {groups}",
            "How like the chosen pixel's block every place in the reference is; the brightest place was taken.",
            "Matching",
            unit="cosine similarity",
            limits=(-1.0, 1.0),
            cell=TOKEN,
            smooth=False,
            of_point=True,
        ),
        "match_source": MapSpec(
            f"Source of a pixel, group {groups}",
            "2: the block of the reference matched with the chosen pixel; 1: the surroundings copied along with it.",
            "Matching",
            kind="labels",
            colours="labels",
            limits=(0.0, 2.0),
            cell=TOKEN,
            smooth=False,
            of_point=True,
        ),
    }


def _feature_specs(number: int, scale: int) -> dict[str, MapSpec]:
    def features(title: str, meaning: str, cell: int = 1) -> MapSpec:
        return MapSpec(f"{title}, group {number}", meaning, "Features", kind="features", cell=cell)

    return {
        f"gated_g{number}": features(
            "Texture used", "Bright: much texture, fused with the structure and weighted by the match score, is used."
        ),
        f"transferred_g{number}": features(
            "Texture copied", "Features of the reference rearranged to the target's anatomy; bright: strong."
        ),
        f"structure_features_g{number}": features(
            "Structure features", "Bright: the target itself has structure here.", scale
        ),
    }


def _table_specs(groups: int) -> dict[str, MapSpec]:
    def table(title: str, meaning: str, limits: tuple[float, float], unit: str = "") -> MapSpec:
        return MapSpec(title, meaning, "Over the groups", kind="table", unit=unit, limits=limits)

    def descriptors(title: str, meaning: str) -> MapSpec:
        return MapSpec(
            title,
            meaning,
            "Matching",
            kind="features",
            limits=(-1.0, 1.0),
            cell=TOKEN,
            smooth=False,
            by_components=True,
        )

    specs = {
        "queries": descriptors(
            "Target descriptors", f"What group {groups} looks for in the reference, one unit vector for a 4x4 block."
        ),
        "keys": descriptors(
            "Reference descriptors", "What the blurred reference offers for matching, one unit vector for a 4x4 block."
        ),
        "mean_score": table(
            "Mean match score", "Mean match score of each group, first to last.", (-1.0, 1.0), "cosine similarity"
        ),
        "match_agreement": table(
            "Agreement of matches",
            "Share of blocks for which two groups (row, column) chose the same place.",
            (0.0, 1.0),
        ),
    }
    for number in range(groups, 0, -1):
        specs[f"channel_attention_g{number}"] = MapSpec(
            f"Channel attention, group {number}",
            "Row: feature of the target; column: feature it mixes in, as a share of 1.",
            "Channel attention",
            kind="table",
            limits=(0.0, 1.0),
        )
    return specs
