"""What the expected error of each weights file was calibrated to, and on what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .model_folders import MODEL_FOLDERS
from .trust import FEATURES

CALIBRATIONS = "MultiContrastSR_trust.json"


@dataclass(frozen=True)
class Calibration:
    """How errors of one weights file follow from what can be seen.

    Args:
        coefficients: of `trust.FEATURES`, then a constant; none is negative.
        sessions: on which they were measured.
    """

    coefficients: tuple[float, ...]
    sessions: tuple[str, ...]


def calibrate(features: Sequence[np.ndarray], errors: Sequence[np.ndarray], sessions: Sequence[str]) -> Calibration:
    """The non-negative coefficients that fit absolute errors best (least squares over all voxels).

    Args:
        features: of each volume (3, N) at N voxels, see `trust.error_features`.
        errors: of each (N,), absolute, in the same units.
        sessions: their names.
    """
    design = np.concatenate([np.concatenate([f, np.ones_like(f[:1])]) for f in features], axis=1)
    target = np.concatenate(list(errors))
    used = list(range(len(FEATURES) + 1))
    # Few and positive unknowns: the most negative is left out until none is.
    while True:
        solved = np.linalg.lstsq(design[used].T, target, rcond=None)[0]
        if (solved >= 0).all():
            break
        del used[int(np.argmin(solved))]
    coefficients = np.zeros(len(FEATURES) + 1)
    coefficients[used] = solved
    return Calibration(tuple(round(float(c), 5) for c in coefficients), tuple(sessions))


def find_calibration(sha256: str) -> Calibration | None:
    """That of the weights with this hash, from the models' folders; None where there is none."""
    for folder in MODEL_FOLDERS:
        entry = read_calibrations(folder / CALIBRATIONS).get(sha256)
        if entry is not None:
            return entry
    return None


def read_calibrations(path: Path) -> dict[str, Calibration]:
    """Those in a file by the hash of their weights; none where there is no file."""
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text(encoding="utf-8"))["calibrations"]
    return {
        sha256: Calibration(tuple(entry["coefficients"]), tuple(entry["sessions"])) for sha256, entry in entries.items()
    }


def write_calibrations(path: Path, calibrations: dict[str, Calibration]) -> None:
    """Write them, those of weights that no longer exist left to the caller to leave out."""
    entries = {sha256: asdict(calibrations[sha256]) for sha256 in sorted(calibrations)}
    content = {"format_version": 1, "features": [*FEATURES, "constant"], "calibrations": entries}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
