"""Rigid registration of the reference to the target, accepted only where a second measure agrees.

Both images are put on isotropic grids along R, A and S first, so that neither storage order nor obliqueness nor shear
reaches the optimiser. ITK's physical space is RAS here: these images never leave this file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from .degradation import FactorsKJI, crop_to_multiple, degrade_volume
from .errors import Cancelled
from .geometry import Grid, transform_points
from .intensity import foreground
from .progress import CancelQuery, never_cancelled
from .registration_agreement import Sampled, correlations, slack_mm
from .resampling import coverage, resample
from .volume import Volume

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

MIN_SLICES = 3
"""Along every axis; fewer do not hold a rigid motion."""

ACCEPTANCE_MARGIN = 0.02
"""What the gradient correlation has to gain, and to exceed 0 by, for the registration to be believed."""

MIN_KEPT_OVERLAP = 0.5
"""Of the target's signal that the reference covers with the header geometry, what it must still cover: images that
have nothing in common are driven apart until a corner happens to match."""

MOST_SLACK_MM = 2.8
"""What a registration may leave open, see `registration_agreement.slack_mm`. Right ones (whole heads of patients, slabs
of 3 to 12 slices, boxes of 40 mm, a phantom) had 0.5 to 2.6 mm; wrong ones that gain in gradient correlation (slabs of
which two contrasts share nothing but the outline of the head, 2 to 18 mm off; a patient's FLAIR with T1, 21 mm off) had
3.0 mm and more."""

FINE_VOXELS = 1_500_000
"""Voxels of the finest working grid over the target's box, at most: 1.7 mm for a head, in proportion for all else."""

MOST_REFERENCE_VOXELS = 48_000_000
"""Likewise over the reference's box, which may be a whole head beside a small target: a bound on memory."""

HISTOGRAM_BINS = 32

CROP_MARGIN = 8
"""Voxels of the finest working grid that stay around the target's signal: more than the last stage still moves."""


@dataclass(frozen=True)
class Registration:
    """Where the reference lies.

    Args:
        reference_to_target: (4, 4), RAS mm in the reference's header to RAS mm in the target's; identity if not
            accepted. The moved reference is the same voxels on `moved_grid(reference.grid, reference_to_target)`.
        accepted: whether the header geometry was improved upon.
        correlation_before: gradient correlation (-1 to 1) with the header geometry.
        correlation_after: gradient correlation with the registration, accepted or not, over the same voxels.
        message: what was done, one sentence for the user.
        slack_mm: how far the reference could be moved before it showed; infinite where it never would, NaN where that
            was not measured.
    """

    reference_to_target: np.ndarray
    accepted: bool
    correlation_before: float
    correlation_after: float
    message: str
    slack_mm: float = float("nan")

    @property
    def uncertain(self) -> bool:
        """Whether the images would fit as well with the reference some millimetres away."""
        return self.slack_mm > MOST_SLACK_MM


@dataclass(frozen=True)
class _Stage:
    """A step of the multi-resolution search, each on voxels half as wide as the step before.

    Steps are in voxels of the finest working grid. Where the gradient turns back a step is shortened to `relaxation`
    of its length; 0.7 stops the middle stage up to half a millimetre short of its optimum. `samples` is how many of the
    target's voxels, at most, the mutual information is computed from: few lead close to the optimum, many place it.
    The coarsest stage sees the air around the head, whose outline guides it; the others see the target's signal alone:
    scalp and air bias the fit of FLAIR to T2 by half a millimetre.
    """

    first_step: float
    last_step: float
    iterations: int
    relaxation: float
    samples: int
    signal_only: bool


_STAGES = (
    _Stage(first_step=4.0, last_step=0.2, iterations=150, relaxation=0.7, samples=25_000, signal_only=False),
    _Stage(first_step=1.0, last_step=0.05, iterations=100, relaxation=0.9, samples=25_000, signal_only=True),
    _Stage(first_step=0.2, last_step=0.015, iterations=100, relaxation=0.7, samples=100_000, signal_only=True),
)


@dataclass
class _Job:
    """What all optimisations of one registration share; asks for cancellation and reports progress (0 to 1)."""

    seed: int
    centre_ras: np.ndarray
    radius_mm: float
    progress: Callable[[float], None]
    cancelled: CancelQuery

    def check(self, done: float) -> None:
        if self.cancelled():
            raise Cancelled("Cancelled during registration; nothing was written.")
        self.progress(done)


def register_rigid(
    target: Volume,
    reference: Volume,
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
    cancelled: CancelQuery = never_cancelled,
) -> Registration:
    """Find the rigid motion that lays the reference on the target.

    Mattes mutual information on three resolutions (SimpleITK), from two starts: the header geometry, and the
    centroids of the signal laid on each other. The better one is accepted where the gradient correlation, which the
    optimiser has not seen, gains `ACCEPTANCE_MARGIN`, falls when the reference is moved on by `MOST_SLACK_MM`, and the
    images still overlap; else the header geometry is kept. The same inputs and seed give the same bits, whatever the
    number of threads.

    Args:
        target: any grid that overlaps the reference in space.
        reference: any grid.
        seed: of the sampling of the mutual information.
        progress: receives the fraction done, 0 to 1.
        cancelled: asked at every iteration.

    Raises:
        Cancelled: when `cancelled` says so.
    """
    fine_mm = _fine_voxel_mm(target.grid, reference.grid)
    slices = min(*target.grid.shape_ijk, *reference.grid.shape_ijk)
    target, reference = _side_by_side(lambda volume: _joined(volume, fine_mm), (target, reference))
    targets, references = _side_by_side(lambda volume: _pyramid(volume, fine_mm), (target, reference))
    fixed = targets[-1] = _cropped(targets[-1], _signal_points(targets[0]))
    job = _Job(seed, *_signal_extent(targets[0]), progress, cancelled)
    if slices < MIN_SLICES:
        correlation, _, _ = correlations(fixed, reference, np.eye(4))
        message = "Registration needs several slices; the header geometry is used."
        return Registration(np.eye(4), False, correlation, correlation, message)
    job.check(0.4)
    target_to_reference = _search(targets, references, job)
    job.check(0.9)
    found = _judged(fixed, targets, (reference, references), np.linalg.inv(target_to_reference), job)
    job.check(1.0)
    return found


def _judged(
    fixed: Sampled, targets: list[Sampled], of_reference: tuple[Volume, list[Sampled]], motion: np.ndarray, job: _Job
) -> Registration:
    """What becomes of a motion (4, 4) from the reference to the target."""
    reference, references = of_reference
    before, after, kept = correlations(fixed, reference, motion)
    slack, doubt = float("nan"), ""
    if kept < MIN_KEPT_OVERLAP:
        doubt = "drove the images apart"
    elif after < max(before, 0) + ACCEPTANCE_MARGIN:
        doubt = "did not bring the images closer"
    else:
        slack = _slack_mm(targets, references, motion, job)
        if slack > MOST_SLACK_MM:
            doubt = "found no place that is better than others nearby"
    figures = f"gradient correlation {before:.2f} before, {after:.2f} after"
    if doubt:
        message = f"Registration {doubt}, so the header geometry is kept ({figures})."
        return Registration(np.eye(4), False, before, after, message, slack)
    back = transform_points(np.linalg.inv(motion), job.centre_ras)
    moved_mm = float(np.linalg.norm(job.centre_ras - back))
    turned_deg = float(np.rad2deg(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1))))
    message = f"The reference was moved by {moved_mm:.1f} mm and turned by {turned_deg:.1f} degrees ({figures})."
    return Registration(motion, True, before, after, message, slack)


def _slack_mm(targets: list[Sampled], references: list[Sampled], motion: np.ndarray, job: _Job) -> float:
    """On coarse voxels, which cost little; where they do not tell, as with a thin reference, on fine ones."""
    points, slack = _signal_points(targets[0]), float("inf")
    for target, reference in zip(targets[1:], references[1:], strict=True):
        job.check(0.95)
        slack = slack_mm(_cropped(target, points), reference.volume, motion, job.centre_ras, job.radius_mm)
        if slack <= MOST_SLACK_MM:
            break
    return slack


def _search(targets: list[Sampled], references: list[Sampled], job: _Job) -> np.ndarray:
    """Target-to-reference motion (4, 4) of most mutual information; the identity where none could be computed."""
    header = sitk.Euler3DTransform()
    header.SetCenter(job.centre_ras.tolist())
    centroids = sitk.Euler3DTransform(header)
    centroids.SetTranslation((_signal_extent(references[0])[0] - job.centre_ras).tolist())
    results = _side_by_side(lambda start: _optimise(0, targets, references, start, job), (header, centroids))
    best, _ = min(results, key=lambda result: result[1])
    for stage in range(1, len(_STAGES)):
        job.check(0.4 + 0.2 * stage)
        if stage == len(_STAGES) - 1:
            # ITK differentiates all of the reference, however little of it the target's signal lies on.
            points = transform_points(_matrix(best), _signal_points(targets[0]))
            references = [*references[:stage], _cropped(references[stage], points)]
        best, _ = _optimise(stage, targets, references, best, job)
    return _matrix(best)


def _side_by_side(do: Callable[[_Given], _Made], pair: tuple[_Given, _Given]) -> list[_Made]:
    """ITK and numpy let go of Python while they work, so that two threads take half the time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(do, pair))


def _matrix(best: sitk.Euler3DTransform) -> np.ndarray:
    """(4, 4) of ITK's rotation about a centre."""
    matrix = np.eye(4)
    matrix[:3, 3] = best.TransformPoint((0.0, 0.0, 0.0))
    matrix[:3, :3] = np.array(best.GetMatrix()).reshape(3, 3)
    return matrix


def _optimise(
    number: int, targets: list[Sampled], references: list[Sampled], start: sitk.Euler3DTransform, job: _Job
) -> tuple[sitk.Euler3DTransform, float]:
    """Climb to the nearest optimum at one resolution; returns it with the negative of its mutual information."""
    stage, target, reference = _STAGES[number], targets[number], references[number]
    fine_mm = float(targets[-1].volume.grid.spacing_ijk_mm[0])
    seen = target.covered & foreground(target.volume.array_kji) if stage.signal_only else target.covered
    grids = target.volume.grid, reference.volume.grid
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(HISTOGRAM_BINS)
    method.SetMetricFixedMask(_itk_in_ras(seen.astype(np.uint8), grids[0]))
    method.SetMetricMovingMask(_itk_in_ras(reference.covered.astype(np.uint8), grids[1]))
    method.SetMetricSamplingStrategy(method.RANDOM)
    # ITK takes a seed of 0 as "from the clock".
    method.SetMetricSamplingPercentage(min(1.0, stage.samples / max(1, int(seen.sum()))), job.seed + 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        stage.first_step * fine_mm, stage.last_step * fine_mm, stage.iterations, stage.relaxation, 1e-8
    )
    # One step turns the head's rim about as far as it shifts the head.
    method.SetOptimizerScales([job.radius_mm**2] * 3 + [1.0] * 3)
    # ITK adds the joint histogram's derivatives in the order in which threads finish; one of them, the same bits.
    method.SetNumberOfWorkUnits(1)
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    method.AddCommand(sitk.sitkIterationEvent, lambda: method.StopRegistration() if job.cancelled() else None)
    images = (_itk_in_ras(sampled.volume.array_kji, sampled.volume.grid) for sampled in (target, reference))
    try:
        method.Execute(*images)
    except RuntimeError:
        # ITK cannot compute the measure, for example where the images hardly overlap: the start stands, as the worst.
        return sitk.Euler3DTransform(start), float("inf")
    if job.cancelled():
        raise Cancelled("Cancelled during registration; nothing was written.")
    return transform, float(method.GetMetricValue())


def _fine_voxel_mm(target: Grid, reference: Grid) -> float:
    """Voxel size of the finest working grid: as the limits have it, but not finer than both images are."""
    limits = ((target, FINE_VOXELS), (reference, MOST_REFERENCE_VOXELS))
    affordable = max((np.prod(grid.spacing_ijk_mm * grid.shape_ijk) / voxels) ** (1 / 3) for grid, voxels in limits)
    return float(max(affordable, min(*target.spacing_ijk_mm, *reference.spacing_ijk_mm)))


def _joined(volume: Volume, voxel_mm: float) -> Volume:
    """The volume with as many voxels along each axis joined into one as fit in a voxel of the finest working grid."""
    spacing_kji, shape = volume.grid.spacing_ijk_mm[::-1], volume.array_kji.shape
    fitting = [min(n, int(voxel_mm / mm)) for n, mm in zip(shape, spacing_kji, strict=True)]
    factors: FactorsKJI = tuple(max(1, count) for count in fitting)
    return degrade_volume(crop_to_multiple(volume, factors)[0], factors, "average", signed=True)


def _pyramid(volume: Volume, fine_mm: float) -> list[Sampled]:
    """The volume on the working grid of every stage: 2 x 2 x 2 voxels of a stage are one of the stage before."""
    levels = [resample(volume, _working_grid(volume.grid, fine_mm), "linear")]
    while len(levels) < len(_STAGES):
        levels.insert(0, degrade_volume(levels[0], (2, 2, 2), "average", signed=True))
    return [Sampled(level, coverage(volume.grid, level.grid)) for level in levels]


def _working_grid(grid: Grid, voxel_mm: float) -> Grid:
    """Isotropic voxels along R, A and S about the bounds of a grid, the same for every storage order of it.

    Their number along each axis can be halved from stage to stage down to 4 at least, which ITK's derivatives need.
    """
    low, high = grid.ras_bounds()
    joined = 2 ** (len(_STAGES) - 1)
    shape = joined * np.maximum(4, np.ceil((high - low) / (joined * voxel_mm) - 1e-6)).astype(int)
    matrix = np.diag([voxel_mm] * 3 + [1.0])
    matrix[:3, 3] = (low + high) / 2 - voxel_mm * (shape - 1) / 2
    return Grid(tuple(shape.tolist()), matrix)


def _signal_extent(sampled: Sampled) -> tuple[np.ndarray, float]:
    """Centroid (3,) of the signal in RAS mm, and its root-mean-square distance from there in mm."""
    points = _signal_points(sampled)
    centre = points.mean(axis=0)
    voxel = float(sampled.volume.grid.spacing_ijk_mm[0])
    return centre, max(voxel, float(np.sqrt(np.square(points - centre).sum(axis=1).mean())))


def _signal_points(sampled: Sampled) -> np.ndarray:
    """RAS mm (N, 3) of the voxels that hold signal, or of all in the volume's box where none does."""
    signal = foreground(sampled.volume.array_kji)
    if not signal.any():
        signal = sampled.covered if sampled.covered.any() else np.ones_like(sampled.covered)
    return sampled.volume.grid.to_ras(np.argwhere(signal)[:, ::-1])


def _cropped(sampled: Sampled, points_ras: np.ndarray) -> Sampled:
    """What lies around points (N, 3), with `CROP_MARGIN` to each side."""
    ijk = sampled.volume.grid.to_ijk(points_ras)
    last = np.array(sampled.volume.grid.shape_ijk) - 1
    low = np.clip(np.floor(ijk.min(axis=0)) - CROP_MARGIN, 0, last).astype(int)
    high = np.clip(np.ceil(ijk.max(axis=0)) + CROP_MARGIN, 0, last).astype(int)
    volume = sampled.volume.cropped(tuple(low.tolist()), tuple((high - low + 1).tolist()))
    return Sampled(volume, sampled.covered[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))])


def _itk_in_ras(array_kji: np.ndarray, grid: Grid) -> sitk.Image:
    """An ITK image whose physical space is RAS mm, of an array on a working grid."""
    image = sitk.GetImageFromArray(array_kji)
    image.SetSpacing([float(s) for s in grid.spacing_ijk_mm])
    image.SetOrigin([float(o) for o in grid.ijk_to_ras[:3, 3]])
    return image
