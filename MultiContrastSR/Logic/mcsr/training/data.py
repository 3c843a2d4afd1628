"""Training samples from HDF5 subject files, read slice by slice; LPS order is display orientation already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..canvas import Canvas, signal_canvas
from ..degradation import degrade, upsample
from ..intensity import intensity_scale
from ..subjects import SubjectPair, find_subject_pairs
from .recipe import Phase, Recipe


@dataclass(frozen=True)
class TrainingPair:
    """A pair with what the engine would find for it: intensity scales and canvas."""

    source: SubjectPair
    target_scale: float
    reference_scale: float
    canvas: Canvas


@dataclass(frozen=True)
class Sample:
    """One slice on the canvas, scaled: low resolution (1, h, w); high resolution and reference (1, H, W)."""

    target_lr: np.ndarray
    target_hr: np.ndarray
    reference: np.ndarray


def find_pairs(folder: Path, split: str, scale: int, degradation: str, multiple: int) -> list[TrainingPair]:
    """All pairs of a split; reads every volume once for its scale and canvas."""
    pairs = []
    for path, sources in groupby(find_subject_pairs(folder, split), key=lambda pair: pair.path):
        pairs += _measured(path, list(sources), scale, degradation, multiple)
    return pairs


def read_sample(pair: TrainingPair, index: int, scale: int, degradation: str) -> Sample:
    """Slice `index` of a pair on its canvas, degraded and scaled as the engine does it."""
    with h5py.File(pair.source.path) as file:
        hr = _whole_multiple(file[pair.source.target][index][None], scale)
        reference = _whole_multiple(file[pair.source.reference][index][None], scale)
    lr = degrade(hr, (1, scale, scale), degradation) / pair.target_scale
    return Sample(
        pair.canvas.crop(lr),
        pair.canvas.crop(hr / pair.target_scale, scale),
        pair.canvas.crop(reference / pair.reference_scale, scale),
    )


class Batch(NamedTuple):
    """Targets (B, 1, h, w), truths and references (B, 1, H, W); which references show the same slice (B,)."""

    targets: Tensor
    truths: Tensor
    references: Tensor
    registered: Tensor


class TrainingSamples:
    """Draws training batches; batch n is a pure function of the seed and n, so that a run can resume anywhere."""

    def __init__(self, pairs: list[TrainingPair], recipe: Recipe, *, upsamples_first: bool = True) -> None:
        self.pairs = pairs
        self.recipe = recipe
        self.upsamples_first = upsamples_first
        weights = np.array(
            [len(p.source.slices) * (recipe.auxiliary_weight if p.source.auxiliary else 1.0) for p in pairs]
        )
        self.probabilities = weights / weights.sum()

    def batch(self, step: int, phase: Phase) -> Batch:
        """The samples of one step.

        Crops come from any pairs. Whole canvases of one step come from one pair, as others have other sizes. For a
        network that upsamples first, crops hold the target already upsampled on the whole canvas: sinc interpolation
        of a crop would ring at its rim.
        """
        shared = np.random.default_rng((self.recipe.seed, step))
        pair = None if phase.crop else self._pair(shared)
        rngs = (np.random.default_rng((self.recipe.seed, step, n)) for n in range(phase.batch))
        samples = [self._draw(rng, phase, pair or self._pair(rng)) for rng in rngs]
        *images, registered = zip(*samples, strict=True)
        targets, truths, references = (torch.from_numpy(np.stack(c).astype(np.float32)) for c in images)
        return Batch(targets, truths, references, torch.tensor(registered))

    def _pair(self, rng: np.random.Generator) -> TrainingPair:
        return self.pairs[rng.choice(len(self.pairs), p=self.probabilities)]

    def _draw(
        self, rng: np.random.Generator, phase: Phase, pair: TrainingPair
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        recipe, augmentation = self.recipe, self.recipe.augmentation
        sample = read_sample(pair, int(rng.choice(pair.source.slices)), recipe.scale, recipe.degradation)
        factors = (1, recipe.scale, recipe.scale)
        upsampled = upsample(sample.target_lr, factors)
        reference, registered = self._reference(rng, pair, sample, upsampled)
        target, truth = sample.target_lr, sample.target_hr
        if phase.crop:
            coarse, fine = _random_crop(rng, target.shape[1:], phase.crop, recipe.scale)
            target = upsampled[fine] if self.upsamples_first else target[coarse]
            truth, reference = truth[fine], reference[fine]
        if rng.random() < augmentation.flip:
            target, truth, reference = target[..., ::-1], truth[..., ::-1], reference[..., ::-1]
        return target, truth, reference, registered

    def _reference(
        self, rng: np.random.Generator, pair: TrainingPair, sample: Sample, upsampled: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        augmentation = self.recipe.augmentation
        kind = rng.random()
        if kind < augmentation.self_reference:
            return upsampled, True
        reference, registered = sample.reference, True
        if kind < augmentation.self_reference + augmentation.foreign_reference:
            registered = False
            others = [p for p in self.pairs if p.source.subject != pair.source.subject]
            other = others[rng.integers(len(others))] if others else pair
            foreign = read_sample(
                other, int(rng.choice(other.source.slices)), self.recipe.scale, self.recipe.degradation
            )
            reference = _fit(foreign.reference, reference.shape)
        if rng.random() < augmentation.remap:
            reference = np.clip(reference, 0, None) ** rng.uniform(0.6, 1.6)
        if rng.random() < augmentation.shift:
            reach = augmentation.shift_pixels
            reference = np.roll(reference, rng.integers(-reach, reach + 1, 2), axis=(1, 2))
        return reference, registered


class _Steps(Dataset):
    """The batches of a phase by step, for worker processes."""

    def __init__(self, samples: TrainingSamples, phase: Phase) -> None:
        self.samples, self.phase = samples, phase

    def __getitem__(self, step: int) -> Batch:
        return self.samples.batch(step, self.phase)


def batches(samples: TrainingSamples, phase: Phase, first_step: int, workers: int) -> Iterator[Batch]:
    """The batches of a phase from a step on, the same ones for any number of worker processes that prepare them."""
    if workers == 0:
        return (samples.batch(step, phase) for step in count(first_step))
    steps = count(first_step)  # a sampler without an end
    return iter(DataLoader(_Steps(samples, phase), batch_size=None, sampler=steps, num_workers=workers))


def _measured(
    path: Path, sources: list[SubjectPair], scale: int, degradation: str, multiple: int
) -> list[TrainingPair]:
    with h5py.File(path) as file:
        contrasts = {name for pair in sources for name in (pair.target, pair.reference)}
        volumes = {name: _whole_multiple(file[name][()], scale) for name in sorted(contrasts)}
    scales = {name: intensity_scale(volume, f"{path.name} {name}") for name, volume in volumes.items()}
    pairs = []
    for pair in sources:
        lr = degrade(volumes[pair.target], (1, scale, scale), degradation)
        canvas = signal_canvas(lr, scale, multiple)
        pairs.append(TrainingPair(pair, intensity_scale(lr), scales[pair.reference], canvas))
    return pairs


def _whole_multiple(stored: np.ndarray, scale: int) -> np.ndarray:
    _, rows, columns = stored.shape
    return stored[:, : rows - rows % scale, : columns - columns % scale].astype(np.float32)


def _random_crop(
    rng: np.random.Generator, shape_lr: tuple[int, ...], side_hr: int, scale: int
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The same square in low- and in high-resolution pixels, for arrays (1, rows, columns)."""
    side = side_hr // scale
    row, column = (int(rng.integers(0, max(1, n - side + 1))) for n in shape_lr)
    coarse = (slice(None), slice(row, row + side), slice(column, column + side))
    fine = (slice(row * scale, (row + side) * scale), slice(column * scale, (column + side) * scale))
    return coarse, (slice(None), *fine)


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
