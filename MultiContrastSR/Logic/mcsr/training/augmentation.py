"""What is done at random to a training sample.

Images are (1, rows, columns), scaled to about 0..1; displacements are in high-resolution pixels along (rows, columns).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..degradation import add_noise
from ..errors import InputError
from ..intensity import AIR, inverted

GAMMAS = (0.6, 1.6)
ELASTIC_KNOTS = 48
"""Pixels between the knots of an elastic displacement: what moves together is about as large as a ventricle."""
CURVE_KNOTS = (0.0, 0.12, 0.28, 0.48, 0.72, 1.0)
"""Denser where tissue lies: fat or fluid is what makes an image's scale."""
LESION_PIXELS = (2.0, 12.0)
"""Smallest and largest axis of a lesion."""
LESION_CONTRASTS = (0.15, 0.7)
"""Change of the signal as a fraction of that around, to either side."""


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges of what is done to a training sample.

    Args:
        flip: probability of a left-right mirror.
        self_reference: probability that the target, upsampled, stands in for the reference.
        foreign_reference: probability that a slice of another patient does.
        shift: probability of moving the reference by up to `shift_pixels` along rows and columns.
        shift_pixels: whole high-resolution pixels.
        remap: probability of a gamma between 0.6 and 1.6 on the reference's intensities.
        flip_rows: probability of an upside-down mirror.
        quarter_turns: probability of a turn by 90, 180 or 270 degrees (180 where the image is no square).
        contrast_pairs: probability that target and reference are redrawn among all contrasts of the session.
        noise: probability of noise on the target in low resolution.
        noise_level: smallest and largest standard deviation of that noise, as a fraction of the target's scale.
        noise_kind: "rician" (magnitude images) or "gaussian".
        misalign: probability of turning, shifting and warping the reference, in one resampling.
        rotation_degrees: largest angle of that turn, about the middle of the image.
        offset_pixels: largest shift of it along rows and along columns, in high-resolution pixels.
        elastic_pixels: largest displacement by its smooth warp.
        invert: probability that the reference's bright becomes dark and the other way round, but for air.
        curve: probability of a smooth random curve on the reference's intensities, half of them monotone.
        lesions: probability of lesions in the reference alone, so that a network learns not to believe what nothing
            in the target speaks for.
        lesion_area: pixels for each of them, on average.
    """

    flip: float = 0.5
    self_reference: float = 0.1
    foreign_reference: float = 0.05
    shift: float = 0.2
    shift_pixels: int = 2
    remap: float = 0.3
    flip_rows: float = 0.0
    quarter_turns: float = 0.0
    contrast_pairs: float = 0.0
    noise: float = 0.0
    noise_level: tuple[float, float] = (0.01, 0.05)
    noise_kind: str = "rician"
    misalign: float = 0.0
    rotation_degrees: float = 3.0
    offset_pixels: float = 3.0
    elastic_pixels: float = 1.5
    invert: float = 0.0
    curve: float = 0.0
    lesions: float = 0.0
    lesion_area: float = 800.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_level", tuple(np.atleast_1d(self.noise_level).tolist()))
        if len(self.noise_level) != 2 or not 0 <= self.noise_level[0] <= self.noise_level[1]:
            raise InputError(
                f"noise_level is {self.noise_level}; give the smallest and the largest, such as [0.01, 0.05]."
            )


def happens(probability: float, rng: np.random.Generator) -> bool:
    """Throws the dice; nothing is drawn for what never happens, so that the other draws stay what they are."""
    return probability > 0 and rng.random() < probability


def noisy(target_lr: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """The target in low resolution, perhaps with noise."""
    if not happens(augmentation.noise, rng):
        return target_lr
    sigma = rng.uniform(*augmentation.noise_level)
    return add_noise(target_lr, sigma, kind=augmentation.noise_kind, seed=int(rng.integers(2**32)))


def remapped(reference: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """The reference, perhaps with another contrast; 0 stays 0."""
    if rng.random() < augmentation.remap:
        reference = np.clip(reference, 0, None) ** rng.uniform(*GAMMAS)
    if happens(augmentation.invert, rng):
        reference = inverted(reference)
    if happens(augmentation.curve, rng):
        heights = rng.uniform(0, 1, len(CURVE_KNOTS) - 1)
        reference = curved(reference, np.array([0, *(np.sort(heights) if rng.random() < 0.5 else heights)]))
    return reference


def curved(image: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """A smooth curve on intensities through `heights` at `CURVE_KNOTS`, its maximum brought to 1.

    Between knots it is monotone and at them flat; intensities outside 0..1 are cut off.
    """
    knots = np.array(CURVE_KNOTS, dtype=image.dtype)
    heights = (heights / heights.max()).astype(image.dtype)
    left = np.clip(np.searchsorted(knots, image, side="right") - 1, 0, len(knots) - 2)
    along = np.clip((image - knots[left]) / np.diff(knots)[left], 0, 1)
    return heights[left] + np.diff(heights)[left] * along**2 * (3 - 2 * along)


def with_lesions(reference: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """The reference, perhaps with soft-edged ellipses of random size, direction and contrast where it holds signal."""
    if not happens(augmentation.lesions, rng):
        return reference
    changed, shape = reference.copy(), reference.shape[1:]
    smallest, largest = np.log(LESION_PIXELS)
    for _ in range(1 + rng.poisson(math.prod(shape) / augmentation.lesion_area)):
        place, angle = rng.uniform(0, 1, 2) * shape, rng.uniform(0, math.pi)
        axes, edge = np.exp(rng.uniform(smallest, largest, 2)) / 2, rng.uniform(1, 3)
        contrast = rng.choice((-1, 1)) * rng.uniform(*LESION_CONTRASTS)
        level = reference[0, int(place[0]), int(place[1])]
        if level > AIR:
            reach = axes.max() * (1 + edge / axes.min())
            first, last = np.maximum(place - reach, 0).astype(int), (place + reach).astype(int) + 2
            window = changed[0, first[0] : last[0], first[1] : last[1]]
            window += (contrast * level * ellipse(window.shape, place - first, axes, angle, edge)).astype(window.dtype)
    return np.maximum(changed, min(0, float(reference.min())))


def ellipse(shape: tuple[int, ...], place: np.ndarray, axes: np.ndarray, angle: float, edge: float) -> np.ndarray:
    """1 well inside an ellipse, 0 outside, falling linearly over `edge` pixels across its shorter axis."""
    row, column = (indices - middle for indices, middle in zip(np.ogrid[: shape[0], : shape[1]], place, strict=True))
    cosine, sine = math.cos(angle), math.sin(angle)
    radius = np.hypot((cosine * row + sine * column) / axes[0], (cosine * column - sine * row) / axes[1])
    return np.clip(0.5 + (1 - radius) * axes.min() / edge, 0, 1)


def shifted(
    reference: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The reference, perhaps moved by whole pixels, and its displacement (2, 1, 1)."""
    if rng.random() >= augmentation.shift:
        return reference, np.zeros((2, 1, 1))
    reach = augmentation.shift_pixels
    offset = rng.integers(-reach, reach + 1, 2)
    return np.roll(reference, offset, axis=(1, 2)), offset.reshape(2, 1, 1)


def misaligned(
    reference: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The reference, perhaps turned, shifted and warped, and its displacement (2, rows, columns) or (2, 1, 1)."""
    if not happens(augmentation.misalign, rng):
        return reference, np.zeros((2, 1, 1))
    shape = reference.shape[1:]
    angle = math.radians(rng.uniform(-augmentation.rotation_degrees, augmentation.rotation_degrees))
    offset = rng.uniform(-augmentation.offset_pixels, augmentation.offset_pixels, (2, 1, 1)).astype(np.float32)
    field = rotation(shape, angle) + offset + smooth_field(shape, rng) * rng.uniform(0, augmentation.elastic_pixels)
    return displaced(reference, field), field


def rotation(shape: tuple[int, ...], angle: float) -> np.ndarray:
    """Displacement (2, rows, columns) of a turn about the middle of an image, radians."""
    row, column = np.ogrid[tuple(slice((1 - n) / 2, n / 2) for n in shape)]
    cosine, sine = math.cos(angle) - 1, math.sin(angle)
    return np.stack([cosine * row - sine * column, sine * row + cosine * column]).astype(np.float32)


def smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A smooth random displacement (2, rows, columns), its largest length 1."""
    knots = torch.from_numpy(rng.normal(size=(1, 2, *(math.ceil(n / ELASTIC_KNOTS) + 1 for n in shape)))).float()
    field = F.interpolate(knots, size=tuple(shape), mode="bicubic", align_corners=True)[0].numpy()
    return field / np.hypot(*field).max()


def displaced(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """What lies at x + u(x), by cubic interpolation; the border is repeated outward, magnitudes stay magnitudes."""
    # grid_sample wants (column, row) in -1..1 from border to border.
    (rows, columns), (down, across) = image.shape[1:], field
    row = (np.arange(0.5, rows, dtype=np.float32)[:, None] + down) * (2 / rows) - 1
    column = (np.arange(0.5, columns, dtype=np.float32) + across) * (2 / columns) - 1
    grid = torch.from_numpy(np.stack([column, row], axis=-1, dtype=np.float32))
    source = torch.from_numpy(np.ascontiguousarray(image))
    moved = F.grid_sample(source[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return np.maximum(moved[0].numpy(), min(0, float(image.min())))


def turned(
    images: tuple[np.ndarray, ...], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """All images of a sample, perhaps mirrored or turned in the same way."""
    if rng.random() < augmentation.flip:
        images = tuple(image[..., ::-1] for image in images)
    if happens(augmentation.flip_rows, rng):
        images = tuple(image[:, ::-1] for image in images)
    if happens(augmentation.quarter_turns, rng):
        turns = int(rng.integers(1, 4))
        square = images[0].shape[1] == images[0].shape[2]
        images = tuple(np.rot90(image, turns if square else 2, axes=(1, 2)) for image in images)
    return images
