"""What the canvas saves: a volume through a network as the engine runs it, against whole slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from .bench_networks import FIELD_MM, SCALE, build, pass_over, phantom_slices
from .bench_timing import Timed, in_turn
from .canvas import Canvas, signal_canvas
from .degradation import degrade, upsample
from .fast import fast_path
from .inference import make_plan
from .intensity import intensity_scale
from .subjects import find_subject_pairs

WHOLE, ON_CANVAS = "whole slices", "canvas"
_PHANTOM_SIZE, _PHANTOM_SLICES = 256, 3


@dataclass(frozen=True)
class CanvasGain:
    """Of one volume.

    Args:
        name: of the volume.
        whole: rows and columns of a slice, high-resolution pixels.
        canvas: those of the canvas.
        timed: seconds of one slice, `WHOLE` and `ON_CANVAS`; all slices of a volume take as long.
    """

    name: str
    whole: tuple[int, int]
    canvas: tuple[int, int]
    timed: Timed

    @property
    def pixels(self) -> float:
        """How many times as many pixels a whole slice has."""
        return float(np.prod(self.whole) / np.prod(self.canvas))


def volumes_of(data: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name and slices (K, H, W) of each target of the validation split, or of the phantom where there are no data."""
    if data is None:
        yield f"brain phantom, {FIELD_MM:.0f} mm field", phantom_slices("T2", _PHANTOM_SIZE, _PHANTOM_SLICES)
        return
    pairs = find_subject_pairs(data, "val")
    for (path, target), found in groupby(pairs, key=lambda pair: (pair.path, pair.target)):
        yield f"{path.stem} {target}", next(iter(found)).read(target).array_kji


def measure_canvas(
    name: str, slices: np.ndarray, model: str, device: str, rounds: int, passed: Callable[[float], None]
) -> CanvasGain:
    """Time the middle slice of a volume (K, H, W), whole and on the volume's canvas in turn."""
    rows, columns = (n - n % SCALE for n in slices.shape[1:])
    low = degrade(slices[:, :rows, :columns].astype(np.float32), (1, SCALE, SCALE), "kspace")
    network = fast_path(build(model))
    middle = low[len(low) // 2][None] / np.float32(intensity_scale(low, name))
    reference = upsample(middle, (1, SCALE, SCALE))
    canvases = {
        WHOLE: Canvas(0, 0, rows // SCALE, columns // SCALE),
        ON_CANVAS: signal_canvas(low, SCALE, network.multiple),
    }
    runs = {
        which: pass_over(network, middle, reference, make_plan(network, canvas, device, "fp32"))
        for which, canvas in canvases.items()
    }
    timed = in_turn(runs, rounds, passed)
    sizes = {which: (SCALE * canvas.rows, SCALE * canvas.columns) for which, canvas in canvases.items()}
    return CanvasGain(name, sizes[WHOLE], sizes[ON_CANVAS], timed)
