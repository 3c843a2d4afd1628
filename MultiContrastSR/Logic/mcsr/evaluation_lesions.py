"""Does a lesion survive, and does one appear that is not there? Measured on the phantom, where the truth is known.

Soft-edged discs of several sizes and contrasts are set into the white matter of a T2 before it is degraded, or of its
T1 reference alone, and what they change in the result is measured. Contrast is always the change of the signal as a
fraction of that of the tissue around, so that it means the same in both images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from .geometry import Grid
from .job import Memory, Result, Settings
from .phantom import make_phantom, tissue_fractions
from .phantom_tissue import TISSUE_INDEX
from .pipeline import enhance, simulate
from .pipeline_inputs import degradation_for
from .progress import CancelQuery, Event, JobProgress, ProgressCallback, never_cancelled, no_progress
from .volume import Volume

DIAMETERS_MM = (8.0, 4.0, 2.0)
CONTRASTS = (-0.5, -0.2, 0.2, 0.5)
EDGE_MM = 1.0
"""Width over which a lesion passes into the tissue around it."""

# A field of view that holds the head, and the height of its centrum semiovale, where white matter is widest.
_FIELD_MM = (192.0, 230.4)
_CENTRE_RAS = (1.5, -16.0, 31.0)
_THICKNESS_MM = 4.0
_WHITE = 0.7
_CLEARANCE_MM = 1.5
_CANDIDATES = 50


@dataclass(frozen=True)
class Lesion:
    """A disc in one slice.

    Args:
        place_kji: voxel of its middle.
        diameter_mm: where the profile has fallen to one half.
        contrast: change of the signal as a fraction of that of the tissue around.
    """

    place_kji: tuple[int, int, int]
    diameter_mm: float
    contrast: float

    def profile(self, grid: Grid) -> np.ndarray:
        """Its share of the lesion's slice (J, I) of an axial grid: 1 inside, 0 outside, linear over `EDGE_MM`."""
        return np.clip(0.5 - self.distance_mm(grid) / EDGE_MM, 0, 1)

    def distance_mm(self, grid: Grid) -> np.ndarray:
        """Signed distance (J, I) to its edge, negative inside."""
        rows, columns = np.ogrid[: grid.shape_kji[1], : grid.shape_kji[2]]
        _, row, column = self.place_kji
        width, height, _ = grid.spacing_ijk_mm
        return np.hypot((rows - row) * height, (columns - column) * width) - self.diameter_mm / 2


@dataclass(frozen=True)
class Scene:
    """High-resolution target and reference on one grid, each without and with the same lesions; `seed` of the head."""

    seed: int
    target: Volume
    target_with: Volume
    reference: Volume
    reference_with: Volume
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True)
class Effect:
    """What became of a lesion, in percent.

    Args:
        lesion: which.
        kept: of its contrast, where it was in the target alone; see `kept`.
        kept_by_sinc: the same by interpolation alone, which shows what the acquired band holds of it.
        leaked: of its contrast, where it was in the reference alone; see `leaked`.
        leaked_most: at the worst pixel; see there.
    """

    lesion: Lesion
    kept: float
    kept_by_sinc: float
    leaked: float
    leaked_most: float


def lesion_scene(seed: int = 0, *, slices: int = 4, pixel_mm: float = 0.8) -> Scene:
    """T2 and T1 of the phantom without its own lesions, and with one disc of every size and contrast in every slice.

    Args:
        seed: which head, and where in its white matter the lesions lie.
        slices: axial, 4 mm apart.
        pixel_mm: in plane.
    """
    columns, rows = (round(size / pixel_mm) for size in _FIELD_MM)
    matrix = np.diag([-pixel_mm, -pixel_mm, _THICKNESS_MM, 1.0])
    matrix[:3, 3] = _CENTRE_RAS - matrix[:3, :3] @ ((np.array([columns, rows, slices]) - 1) / 2)
    grid = Grid((columns, rows, slices), matrix)
    target, reference = (make_phantom(grid, contrast, seed=seed, lesions=False) for contrast in ("T2", "T1"))
    lesions = _places(grid, seed)
    return Scene(seed, target, with_lesions(target, lesions), reference, with_lesions(reference, lesions), lesions)


def with_lesions(volume: Volume, lesions: Sequence[Lesion]) -> Volume:
    """The volume with lesions added, each in proportion to the tissue around it."""
    array = volume.array_kji.copy()
    for lesion in lesions:
        change = lesion.contrast * tissue_level(volume, lesion) * lesion.profile(volume.grid)
        array[lesion.place_kji[0]] += change.astype(array.dtype)
    return volume.with_array(array)


def tissue_level(volume: Volume, lesion: Lesion) -> float:
    """Median signal in the lesion's place, in a volume that is without it."""
    return float(np.median(_core(volume.array_kji, lesion, volume.grid)))


def kept(change: np.ndarray, inserted: np.ndarray, lesion: Lesion, grid: Grid) -> float:
    """Percent of a lesion's contrast that a result shows: 100 is all of it.

    Args:
        change: result with the lesion in the target minus the one without (K, J, I).
        inserted: the same of the truth.
        lesion: its core, the pixels with half of its contrast or more, is averaged.
        grid: of both.
    """
    return 100 * float(_core(change, lesion, grid).mean() / _core(inserted, lesion, grid).mean())


def leaked(
    change: np.ndarray, levels: tuple[float, float], inserted: np.ndarray, lesion: Lesion, grid: Grid, margin_mm: float
) -> tuple[float, float]:
    """Percent of a lesion's contrast in the reference that a result shows although the target has no such lesion.

    100: where the reference's tissue is 20 % brighter, the result's is 20 % brighter, or darker, as well.

    Args:
        change: result with the lesion in the reference minus the one without (K, J, I).
        levels: signal of the tissue around, in the target and in the reference.
        inserted: the reference with the lesion minus the one without.
        lesion: which.
        grid: of both.
        margin_mm: how far beyond its edge is looked.

    Returns:
        The mean over the core, without its sign; and the largest change of any pixel up to the margin, as a fraction of
        the lesion's largest: an outline shows there alone.
    """
    near = lesion.distance_mm(grid) <= margin_mm
    here, there = change[lesion.place_kji[0]] / levels[0], inserted[lesion.place_kji[0]] / levels[1]
    most = float(np.abs(here[near]).max() / np.abs(there[near]).max())
    return abs(kept(change / levels[0], inserted / levels[1], lesion, grid)), 100 * most


def measure(
    scene: Scene,
    runs: Sequence[tuple[str, int]],
    settings: Settings,
    *,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Iterator[tuple[str, int, list[Effect]]]:
    """Enhance a scene as it is, with the lesions in the target and with them in the reference.

    Args:
        scene: see `lesion_scene`.
        runs: models and scales.
        settings: device and seed; the images are not registered, since they lie on one grid.
        progress: receives events.
        cancelled: asked between batches.

    Yields:
        Model, scale and the effects on all lesions.

    Raises:
        WeightsError: when a model has no weights.
        Cancelled: where asked to.
    """
    report = JobProgress(progress, cancelled, {f"{model} x{scale}": 1.0 for model, scale in runs})
    for model, scale in runs:
        with report.stage(f"{model} x{scale}"):
            chosen = replace(settings, model=model, scale=scale, plane="axial", registration="none")
            effects = _effects(scene, chosen, report)
        yield model, scale, effects


def markdown(scene: Scene, effects: Mapping[tuple[str, int], Sequence[Effect]]) -> str:
    """What was done, and a row for each model, scale and size: the mean over the lesions, and the worst of them."""
    grid = scene.target.grid
    contrasts = ", ".join(f"{100 * contrast:+.0f}" for contrast in CONTRASTS)
    lines = [
        f"Phantom, seed {scene.seed}: T2 helped by T1, {grid.shape_kji[0]} axial slices with pixels of "
        f"{grid.spacing_ijk_mm[0]:g} mm, {len(scene.lesions)} lesions in white matter, their contrast {contrasts} % of "
        "the tissue around. Kept, where a lesion is in the T2 alone, and leaked, where it is in the T1 alone: percent "
        "of its contrast, on average over its core; largest pixel: up to one acquired pixel beyond its edge. Mean and "
        "worst are over the lesions of a size.",
        "",
        "| model | scale | lesion (mm) | kept (%) | worst | kept by sinc (%) | worst "
        "| leaked (%) | worst | leaked, largest pixel (%) | worst |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for ((model, scale), found), size in itertools.product(effects.items(), sorted(DIAMETERS_MM)):
        chosen = [effect for effect in found if effect.lesion.diameter_mm == size]
        low = [np.array([effect.kept for effect in chosen]), np.array([effect.kept_by_sinc for effect in chosen])]
        high = [np.array([effect.leaked for effect in chosen]), np.array([effect.leaked_most for effect in chosen])]
        cells = [f"{values.mean():.0f} | {values.min():.0f}" for values in low]
        cells += [f"{values.mean():.1f} | {values.max():.1f}" for values in high]
        lines.append(f"| {model} | x{scale} | {size:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _effects(scene: Scene, settings: Settings, report: JobProgress) -> list[Effect]:
    degradation = degradation_for(settings)
    low, low_with = (
        simulate(volume, settings.scale, degradation=degradation)[0] for volume in (scene.target, scene.target_with)
    )
    pairs = ((low, scene.reference), (low_with, scene.reference), (low, scene.reference_with))
    memory = Memory()

    def run(number: int) -> Result:
        def show(event: Event) -> None:
            report.update((number + event.fraction) / len(pairs))

        return enhance(*pairs[number], settings, memory=memory, progress=show, cancelled=report.cancelled)

    plain, in_target, in_reference = (run(number) for number in range(len(pairs)))
    grid = scene.target.grid
    survives = in_target.sr.array_kji - plain.sr.array_kji
    by_sinc = in_target.interpolated.array_kji - plain.interpolated.array_kji
    appears = in_reference.sr.array_kji - plain.sr.array_kji
    of_target = scene.target_with.array_kji - scene.target.array_kji
    of_reference = scene.reference_with.array_kji - scene.reference.array_kji
    margin_mm = settings.scale * float(grid.spacing_ijk_mm[0])
    return [
        Effect(
            lesion,
            kept(survives, of_target, lesion, grid),
            kept(by_sinc, of_target, lesion, grid),
            *leaked(
                appears,
                (tissue_level(scene.target, lesion), tissue_level(scene.reference, lesion)),
                of_reference,
                lesion,
                grid,
                margin_mm,
            ),
        )
        for lesion in scene.lesions
    ]


def _core(array_kji: np.ndarray, lesion: Lesion, grid: Grid) -> np.ndarray:
    """The values where the lesion has half of its contrast or more."""
    return array_kji[lesion.place_kji[0]][lesion.profile(grid) >= 0.5]


def _places(grid: Grid, seed: int) -> tuple[Lesion, ...]:
    """One lesion of every size and contrast in every slice, inside white matter and far from each other."""
    k, j, i = np.indices(grid.shape_kji)
    white = tissue_fractions(grid.to_ras(np.stack([i, j, k], axis=-1)), seed, lesions=False)
    white = white[..., TISSUE_INDEX["white matter"]] > _WHITE
    rng = np.random.default_rng(seed)
    lesions: list[Lesion] = []
    for number, mask in enumerate(white):
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing([float(mm) for mm in grid.spacing_ijk_mm[:2]])
        inside = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
        clearance, taken = sitk.GetArrayFromImage(inside), np.zeros((0, 2), dtype=int)
        for diameter, contrast in itertools.product(DIAMETERS_MM, CONTRASTS):
            room = np.argwhere(clearance >= diameter / 2 + _CLEARANCE_MM)
            candidates = rng.permutation(room)[:_CANDIDATES]
            # The candidate that is farthest from the lesions so far.
            gaps = np.linalg.norm(candidates[:, None] - taken[None], axis=2).min(axis=1, initial=np.inf)
            row, column = candidates[gaps.argmax()]
            taken = np.vstack([taken, [row, column]])
            lesions.append(Lesion((number, int(row), int(column)), diameter, contrast))
    return tuple(lesions)
