"""Maps of one pixel: what the network looks at when it makes that pixel. It runs on the pixel's slice alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .canvas import Canvas, rim_weight
from .conventions import OWN, given_slices
from .errors import DeviceError, InputError
from .inference import TILE_OVERLAP_LR, Plan, run_batches, tile_starts
from .maps import MapView, on_image, part_of, principal_axes, views_named
from .networks import Network


def choose_point_views(network: Network, names: str) -> list[MapView]:
    """The views of one pixel that a user asked for.

    Args:
        network: whose maps.
        names: "all" or a comma-separated list.

    Raises:
        InputError: for a network without such maps, or a name that it does not offer.
    """
    known = {key: spec for key, spec in network.map_specs().items() if spec.of_point}
    if not known:
        raise InputError("This model has no maps of one pixel; look at its other maps.")
    return views_named(",".join(known) if names == "all" else names, known)


def collect_point_maps(
    network: Network,
    target_lr: np.ndarray,
    reference: np.ndarray,
    plan: Plan,
    views: Sequence[MapView],
    pixel: tuple[int, int],
    *,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The chosen views of one pixel by name, (H, W) float32, 0 outside what the network saw for that pixel.

    Args:
        network: with weights, in eval mode.
        target_lr: the pixel's slice (h, w), scaled; see `inference.enhance_slices`.
        reference: (H, W), scaled.
        plan: that made the result; where that ran in tiles, one tile makes the maps, too.
        views: see `choose_point_views`.
        pixel: row and column on the high-resolution grid.
        seed: of the slice.

    Raises:
        InputError: for a pixel that the network did not make.
        DeviceError: when memory runs out.
    """
    scale = network.config.scale
    given = given_slices(target_lr[None], reference[None], scale, plan.canvas, plan.conventions)
    size = given.reference.shape[-2:]
    on_canvas = pixel[0] - plan.canvas.row * scale, pixel[1] - plan.canvas.column * scale
    if not (0 <= on_canvas[0] < size[0] and 0 <= on_canvas[1] < size[1]):
        raise InputError(
            "The point lies in the air around the anatomy, where the network does nothing; choose another."
        )
    tile = _tile_with(on_canvas, plan.tile, given.target_lr.shape[-2:], scale)
    captured = _captured(network, tile.crop(given.target_lr), tile.crop(given.reference, scale), plan, seed)
    place = on_canvas[0] - tile.row * scale, on_canvas[1] - tile.column * scale
    found = {}
    for view in views:
        seen = np.zeros(size, dtype=np.float32)
        part = tile.crop(seen, scale)  # a view, as below
        part[...] = _image(network, captured, view, place, part.shape, plan)
        found[view.name] = np.zeros(reference.shape, dtype=np.float32)
        plan.canvas.crop(found[view.name], scale)[...] = plan.canvas.unpadded(seen, reference.shape, scale)
    return found


def _captured(
    network: Network, target_lr: np.ndarray, reference: np.ndarray, plan: Plan, seed: int
) -> dict[str, Tensor]:
    """All that the network lets out for slices (1, h, w), (1, H, W) that are as it wants them."""
    captured: dict[str, Tensor] = {}

    def capture(target: Tensor, ref: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        captured.update(network(target, ref, generator=generators, capture=True).maps)
        return torch.zeros_like(ref)

    whole = Canvas(0, 0, *target_lr.shape[-2:])
    alone = replace(plan, batch=1, tile=None, canvas=whole, conventions=OWN)
    (batch,) = run_batches(capture, network, target_lr, reference, alone, seeds=[seed])
    if batch.plan.tile is not None:
        raise DeviceError(
            f"Not enough memory on {plan.device} for the maps of one pixel; close other programs or use --device cpu."
        )
    return captured


def _image(
    network: Network,
    captured: dict[str, Tensor],
    view: MapView,
    place: tuple[int, int],
    shape: tuple[int, ...],
    plan: Plan,
) -> np.ndarray:
    """A view of the pixel at `place`, (H, W)."""
    corner = plan.conventions.sampling == "corner" and not network.upsamples_first
    # A cell's value then belongs to its first pixel, so that cells begin half of one earlier; see `maps.on_image`.
    ahead = (view.spec.cell - 1) // 2 if corner else 0
    row, column = (min(n + ahead, end - 1) for n, end in zip(place, shape, strict=True))
    with torch.inference_mode():
        values = network.point_maps(captured, row, column)[view.key].float()
        basis = principal_axes([values]) if view.spec.kind == "features" else None
        image = on_image(part_of(values, view, basis), view.spec, (shape[0], shape[1]), corner=corner)
    return image[0, 0].cpu().numpy()


def _tile_with(pixel: tuple[int, int], side: int | None, shape_lr: tuple[int, ...], scale: int) -> Canvas:
    """All, or of the tiles that hold a high-resolution pixel the one whose rim is farthest from it."""
    if side is None:
        return Canvas(0, 0, *shape_lr)
    rows, columns = (min(max(1, side // scale), n) for n in shape_lr)
    shape_hr = (scale * shape_lr[0], scale * shape_lr[1])

    def importance(tile: Canvas) -> float:
        row, column = pixel[0] - tile.row * scale, pixel[1] - tile.column * scale
        is_inside = 0 <= row < tile.rows * scale and 0 <= column < tile.columns * scale
        return float(rim_weight(tile, scale, shape_hr)[row, column]) if is_inside else -1.0

    starts = (tile_starts(n, max(1, side // scale), TILE_OVERLAP_LR) for n in shape_lr)
    tiles = [Canvas(row, column, rows, columns) for row, column in itertools.product(*starts)]
    return max(tiles, key=importance)
