"""What HFTN-SR's internal tensors say."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ._map_spec import MapSpec


def map_specs(scale: int, stages: int, transfer: str, reconstruction: str) -> dict[str, MapSpec]:
    """All maps of HFTN-SR, in the order of display."""
    specs = {
        "added": MapSpec(
            "Added detail",
            "What the network added to the interpolated target: positive is brighter than the interpolation.",
            "Result",
            unit="scaled intensity",
            colours="diverging",
        ),
        "added_by_reference_edges": MapSpec(
            "Added by the reference's edges",
            "The part of the added detail that comes straight from the reference's high band; an edge here that the "
            "target has not is a ghost of a reference that lies askew.",
            "Result",
            unit="scaled intensity",
            colours="diverging",
        ),
        "high_band": MapSpec(
            "High band of the reference",
            "The detail that the reference offers: positive is brighter than its low band.",
            "Bands of the reference",
            unit="scaled intensity",
            colours="diverging",
        ),
        "low_band": MapSpec(
            "Low band of the reference",
            "The reference at the target's resolution: what target patches are compared with.",
            "Bands of the reference",
            unit="scaled intensity",
            colours="grey",
            cell=scale,
        ),
    }
    for number in range(stages, 0, -1) if transfer != "none" else ():
        specs |= _specs_of_stage(number, scale, transfer)
    return specs | (_specs_of_reconstruction(scale) if reconstruction == "scrfm" else {})


def _specs_of_reconstruction(scale: int) -> dict[str, MapSpec]:
    return {
        "gain": MapSpec(
            "Gain of the deep features",
            "By how much the features after the last stage are amplified here to regain the target's contrast (mean "
            "over channels).",
            "Modulation",
            cell=scale,
        ),
        "offset": MapSpec(
            "Offset of the deep features",
            "What is added to the features after the last stage here (mean over channels).",
            "Modulation",
            colours="diverging",
            cell=scale,
        ),
        "difference": MapSpec(
            "Target minus fused features",
            "Bright: the target's own features hold something here that the fused ones do not.",
            "Modulation",
            kind="features",
            cell=scale,
        ),
    }


def matching_maps(index: Tensor, grid: tuple[int, int], cell: int, name: str) -> dict[str, Tensor]:
    """Displacement and usage of best matches.

    Args:
        index: of the best reference patch for every target patch (B, n), row by row.
        grid: rows and columns of patches, n = rows * columns.
        cell: high-resolution pixels along one patch.
        name: of the stage.

    Returns:
        (B, 2, *grid) from target to source, along columns, then rows, in high-resolution pixels; and how many target
        patches chose each reference patch (B, 1, *grid).
    """
    place = torch.arange(index.shape[1], device=index.device)
    columns = index % grid[1] - place % grid[1]
    rows = index // grid[1] - place // grid[1]
    usage = torch.zeros_like(index).scatter_add(1, index, torch.ones_like(index))
    return {
        f"displacement_{name}": cell * torch.stack([columns, rows], dim=1).reshape(-1, 2, *grid).float(),
        f"usage_{name}": usage.reshape(-1, 1, *grid).float(),
    }


def match_scores(maps: Mapping[str, Tensor], name: str, row: int, column: int) -> Tensor:
    """Cosine similarity of target patch (row, column) with every reference patch: one row of R as (B, 1, h/2, w/2)."""
    height, width = maps[f"relevance_{name}"].shape[-2:]
    queries, keys = maps[f"embeddings_{name}"].unbind(dim=1)
    scores = keys @ queries[:, row * width + column, :, None]
    return scores.reshape(-1, 1, height, width)


def _specs_of_stage(number: int, scale: int, transfer: str) -> dict[str, MapSpec]:
    name, stage, patch = f"stage{number}", f"stage {number}", 2 * scale
    carried = "was brought here" if transfer == "gather" else "was taken over in its place"
    return {
        f"relevance_{name}": MapSpec(
            f"Relevance, {stage}",
            "How well the best patch of the reference matches here; what is taken over is weighted by it.",
            "Matching",
            unit="cosine similarity",
            limits=(-1.0, 1.0),
            cell=patch,
            smooth=False,
        ),
        f"displacement_{name}": MapSpec(
            f"Origin of the best match, {stage}",
            "Where in the reference the best matching patch lies: colour is direction, strength is distance.",
            "Matching",
            kind="displacement",
            unit="pixels",
            colours="wheel",
            cell=patch,
            smooth=False,
        ),
        f"usage_{name}": MapSpec(
            f"Use of the reference, {stage}",
            "How many places of the target chose this patch of the reference; dark parts of it were not used.",
            "Matching",
            unit="patches",
            limits=(0.0, None),
            cell=patch,
            smooth=False,
        ),
        f"match_scores_{name}": MapSpec(
            f"Match with a pixel, {stage}",
            "How well each patch of the reference matches the chosen pixel's patch; the brightest is the source.",
            "Matching",
            unit="cosine similarity",
            limits=(-1.0, 1.0),
            cell=patch,
            smooth=False,
            of_point=True,
        ),
        f"embeddings_{name}": MapSpec(
            f"Patch vectors, {stage}",
            "The vectors by which patches are compared, of the target and of the reference, row by row.",
            "Matching",
            kind="table",
            limits=(-1.0, 1.0),
        ),
        f"transferred_{name}": MapSpec(
            f"Transferred detail, {stage}",
            f"Bright: much high-frequency detail of the reference {carried}.",
            "Features",
            kind="features",
            cell=scale,
        ),
        f"contribution_{name}": MapSpec(
            f"Change by the transfer, {stage}",
            "Bright: the transferred detail, joined with the target's and weighted by relevance, changed much.",
            "Features",
            kind="features",
            cell=scale,
        ),
    }
