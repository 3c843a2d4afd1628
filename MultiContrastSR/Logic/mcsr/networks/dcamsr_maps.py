"""What DCAMSR's internal tensors say."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from ._map_spec import MapSpec

LEVELS = (1, 2, 3)


def map_specs() -> dict[str, MapSpec]:
    """All maps of DCAMSR; level 1, 2, 3 is the full, half and quarter resolution."""
    specs = {
        "added": MapSpec(
            "Added detail",
            "What the network added to the interpolated target: positive is brighter than the interpolation.",
            "Result",
            unit="scaled intensity",
            colours="diverging",
        )
    }
    for level in LEVELS:
        specs |= _specs_of_level(level, 2 ** (level - 1), ("full", "half", "quarter")[level - 1])
    return specs


def attention_maps(attention: Tensor, shape: tuple[int, int], name: str) -> dict[str, Tensor]:
    """Selectivity and dominant token of spatial attention (B, heads, N, tokens), N = pixels of `shape`."""
    mean = attention.float().mean(dim=1)
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum(dim=-1) / math.log(mean.shape[-1])
    batch = len(mean)
    return {
        f"attention_spread_{name}": entropy.clamp(0, 1).reshape(batch, 1, *shape),
        f"dominant_token_{name}": mean.argmax(dim=-1).reshape(batch, 1, *shape),
    }


def attended_reference(maps: Mapping[str, Tensor], probes: Tensor, level: int, row: int, column: int) -> Tensor:
    """Weight of every reference pixel for one pixel, sum over p of A_S[n, p] E[p, m], mean over heads.

    Args:
        maps: captured.
        probes: E, (tokens, cells): cells are the pixels of the level, or a square grid pooled from them.
        level: 1, 2 or 3.
        row: of the high-resolution pixel.
        column: of the high-resolution pixel.

    Returns:
        (B, 1, H_l, W_l), signed.
    """
    height, width = maps[f"texture_lv{level}"].shape[-2:]
    cell = 2 ** (level - 1)
    pixel = (row // cell) * width + column // cell
    weights = maps[f"spatial_attention_lv{level}"][:, :, pixel].float().mean(dim=1) @ probes.float()
    side = math.isqrt(weights.shape[-1])
    if weights.shape[-1] == height * width:
        return weights.reshape(-1, 1, height, width)
    return F.interpolate(weights.reshape(-1, 1, side, side), size=(height, width), mode="nearest")


def _specs_of_level(level: int, cell: int, resolution: str) -> dict[str, MapSpec]:
    where = f"{resolution} resolution"

    def features(title: str, meaning: str) -> MapSpec:
        return MapSpec(f"{title}, {where}", meaning, "Features", kind="features", cell=cell)

    name = f"lv{level}"
    return {
        f"texture_{name}": features("Transferred texture", "Bright: much was taken over from the reference here."),
        f"features_target_{name}": features("Target features", "Bright: the encoder found structure in the target."),
        f"features_reference_{name}": features(
            "Reference features", "Bright: the encoder found structure in the reference."
        ),
        f"modulated_{name}": features(
            "Modulated texture", "The texture after it took contrast and brightness from the target; bright: strong."
        ),
        f"fused_{name}": features("Fused features", "Target and texture together; bright: strong response."),
        f"gain_{name}": MapSpec(
            f"Texture gain, {where}",
            "By how much the reference's texture is amplified here (mean over channels).",
            "Modulation",
            cell=cell,
        ),
        f"offset_{name}": MapSpec(
            f"Texture offset, {where}",
            "What is added to the reference's texture here (mean over channels).",
            "Modulation",
            colours="diverging",
            cell=cell,
        ),
        f"attention_spread_{name}": MapSpec(
            f"Spread of attention, {where}",
            "0: the pixel draws on one pattern of the reference; 1: on all alike.",
            "Attention",
            unit="entropy, 0 to 1",
            limits=(0.0, 1.0),
            cell=cell,
        ),
        f"dominant_token_{name}": MapSpec(
            f"Dominant pattern, {where}",
            "Which of the learned patterns of the reference the pixel draws on most; equal colour, equal pattern.",
            "Attention",
            kind="labels",
            unit="pattern number",
            colours="labels",
            limits=(0.0, None),
            cell=cell,
            smooth=False,
        ),
        f"attended_reference_{name}": MapSpec(
            f"Reference seen by a pixel, {where}",
            "Weight of each part of the reference for the chosen pixel; red adds, blue subtracts.",
            "Attention",
            colours="diverging",
            cell=cell,
            smooth=False,
            of_point=True,
        ),
        f"channel_attention_{name}": MapSpec(
            f"Channel attention, {where}",
            "Per head: row = feature of the target, column = feature of the reference it mixes in.",
            "Attention",
            kind="table",
            limits=(0.0, 1.0),
        ),
        f"spatial_attention_{name}": MapSpec(
            f"Spatial attention, {where}",
            "Per head and pixel: how much of each learned pattern of the reference is used.",
            "Attention",
            kind="table",
            limits=(0.0, 1.0),
        ),
    }
