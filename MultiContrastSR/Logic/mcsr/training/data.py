"""Training samples, read slice by slice in display orientation, degraded and augmented on the fly."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..canvas import Canvas, signal_canvas
from ..degradation import degrade, upsample
from ..errors import InputError
from ..intensity import intensity_scale
from ..networks import Network
from ..subjects import Session, SubjectPair, find_subject_pairs
from .augmentation import happens, misaligned, noisy, remapped, shifted, turned, with_lesions
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


def find_pairs(
    folder: Path,
    split: str,
    scale: int,
    degradation: str,
    multiple: int,
    *,
    contrasts: Collection[str] = (),
    resampled_targets: bool = False,
) -> list[TrainingPair]:
    """All pairs of a split (see `find_subject_pairs`); reads every volume once for its scale and canvas."""
    found = find_subject_pairs(folder, split, contrasts=contrasts, resampled_targets=resampled_targets)
    pairs = []
    for session, sources in groupby(found, key=lambda pair: pair.session):
        pairs += _measured(session, list(sources), scale, degradation, multiple)
    return pairs


def read_sample(pair: TrainingPair, index: int, scale: int, degradation: str) -> Sample:
    """Slice `index` of a pair on its canvas, degraded and scaled as the engine does it."""
    source = pair.source
    stored = source.session.read(slice(index, index + 1), source.target, source.reference)
    hr, reference = (_whole_multiple(image, scale) for image in stored)
    lr = degrade(hr, (1, scale, scale), degradation) / pair.target_scale
    return Sample(
        pair.canvas.crop(lr),
        pair.canvas.crop(hr / pair.target_scale, scale),
        pair.canvas.crop(reference / pair.reference_scale, scale),
    )


def read_reference(pair: TrainingPair, index: int, scale: int) -> np.ndarray:
    """The reference of `read_sample` alone."""
    (stored,) = pair.source.session.read(slice(index, index + 1), pair.source.reference)
    return pair.canvas.crop(_whole_multiple(stored, scale) / pair.reference_scale, scale)


class Batch(NamedTuple):
    """Targets (B, 1, h, w), truths and references (B, 1, H, W); which references lie on the target (B,).

    A reference lies on the target when it is of the same slice and nowhere displaced by more than half a
    low-resolution pixel along rows or columns.
    """

    targets: Tensor
    truths: Tensor
    references: Tensor
    registered: Tensor


class TrainingSamples:
    """Draws training samples, each a pure function of seed, step and its number: a run can resume anywhere.

    Args:
        pairs: where they come from.
        recipe: what is done to them.
        upsamples_first: the network brings the target to the fine grid before anything else (`Network`).
        adds_to_sinc: the network takes the coarse target and adds its result to its sinc interpolation.
    """

    def __init__(
        self, pairs: list[TrainingPair], recipe: Recipe, *, upsamples_first: bool = True, adds_to_sinc: bool = False
    ) -> None:
        self.pairs = [pair for pair in pairs if pair.source.native]
        self.recipe = recipe
        self.upsamples_first = upsamples_first
        self.adds_to_sinc = adds_to_sinc
        self.by_session: dict[Path, list[TrainingPair]] = {}
        for pair in pairs:
            self.by_session.setdefault(pair.source.path, []).append(pair)
        weights = np.array(
            [len(p.source.slices) * (recipe.auxiliary_weight if p.source.auxiliary else 1.0) for p in self.pairs]
        )
        self.probabilities = weights / weights.sum()

    @classmethod
    def of(cls, network: Network, pairs: list[TrainingPair], recipe: Recipe) -> TrainingSamples:
        """Those that a network takes."""
        adds_to_sinc = not network.upsamples_first and network.config.upsampling == "sinc"
        return cls(pairs, recipe, upsamples_first=network.upsamples_first, adds_to_sinc=adds_to_sinc)

    def batch(self, step: int, phase: Phase, numbers: Sequence[int] | None = None) -> Batch:
        """The samples of one step, all `phase.batch` of them or those of the given numbers.

        Crops come from any pairs. Whole canvases of one step come from one pair, as others have other sizes. For a
        network that upsamples first, crops hold the target already upsampled on the whole canvas: sinc interpolation
        of a crop would ring at its rim.
        """
        shared = np.random.default_rng((self.recipe.seed, step))
        pair = None if phase.crop else self._pair(shared)
        numbers = range(phase.batch) if numbers is None else numbers
        rngs = (np.random.default_rng((self.recipe.seed, step, n)) for n in numbers)
        samples = [self._draw(rng, phase, pair or self._pair(rng)) for rng in rngs]
        *images, registered = zip(*samples, strict=True)
        targets, truths, references = (torch.from_numpy(np.stack(c).astype(np.float32)) for c in images)
        return Batch(targets, truths, references, torch.tensor(registered))

    def _pair(self, rng: np.random.Generator) -> TrainingPair:
        pair = self.pairs[rng.choice(len(self.pairs), p=self.probabilities)]
        if happens(self.recipe.augmentation.contrast_pairs, rng):
            others = self.by_session[pair.source.path]
            pair = others[rng.integers(len(others))]
        return pair

    def _draw(
        self, rng: np.random.Generator, phase: Phase, pair: TrainingPair
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        recipe, factors = self.recipe, (1, self.recipe.scale, self.recipe.scale)
        sample = read_sample(pair, int(rng.choice(pair.source.slices)), recipe.scale, recipe.degradation)
        target, truth = noisy(sample.target_lr, recipe.augmentation, rng), sample.target_hr
        kind = rng.random()
        if kind < recipe.augmentation.self_reference:
            reference, displacement = upsample(target, factors), np.zeros((2, 1, 1))
        else:
            foreign = kind < recipe.augmentation.self_reference + recipe.augmentation.foreign_reference
            reference, displacement = self._reference(rng, pair, sample.reference, foreign)
        if phase.crop:
            coarse, fine = _random_crop(rng, target.shape[1:], phase.crop, recipe.scale)
            upsampled = upsample(target, factors)[fine]
            truth, reference = truth[fine], reference[fine]
            target = upsampled if self.upsamples_first else target[coarse]
            if self.adds_to_sinc:
                # Interpolating a crop rings at its rim. Let the truth ring along: what is to be added stays the same.
                truth = truth + upsample(target, factors) - upsampled
            displacement = displacement[fine] if displacement.shape[1] > 1 else displacement
        registered = bool(np.abs(displacement).max() <= recipe.scale / 2)
        target, truth, reference = turned((target, truth, reference), recipe.augmentation, rng)
        return target, truth, reference, registered

    def _reference(
        self, rng: np.random.Generator, pair: TrainingPair, reference: np.ndarray, foreign: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The reference or a foreign one, changed at random, and how far it lies from the target (2, H, W)."""
        augmentation = self.recipe.augmentation
        if foreign:
            others = [p for p in self.pairs if p.source.subject != pair.source.subject]
            other = others[rng.integers(len(others))] if others else pair
            image = read_reference(other, int(rng.choice(other.source.slices)), self.recipe.scale)
            reference = _fit(image, reference.shape)
        reference = with_lesions(remapped(reference, augmentation, rng), augmentation, rng)
        reference, offset = shifted(reference, augmentation, rng)
        reference, field = misaligned(reference, augmentation, rng)
        return reference, np.full((2, 1, 1), np.inf) if foreign else offset + field


class _Steps(Dataset):
    """What one process trains on, by step, for worker processes.

    Arrays, not tensors: those would go from process to process through a socket in a temporary folder, which a killed
    training leaves behind.
    """

    def __init__(self, samples: TrainingSamples, phase: Phase, parts: int, mine: Sequence[int]) -> None:
        self.samples, self.phase = samples, phase
        self.numbers = [range(part, phase.batch, parts) for part in mine]

    def __getitem__(self, step: int) -> list[list[np.ndarray]]:
        parts = [self.samples.batch(step, self.phase, numbers) for numbers in self.numbers]
        return [[tensor.numpy() for tensor in batch] for batch in parts]


def _as_arrays(parts: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """For the loader, which would otherwise turn arrays into tensors in the worker."""
    return parts


def batches(
    samples: TrainingSamples,
    phase: Phase,
    first_step: int,
    workers: int,
    parts: int = 1,
    mine: Sequence[int] = (0,),
) -> Iterator[list[Batch]]:
    """The batches of a phase from a step on, the same ones for any number of worker processes that prepare them.

    Args:
        samples: where they are drawn from.
        phase: its `batch` is what all parts together hold.
        first_step: number of the first batch.
        workers: processes that prepare batches ahead; 0 prepares them when they are asked for.
        parts: into how many the batch is divided, over devices and accumulated gradients; part p holds the samples p,
            p + parts, p + 2 parts, ...
        mine: the parts wanted here.

    Yields:
        For every step one `Batch` per part in `mine`.

    Raises:
        InputError: when the batch cannot be divided into equal parts.
    """
    if phase.batch % parts:
        raise InputError(f"A batch of {phase.batch} cannot be divided into {parts} equal parts; change one of the two.")
    steps = _Steps(samples, phase, parts, mine)
    if workers == 0:
        prepared: Iterable[list[list[np.ndarray]]] = (steps[step] for step in count(first_step))
    else:
        prepared = DataLoader(
            steps, batch_size=None, sampler=count(first_step), num_workers=workers, collate_fn=_as_arrays
        )
    return ([Batch(*map(torch.from_numpy, arrays)) for arrays in parts] for parts in prepared)


def _measured(
    session: Session, sources: list[SubjectPair], scale: int, degradation: str, multiple: int
) -> list[TrainingPair]:
    names = sorted({name for pair in sources for name in (pair.target, pair.reference)})
    stored = zip(names, session.read(slice(None), *names), strict=True)
    volumes = {name: _whole_multiple(volume, scale) for name, volume in stored}
    scales = {name: intensity_scale(volume, f"{session.path.name} {name}") for name, volume in volumes.items()}
    pairs = []
    for target, of_target in groupby(sources, key=lambda pair: pair.target):
        lr = degrade(volumes[target], (1, scale, scale), degradation)
        target_scale, canvas = intensity_scale(lr), signal_canvas(lr, scale, multiple)
        pairs += [TrainingPair(pair, target_scale, scales[pair.reference], canvas) for pair in of_target]
    return pairs


def _whole_multiple(stored: np.ndarray, scale: int) -> np.ndarray:
    _, rows, columns = stored.shape
    return stored[:, : rows - rows % scale, : columns - columns % scale].astype(np.float32)


def _random_crop(
    rng: np.random.Generator, shape_lr: tuple[int, ...], side_hr: int, scale: int
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The same square in low- and in high-resolution pixels, for arrays (1, rows, columns)."""
    side = side_hr // scale
    if min(shape_lr) < side:
        raise InputError(
            f"A crop of {side_hr} pixels does not fit a canvas of {' x '.join(str(n * scale) for n in shape_lr)}; "
            "choose smaller crops."
        )
    row, column = (int(rng.integers(0, n - side + 1)) for n in shape_lr)
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
