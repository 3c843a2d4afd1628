"""What the figure of a job shows: the slice, the images and errors on it, and the place that is worth a closer look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .errors import GeometryError
from .geometry import Grid, display_order, plane_name, same_space
from .intensity import foreground, foreground_level, intensity_scale
from .job import Result
from .metrics import Scores
from .report_style import nice_limit
from .volume import Volume

_ZOOM_MM = 52.0
_MARGIN_MM = 8.0
_BELOW_LIMIT_PERCENT = 99.5
_NAME_LENGTH = 44
# The share of the head, each way, that lies within the skull.
_INNER = 0.78
_HEADROOM = 1.12


@dataclass(frozen=True)
class Panels:
    """What the figure shows; all volumes lie on one grid.

    Args:
        interpolated: the acquired low-resolution target, interpolated.
        result: the super-resolved target.
        reference: registered and resampled.
        truth: the original high-resolution target; None where there is none.
        scores: of "result" and "interpolated" against the truth, over the whole volume.
        slice_axis: storage axis along which slices are stacked (0 = i, 1 = j, 2 = k).
        title: above the figure.
        caption: below the figure.

    Raises:
        GeometryError: when the grids differ.
    """

    interpolated: Volume
    result: Volume
    reference: Volume
    truth: Volume | None
    scores: Mapping[str, Scores]
    slice_axis: int
    title: str
    caption: str

    def __post_init__(self) -> None:
        for volume in (self.interpolated, self.reference, self.truth):
            if volume is not None and not same_space(volume.grid, self.result.grid):
                raise GeometryError(f"{volume.name} is not on the grid of {self.result.name}; resample it first.")

    @staticmethod
    def of(result: Result, interpolated: Volume | None = None) -> Panels:
        """The figure of a finished job."""
        settings, inputs = result.provenance["settings"], result.provenance["inputs"]
        axis = result.slice_axis
        target = _shortened(inputs["target"])
        help_of = _shortened(inputs["reference"]) if inputs["reference"] else "itself"
        return Panels(
            interpolated=interpolated or result.interpolated,
            result=result.sr,
            reference=result.reference,
            truth=result.truth,
            scores=result.scores,
            slice_axis=axis,
            title=f"{target}, enhanced x{settings['scale']} with the help of {help_of}",
            caption=describe_job(result.sr.grid, axis, settings["model"], settings["scale"]),
        )


def describe_job(grid: Grid, axis: int, model: str, scale: int) -> str:
    """The caption of a figure: model, scale and pixel sizes.

    Args:
        grid: of the result.
        axis: storage axis along which slices are stacked.
        model: name of the network or baseline.
        scale: in-plane factor.
    """
    columns, rows, distance = display_order(grid, axis).apply_grid(grid).spacing_ijk_mm
    sizes = [f"{f * columns:.2f} x {f * rows:.2f} mm" for f in (1, scale)]
    return f"Model {model}, scale x{scale}: {sizes[0]} from {sizes[1]}, slices {distance:.1f} mm apart."


def display_slice(volume: Volume, axis: int, index: int) -> np.ndarray:
    """One slice as a radiologist's display shows it, (rows, columns).

    Args:
        volume: any storage order.
        axis: storage axis along which slices are stacked.
        index: of the slice in display order (axial: from feet to head).
    """
    return volume.reordered(display_order(volume.grid, axis)).array_kji[index]


def brightest_slice(volume: Volume, axis: int) -> int:
    """The slice, counted in display order, that holds most signal."""
    slices = volume.reordered(display_order(volume.grid, axis)).array_kji
    level = foreground_level(slices, slices.size)
    return int(np.argmax([pixels[pixels > level].sum(dtype=np.float64) for pixels in slices]))


@dataclass(frozen=True)
class Box:
    """A part of a slice, in pixels."""

    row: int
    column: int
    rows: int
    columns: int

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[self.row : self.row + self.rows, self.column : self.column + self.columns]


@dataclass(frozen=True)
class Tile:
    """One image of the figure: a box of a slice, the name of its colour map, and what is black and white in it."""

    title: str
    note: str
    pixels: np.ndarray
    box: Box
    map: str
    limits: tuple[float, float]


class View:
    """The tiles of the figure, row by row.

    Args:
        panels: what to show.
        slice_index: in display order; the slice with most signal when None.

    Attributes:
        head, detail: the boxes of the signal, which the overviews show, and of the crops.
        spacing: of the displayed rows and columns, mm.
        scale: intensity that counts as 100 % in errors and changes.
    """

    def __init__(self, panels: Panels, slice_index: int | None) -> None:
        self.panels = panels
        best = panels.result if panels.truth is None else panels.truth
        self.index = brightest_slice(best, panels.slice_axis) if slice_index is None else slice_index
        self.plane = plane_name(best.grid, panels.slice_axis)
        order = display_order(best.grid, panels.slice_axis)
        self.slice_count = order.apply_grid(best.grid).shape_ijk[2]
        self.spacing = order.apply_grid(best.grid).spacing_ijk_mm[1::-1]  # rows, columns
        self.scale = intensity_scale(best.array_kji, best.name)
        pixels = self._pixels(best)
        self.head = _signal_box(pixels, self.spacing)
        self.detail = _detail_box(np.abs(pixels - self._pixels(panels.interpolated)), self.head, self.spacing)
        self.rows = self._rows(_white(pixels, self.head))

    def _pixels(self, volume: Volume) -> np.ndarray:
        return display_slice(volume, self.panels.slice_axis, self.index)

    def _rows(self, white: float) -> list[list[Tile]]:
        panels = self.panels
        reference = self._pixels(panels.reference)
        images = [
            self._tile("Acquired, interpolated", self._score("interpolated"), self._pixels(panels.interpolated), white),
            self._tile("Result", self._score("result"), self._pixels(panels.result), white),
        ]
        other = self._tile("Reference", "on the same grid, window of its own", reference, _white(reference, self.head))
        if panels.truth is None:
            row = [*images, self._residual(), other]
            return [row, [self._zoomed(tile) for tile in row]]
        row = [*images, self._tile("Truth", "the original high resolution", self._pixels(panels.truth), white), other]
        errors = self._errors()
        return [
            row,
            [self._zoomed(tile) for tile in row],
            [*errors, *(self._zoomed(tile, f"{tile.title}, detail") for tile in errors)],
        ]

    def _tile(self, title: str, note: str, pixels: np.ndarray, white: float) -> Tile:
        return Tile(title, note, pixels, self.head, "gray", (0.0, white))

    def _zoomed(self, tile: Tile, title: str = "") -> Tile:
        return Tile(title, "", tile.pixels, self.detail, tile.map, tile.limits)

    def _score(self, method: str) -> str:
        score = self.panels.scores.get(method)
        return f"PSNR {score.psnr:.2f} dB   SSIM {score.ssim:.3f}" if score else ""

    def _errors(self) -> list[Tile]:
        """Magnitude of the error of interpolation and result, in percent of the range, on one scale."""
        assert self.panels.truth is not None
        truth = self._pixels(self.panels.truth)
        volumes = (self.panels.interpolated, self.panels.result)
        errors = [100 / self.scale * np.abs(self._pixels(volume) - truth) for volume in volumes]
        limits = (0.0, nice_limit(self.head.crop(errors[0]), _BELOW_LIMIT_PERCENT))
        titles = ("Error of the interpolation", "Error of the result")
        return [
            Tile(title, f"RMS {np.sqrt((error**2).mean()):.2f} % in this slice", error, self.head, "inferno", limits)
            for title, error in zip(titles, errors, strict=True)
        ]

    def _residual(self) -> Tile:
        """What the model added and took away, in percent of the range."""
        added = 100 / self.scale * (self._pixels(self.panels.result) - self._pixels(self.panels.interpolated))
        limit = nice_limit(self.head.crop(np.abs(added)), _BELOW_LIMIT_PERCENT)
        return Tile("Result - interpolated", "what was changed", added, self.head, "residual", (-limit, limit))


def _signal_box(pixels: np.ndarray, spacing: np.ndarray) -> Box:
    """The box of the signal in a slice, with a margin."""
    mask = foreground(pixels)
    spans = []
    for axis in (0, 1):
        lit = np.flatnonzero(mask.sum(axis=1 - axis) >= 2)
        if lit.size == 0:
            return Box(0, 0, *pixels.shape)
        margin = int(np.ceil(_MARGIN_MM / spacing[axis]))
        start = max(0, int(lit[0]) - margin)
        spans.append((start, min(pixels.shape[axis], int(lit[-1]) + 1 + margin) - start))
    return Box(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _detail_box(detail: np.ndarray, head: Box, spacing: np.ndarray) -> Box:
    """The square of `_ZOOM_MM` in which most detail is at stake.

    Args:
        detail: (rows, columns) what low resolution has lost, or the model has added.
        head: the square lies within.
        spacing: of rows and columns, mm.
    """
    rows = min(head.rows, max(1, round(_ZOOM_MM / spacing[0])))
    columns = min(head.columns, max(1, round(_ZOOM_MM / spacing[1])))
    inside = np.where(_inner_ellipse(head), head.crop(detail), 0).astype(np.float64)
    # Capped, so that many fine structures count more than a few bright edges.
    capped = np.minimum(inside, np.percentile(inside[inside > 0], 90) if inside.any() else 0)
    total = np.pad(capped, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    row, column = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return Box(head.row + int(row), head.column + int(column), rows, columns)


def _white(pixels: np.ndarray, head: Box) -> float:
    """The upper end of the window: set within the skull, or fat under the skin would darken the brain."""
    brightest = float(np.percentile(head.crop(pixels)[_inner_ellipse(head)], 99.5))
    return _HEADROOM * brightest or float(pixels.max()) or 1.0


def _inner_ellipse(head: Box) -> np.ndarray:
    """Mask of what lies within the skull, roughly: (rows, columns) of the box."""
    row, column = (2 * (np.arange(n) + 0.5) / n - 1 for n in (head.rows, head.columns))
    return row[:, None] ** 2 + column[None, :] ** 2 <= _INNER**2


def _shortened(name: str) -> str:
    half = _NAME_LENGTH // 2
    return name if len(name) <= _NAME_LENGTH else f"{name[:half]}…{name[-half:]}"
