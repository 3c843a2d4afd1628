"""A network's internal tensors as named maps on the high-resolution grid.

A map is one number a pixel, or a table that has no place in the image. A stack of features gives many: its energy
("texture_lv1"), its principal components ("texture_lv1.pc1" to ".pc3") and every channel ("texture_lv1.channel12"); a
displacement its length ("displacement_g6") and its parts (".columns", ".rows").
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .inference import Plan, run_batches
from .memory import SliceSource
from .networks import MapSpec, Network

PRINCIPAL_COMPONENTS = ("pc1", "pc2", "pc3")
DIRECTIONS = ("columns", "rows")
BASIS_SLICES = 5
"""Principal components are those of the features in this many slices, spread over the volume."""

TABLE_LIMIT = 4096
"""Values a slice up to which a table is kept; attention of every pixel is for `Network.forward` in Python."""


@dataclass(frozen=True)
class MapView:
    """One map.

    Args:
        name: what the user asks for, "KEY" or "KEY.PART".
        key: of the captured tensor.
        part: which of its numbers: "" for the natural one, "pc1", "channel12", "columns", ...
        spec: what the tensor means.
    """

    name: str
    key: str
    part: str
    spec: MapSpec

    @property
    def title(self) -> str:
        """For lists and captions."""
        part = PART_TITLES.get(self.part, self.part.replace("channel", "channel "))
        return f"{self.spec.title} ({part})" if part else self.spec.title

    @property
    def unit(self) -> str:
        """Of the values."""
        if self.spec.kind == "features" and not self.part:
            return "root mean square over channels"
        return self.spec.unit or "arbitrary"

    @property
    def colours(self) -> str:
        """See `MapSpec.colours`; parts have a sign, a length has none."""
        if self.part or (self.spec.kind == "displacement" and self.spec.colours == "diverging"):
            return "diverging"
        return "sequential" if self.spec.kind in ("features", "displacement") else self.spec.colours

    def as_dict(self) -> dict[str, Any]:
        """For reports and viewers."""
        low, high = self.spec.limits if self.spec.kind in ("image", "labels") else (None, None)
        return {
            "title": self.title,
            "meaning": self.spec.meaning,
            "family": self.spec.family,
            "kind": self.spec.kind,
            "unit": self.unit,
            "colours": self.colours,
            "limits": [low, high],
        }


PART_TITLES = {
    "pc1": "1st principal component",
    "pc2": "2nd principal component",
    "pc3": "3rd principal component",
    "columns": "along columns",
    "rows": "along rows",
}


@dataclass(frozen=True)
class Maps:
    """What was asked for, by name.

    Args:
        images: (K, H, W) float32 on the high-resolution grid, 0 outside the canvas.
        tables: (K, ...) float32, one per slice; none where slices were run in tiles, which have tables of their own.
    """

    images: dict[str, np.ndarray]
    tables: dict[str, np.ndarray]


def default_views(network: Network) -> list[MapView]:
    """The natural views of every captured tensor: its parts where viewers show those together as one colour."""
    views = []
    for key, spec in network.map_specs().items():
        if spec.of_point:
            continue
        if spec.kind == "displacement" or spec.by_components:
            parts = PRINCIPAL_COMPONENTS if spec.by_components else DIRECTIONS
            views += [MapView(f"{key}.{part}", key, part, spec) for part in parts]
        else:
            views.append(MapView(key, key, "", spec))
    return views


def choose_views(network: Network, names: str) -> list[MapView]:
    """The views a user asked for.

    Args:
        network: whose maps.
        names: "none", "all" (the natural views of all) or a comma-separated list.

    Raises:
        InputError: for a name that the network does not offer, with the nearest that it does.
    """
    if names == "none":
        return []
    if names == "all":
        return default_views(network)
    return views_named(names, {key: spec for key, spec in network.map_specs().items() if not spec.of_point})


def views_named(names: str, known: Mapping[str, MapSpec]) -> list[MapView]:
    """The views of a comma-separated list among what a network offers, each once.

    Raises:
        InputError: for a name that is not among it, with the nearest that is.
    """
    views = [_view(name.strip(), known) for name in names.split(",") if name.strip()]
    return list({view.name: view for view in views}.values())


def collect_maps(
    network: Network,
    target_lr: np.ndarray,
    reference: SliceSource,
    plan: Plan,
    views: Sequence[MapView],
    *,
    seeds: Sequence[int] | None = None,
    update: Callable[[float], None] = lambda fraction: None,
) -> Maps:
    """The chosen views of all slices.

    Args:
        network: with weights, in eval mode.
        target_lr: (K, h, w), reference (K, H, W), as for `enhance_slices`.
        reference: see above.
        plan: that made the result, so that the maps are of that result.
        views: see `choose_views`.
        seeds: as for the result.
        update: receives the fraction done.

    Raises:
        InputError: for a channel or a component that a stack does not have.
    """
    scale = network.config.scale
    corner = plan.conventions.sampling == "corner" and not network.upsamples_first
    seeds = range(len(target_lr)) if seeds is None else seeds
    images = [view for view in views if view.spec.kind != "table"]
    result = {view.name: np.zeros(reference.shape, dtype=np.float32) for view in images}
    if not len(target_lr):
        return Maps(result, {})
    tables: dict[str, list[Tensor]] = {view.name: [] for view in views if view.spec.kind == "table"}
    bases = _bases(network, target_lr, reference, plan, images, seeds)

    def compute(target: Tensor, ref: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        maps = network(target, ref, generator=generators, capture=True).maps
        shape = (ref.shape[-2], ref.shape[-1])
        parts = [part_of(maps[v.key].float(), v, bases.get(v.key)) for v in images]
        shown = [on_image(p, v.spec, shape, corner=corner) for p, v in zip(parts, images, strict=True)]
        values = torch.cat(shown, dim=1) if shown else torch.zeros_like(ref)
        # Last: a batch that runs out of memory above is run again.
        for name, rows in tables.items():
            if maps[name][0].numel() <= TABLE_LIMIT:
                rows.append(maps[name].float().cpu())
        return values

    steps = [number for number, view in enumerate(images) if not _is_smooth(view.spec)]
    used = plan
    for batch in run_batches(compute, network, target_lr, reference, plan, seeds=seeds, unmixed=steps, update=update):
        used = batch.plan
        for number, view in enumerate(images):
            plan.canvas.crop(result[view.name], scale)[batch.chosen] = batch.values[:, number]
    whole = {name: torch.cat(rows).numpy() for name, rows in tables.items() if rows and used.tile is None}
    return Maps(result, whole)


def on_image(values: Tensor, spec: MapSpec, shape: tuple[int, int], *, corner: bool = False) -> Tensor:
    """Bring a map (B, C, a, b) onto the high-resolution image (B, C, *shape): each cell onto the pixels it covers.

    With `corner` the network was given samples that lie on the first of those pixels instead of amid them, and so do
    the values of its maps.
    """
    cell = spec.cell
    if cell > 1:
        mode = {"mode": "bilinear", "align_corners": False} if _is_smooth(spec) else {"mode": "nearest"}
        # The border repeated: something to shift in from.
        values = F.pad(values, (0, 1, 0, 1), mode="replicate") if corner else values
        values = F.interpolate(values, scale_factor=cell, **mode)
        if corner:
            values = _moved_back(values, cell, smooth=_is_smooth(spec))
    return values[..., : shape[0], : shape[1]]


def principal_axes(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (C,) and first three principal axes (3, C) of features [(B, C, a, b), ...]; largest weight positive."""
    pixels = torch.cat([f.float().transpose(0, 1).flatten(1) for f in features], dim=1).double()
    mean = pixels.mean(dim=1)
    covariance = torch.cov(pixels) if len(pixels) > 1 else pixels.var(dim=1).reshape(1, 1)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1).T[: len(PRINCIPAL_COMPONENTS)]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return mean.float(), (axes * largest.sign()).float()


def part_of(values: Tensor, view: MapView, basis: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """What a view shows of its tensor, (B, C, a, b) -> (B, 1, a, b); a component needs its `principal_axes`.

    Raises:
        InputError: for a channel or a component that the tensor does not have.
    """
    if view.part in PRINCIPAL_COMPONENTS and basis is not None:
        mean, axes = (t.to(values.device) for t in basis)
        component = PRINCIPAL_COMPONENTS.index(view.part)
        if component >= len(axes):
            raise InputError(f"The map '{view.key}' has {len(axes)} channels and no {PART_TITLES[view.part]}.")
        # No matrix product, which autocast would do in half precision.
        return ((values - mean[:, None, None]) * axes[component][:, None, None]).sum(dim=1, keepdim=True)
    if view.part.startswith("channel"):
        channel = int(view.part.removeprefix("channel"))
        if channel >= values.shape[1]:
            raise InputError(f"The map '{view.key}' has channels 0 to {values.shape[1] - 1}, no {channel}.")
        return values[:, channel : channel + 1]
    if view.part in DIRECTIONS:
        return values[:, DIRECTIONS.index(view.part)][:, None]
    if view.spec.kind == "features":
        return values.square().mean(dim=1, keepdim=True).sqrt()
    if view.spec.kind == "displacement":
        return values.square().sum(dim=1, keepdim=True).sqrt()
    return values


def _moved_back(values: Tensor, cell: int, *, smooth: bool) -> Tensor:
    """Values amid cells of pixels brought to the first pixel of each: (cell - 1) / 2 pixels towards the origin."""
    whole = (cell - 1) // 2
    moved = values[..., whole:, whole:]
    if smooth and cell % 2 == 0:  # and half a pixel
        return F.avg_pool2d(moved, 2, stride=1)
    return moved


def _bases(
    network: Network,
    target_lr: np.ndarray,
    reference: SliceSource,
    plan: Plan,
    views: Sequence[MapView],
    seeds: Sequence[int],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Principal axes of the features that are asked for by component."""
    keys = sorted({view.key for view in views if view.part in PRINCIPAL_COMPONENTS})
    if not keys:
        return {}
    chosen = np.unique(np.linspace(0, len(target_lr) - 1, BASIS_SLICES).round().astype(int))
    features: dict[str, list[Tensor]] = {key: [] for key in keys}

    def gather(target: Tensor, ref: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        maps = network(target, ref, generator=generators, capture=True).maps
        for key in keys:
            features[key].append(maps[key].cpu())
        return torch.zeros_like(ref)

    for _ in run_batches(gather, network, target_lr[chosen], reference[chosen], plan, seeds=[seeds[n] for n in chosen]):
        pass  # what is wanted was gathered
    return {key: principal_axes(features[key]) for key in keys}


def _view(name: str, known: Mapping[str, MapSpec]) -> MapView:
    key, _, part = name.partition(".")
    if key not in known:
        near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it offers {', '.join(known) or 'none'}."
        raise InputError(f"This model has no map '{key}'; {hint}")
    spec = known[key]
    if part and not _is_part(part, spec):
        offered = {
            "features": "pc1, pc2, pc3 and channel0, channel1, ...",
            "displacement": "columns and rows",
        }.get(spec.kind, "no parts")
        raise InputError(f"The map '{key}' has no part '{part}'; it has {offered}.")
    return MapView(f"{key}.{part}" if part else key, key, part, spec)


def _is_smooth(spec: MapSpec) -> bool:
    """Whether there is something between two values of a map."""
    return spec.smooth and spec.kind != "labels"


def _is_part(part: str, spec: MapSpec) -> bool:
    if spec.kind == "features":
        is_channel = part.startswith("channel") and part.removeprefix("channel").isdecimal()
        return is_channel or part in PRINCIPAL_COMPONENTS
    return spec.kind == "displacement" and part in DIRECTIONS
