"""Training samples from HDF5 subject files, read slice by slice.

A file holds one dataset per contrast, [k, j, i], all on one grid in LPS order (so that every slice is in display
orientation), with the attributes `brain_slices`, `split`, `subject` and per dataset `role` and `covered_slices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ..canvas import Canvas, signal_canvas
from ..degradation import degrade, upsample
from ..errors import InputError
from ..intensity import intensity_scale
from .recipe import Phase, Recipe

NATIVE_ROLE = "native samples"


@dataclass(frozen=True)
class Pair:
    """A target contrast and a reference contrast of one session, with what the engine would find for them."""

    path: Path
    subject: str
    target: str
    reference: str
    slices: range
    target_scale: float
    reference_scale: float
    canvas: Canvas
    auxiliary: bool

    @property
    def key(self) -> str:
        """For tables: session, target and reference."""
        return f"{self.path.stem} {self.target}<-{self.reference}"


@dataclass(frozen=True)
class Sample:
    """One slice on the canvas, scaled: low resolution (1, h, w); high resolution and reference (1, H, W)."""

    target_lr: np.ndarray
    target_hr: np.ndarray
    reference: np.ndarray


def find_pairs(folder: Path, split: str, scale: int, degradation: str, multiple: int) -> list[Pair]:
    """All pairs of a split whose target was not resampled; reads every volume once for its scale and canvas."""
    files = sorted(Path(folder).glob("*.h5"))
    pairs = [pair for path in files for pair in _pairs_of_file(path, split, scale, degradation, multiple)]
    if not pairs:
        raise InputError(f"{folder} holds no HDF5 subject file of split '{split}' with two contrasts.")
    return pairs


def read_sample(pair: Pair, index: int, scale: int, degradation: str) -> Sample:
    """Slice `index` of a pair on its canvas, degraded and scaled as the engine does it."""
    with h5py.File(pair.path) as file:
        hr = _whole_multiple(file[pair.target][index][None], scale)
        reference = _whole_multiple(file[pair.reference][index][None], scale)
    lr = degrade(hr, (1, scale, scale), degradation) / pair.target_scale
    return Sample(
        pair.canvas.crop(lr),
        pair.canvas.crop(hr / pair.target_scale, scale),
        pair.canvas.crop(reference / pair.reference_scale, scale),
    )


class TrainingSamples:
    """Draws training batches; batch n is a pure function of the seed and n, so that a run can resume anywhere."""

    def __init__(self, pairs: list[Pair], recipe: Recipe) -> None:
        self.pairs = pairs
        self.recipe = recipe
        weights = np.array([len(p.slices) * (recipe.auxiliary_weight if p.auxiliary else 1.0) for p in pairs])
        self.probabilities = weights / weights.sum()

    def batch(self, step: int, phase: Phase) -> tuple[Tensor, Tensor, Tensor]:
        """Targets, truths and references (B, 1, ., .) of one step.

        Crops hold the target already upsampled on the whole canvas: sinc interpolation of a crop would ring at its rim.
        """
        samples = [self._draw(np.random.default_rng((self.recipe.seed, step, n)), phase) for n in range(phase.batch)]
        columns = zip(*samples, strict=True)
        targets, truths, references = (torch.from_numpy(np.stack(c).astype(np.float32)) for c in columns)
        return targets, truths, references

    def _draw(self, rng: np.random.Generator, phase: Phase) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        recipe, augmentation = self.recipe, self.recipe.augmentation
        pair = self.pairs[rng.choice(len(self.pairs), p=self.probabilities)]
        sample = read_sample(pair, int(rng.choice(pair.slices)), recipe.scale, recipe.degradation)
        factors = (1, recipe.scale, recipe.scale)
        upsampled = upsample(sample.target_lr, factors)
        reference = self._reference(rng, pair, sample, upsampled)
        target, truth = (upsampled if phase.crop else sample.target_lr), sample.target_hr
        if phase.crop:
            box = _random_crop(rng, truth.shape[1:], phase.crop)
            target, truth, reference = target[box], truth[box], reference[box]
        if rng.random() < augmentation.flip:
            target, truth, reference = target[..., ::-1], truth[..., ::-1], reference[..., ::-1]
        return target, truth, reference

    def _reference(self, rng: np.random.Generator, pair: Pair, sample: Sample, upsampled: np.ndarray) -> np.ndarray:
        augmentation = self.recipe.augmentation
        kind = rng.random()
        if kind < augmentation.self_reference:
            return upsampled
        reference = sample.reference
        if kind < augmentation.self_reference + augmentation.foreign_reference:
            others = [p for p in self.pairs if p.subject != pair.subject]
            other = others[rng.integers(len(others))] if others else pair
            foreign = read_sample(other, int(rng.choice(other.slices)), self.recipe.scale, self.recipe.degradation)
            reference = _fit(foreign.reference, reference.shape)
        if rng.random() < augmentation.remap:
            reference = np.clip(reference, 0, None) ** rng.uniform(0.6, 1.6)
        if rng.random() < augmentation.shift:
            reach = augmentation.shift_pixels
            reference = np.roll(reference, rng.integers(-reach, reach + 1, 2), axis=(1, 2))
        return reference


def _pairs_of_file(path: Path, split: str, scale: int, degradation: str, multiple: int) -> list[Pair]:
    with h5py.File(path) as file:
        if file.attrs["split"] != split:
            return []
        names = str(file.attrs["contrasts"]).split(",")
        volumes = {name: _whole_multiple(file[name][()], scale) for name in names}
        first, last = file.attrs["brain_slices"]
        covered = {name: file[name].attrs.get("covered_slices", (first, last)) for name in names}
        targets = [name for name in names if file[name].attrs["role"] == NATIVE_ROLE]
        subject = str(file.attrs["subject"])
        auxiliary = len(targets) > 1
    pairs = []
    scales = {name: intensity_scale(volume, f"{path.name} {name}") for name, volume in volumes.items()}
    for target in targets:
        lr = degrade(volumes[target], (1, scale, scale), degradation)
        canvas = signal_canvas(lr, scale, multiple)
        target_scale = intensity_scale(lr)
        for reference in names:
            if reference != target:
                start, stop = max(first, covered[reference][0]), min(last, covered[reference][1])
                slices = range(int(start), int(stop) + 1)
                pairs.append(
                    Pair(path, subject, target, reference, slices, target_scale, scales[reference], canvas, auxiliary)
                )
    return pairs


def _whole_multiple(stored: np.ndarray, scale: int) -> np.ndarray:
    _, rows, columns = stored.shape
    return stored[:, : rows - rows % scale, : columns - columns % scale].astype(np.float32)


def _random_crop(rng: np.random.Generator, shape: tuple[int, ...], side: int) -> tuple[slice, slice, slice]:
    row, column = (int(rng.integers(0, max(1, n - side + 1))) for n in shape)
    return slice(None), slice(row, row + side), slice(column, column + side)


def _fit(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Centre-crop or zero-pad (1, H, W) to another height and width."""
    result = np.zeros(shape, dtype=image.dtype)
    here, there = [], []
    for have, want in zip(image.shape[1:], shape[1:], strict=True):
        size = min(have, want)
        here.append(slice((have - size) // 2, (have - size) // 2 + size))
        there.append(slice((want - size) // 2, (want - size) // 2 + size))
    result[:, there[0], there[1]] = image[:, here[0], here[1]]
    return result
