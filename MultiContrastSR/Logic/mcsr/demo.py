"""The demonstration: degrade a volume, enhance it, compare with the truth."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .imageio import read_volume
from .job import Result, Settings
from .outputs import OUTPUT_FILES, write_result
from .phantom import demo_case
from .pipeline import enhance, simulate
from .progress import CancelQuery, ProgressCallback
from .volume import Volume

EXTRA_FILES = ("target_lr", "target_truth", "reference")
DEMO_FILES = (*OUTPUT_FILES, *(f"{name}.nii.gz" for name in EXTRA_FILES))


def demo_volumes(target: Path | None, reference: Path | None, seed: int) -> tuple[Volume, Volume]:
    """The high-resolution target and the reference: the user's own, or the brain phantom's."""
    if (target is None) != (reference is None):
        raise InputError("Give both --target and --reference, or neither for the brain phantom.")
    if target is not None and reference is not None:
        return read_volume(target), read_volume(reference)
    case = demo_case(seed)
    return case.target_hr, case.reference


def run_demo(
    truth: Volume,
    reference: Volume,
    settings: Settings,
    folder: Path,
    progress: ProgressCallback,
    cancelled: CancelQuery,
) -> tuple[Result, list[Path]]:
    """Simulate, enhance and write: low resolution, truth and reference beside the usual results.

    Returns:
        The result and all files written into the folder.
    """
    low, _ = simulate(truth, settings.scale, seed=settings.seed)
    result = enhance(low, reference, settings, ground_truth=truth, progress=progress, cancelled=cancelled)
    extra = dict(zip(EXTRA_FILES, (low, truth, reference), strict=True))
    return result, write_result(result, folder, extra)
