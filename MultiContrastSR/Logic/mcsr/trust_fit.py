"""Whether a reference fits the target, slice by slice: what decides that the target had better help itself.

Edges of two contrasts of the same anatomy run in the same directions, whichever side of them is brighter, so that an
inverted contrast fits as well. How well they do is measured where the reference lies, and again with the reference
moved by two low-resolution pixels: anatomy of somebody else, of another slice or of another place agrees no better
where it lies than a little beside. Measured on the brain slices of the training and validation sessions at x2 and x4:
of about 1,600 with the right reference 10 are below 0.07, with its contrast inverted about 70, most of them at the ends
of the brain; mirrored, 6 pixels away or from the next slice but one they are mostly below 0.03.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .degradation import FactorsKJI, degrade
from .intensity import foreground
from .memory import SliceSource, blocks

UNFIT, FIT = 0.03, 0.07
"""Agreement up to which a slice's reference is not used, and from which it is used fully."""

_MOVES = ((2, 0), (-2, 0), (0, 2), (0, -2))
_FEWEST_PIXELS = 50
_WINDOW = 11


@dataclass(frozen=True)
class ReferenceFit:
    """How well a reference fits.

    Args:
        agreement: (K,) how much better edges agree than with the reference moved aside: 0 no better, 1 twice as well.
        weights: (K,) 0..1, how far the reference is used.
    """

    agreement: np.ndarray
    weights: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "mean_edge_agreement": round(self.mean_agreement, 4),
            "edge_agreement": [round(float(a), 4) for a in self.agreement],
            "weights": [round(float(w), 3) for w in self.weights],
            "needed": [UNFIT, FIT],
        }

    @property
    def mean_agreement(self) -> float:
        """Over the slices; 1 when there is none."""
        return float(np.mean(self.agreement)) if len(self.agreement) else 1.0


def reference_fit(target_lr: np.ndarray, reference: SliceSource, factors_kji: FactorsKJI) -> ReferenceFit:
    """Measure how well a reference fits, in what both images show.

    Args:
        target_lr: (K, h, w).
        reference: (K, H, W) on the high-resolution grid; the target itself where there is nothing else.
        factors_kji: between the two.
    """
    signal = foreground(target_lr)
    sums = np.zeros((1 + len(_MOVES), len(target_lr)))
    for block, parts in _agreements(target_lr, reference, factors_kji):
        sums[:, block] = [part.sum(axis=(1, 2)) for part in parts]
    here, *beside = (_with_neighbours(of_slices) for of_slices in sums)
    best_beside = np.max(beside, axis=0)
    # Where a slice shows next to nothing, nothing speaks against its reference.
    empty = _with_neighbours(signal.sum(axis=(1, 2)).astype(float)) < _FEWEST_PIXELS
    agreement = np.where(empty | (best_beside <= 0), 1.0, here / np.maximum(best_beside, 1e-12) - 1)
    return ReferenceFit(agreement, np.clip((agreement - UNFIT) / (FIT - UNFIT), 0, 1))


def local_agreement(target_lr: np.ndarray, reference: SliceSource, factors_kji: FactorsKJI) -> np.ndarray:
    """The same place by place, (K, h, w), over windows of about 10 pixels: too few edges to decide by, but to look at.

    Args:
        target_lr: see `reference_fit`.
        reference: see there.
        factors_kji: see there.
    """
    agreement = np.empty(target_lr.shape)
    for block, parts in _agreements(target_lr, reference, factors_kji):
        here, *beside = (_smoothed(a) for a in parts)
        agreement[block] = here / (np.mean(beside, axis=0) + 1e-3) - 1
    return agreement


def _agreements(
    target_lr: np.ndarray, reference: SliceSource, factors_kji: FactorsKJI
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Agreement of edges 0..1 in some slices at a time (which, (k, h, w)): with the reference in its place, and moved
    to each side."""
    signal = foreground(target_lr)
    other_lr = np.empty_like(target_lr)
    for block in blocks(reference.shape):
        other_lr[block] = degrade(reference[block], factors_kji, "kspace")
    typical = [_typical_slope(slices, signal) for slices in (target_lr, other_lr)]
    for block in blocks(target_lr.shape):
        target, other = (
            _directions(slices[block], slope) for slices, slope in zip((target_lr, other_lr), typical, strict=True)
        )
        moved = (np.roll(other, move, axis=(-2, -1)) for move in ((0, 0), *_MOVES))
        yield block, [np.where(signal[block], (target * there).sum(axis=0) ** 2, 0) for there in moved]


def _smoothed(values: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(values)[:, None]
    for _ in range(2):
        tensor = F.avg_pool2d(tensor, _WINDOW, stride=1, padding=_WINDOW // 2)
    return tensor[:, 0].numpy()


def _gradient(slices: np.ndarray) -> np.ndarray:
    """(2, K, h, w): along rows and columns."""
    if min(slices.shape[1:]) < 2:
        return np.zeros((2, *slices.shape))
    return np.stack([np.gradient(slices.astype(np.float64), axis=axis) for axis in (1, 2)])


def _typical_slope(slices: np.ndarray, signal: np.ndarray) -> float:
    """Median of the squared length of the gradient where there is signal; 1 where that says nothing."""
    found, count = np.empty(int(signal.sum())), 0
    for block in blocks(slices.shape):
        squares = (_gradient(slices[block]) ** 2).sum(axis=0)[signal[block]]
        found[count : count + squares.size] = squares
        count += squares.size
    return (float(np.median(found, overwrite_input=True)) if count else 1.0) or 1.0


def _directions(slices: np.ndarray, typical_slope: float) -> np.ndarray:
    """(2, K, h, w): the gradient (rows, columns), of length near 1 at edges and near 0 where there are none."""
    gradient = _gradient(slices)
    return gradient / np.sqrt((gradient**2).sum(axis=0) + typical_slope)


def _with_neighbours(values: np.ndarray) -> np.ndarray:
    """Sums (K,) over each slice and the two beside it."""
    padded = np.pad(values, 1)
    return padded[:-2] + padded[1:-1] + padded[2:]
