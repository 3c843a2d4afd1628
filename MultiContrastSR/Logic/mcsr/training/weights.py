"""From a trained network to a weights file that carries all that inference needs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .. import __version__
from ..canvas import MARGIN_HR
from ..degradation import degradation_named
from ..intensity import SCALE_PERCENTILE
from ..networks import Network
from ..subjects import SubjectPair, find_subject_pairs
from ..weights import save_weights
from .recipe import Recipe

LICENCE = "CC BY 4.0, with attribution to the data (see `data`)"


def export_weights(network: Network, recipe: Recipe, data: Path, path: Path) -> Path:
    """Write the network with its card; figures are added when they are measured (`mcsr evaluate`)."""
    save_weights(path, network, weights_card(network, recipe, data))
    return path


def weights_card(network: Network, recipe: Recipe, data: Path) -> dict[str, Any]:
    """What the weights say of themselves, from the recipe and the attributes of the data."""
    pairs = find_subject_pairs(data, "train")
    contrasts = sorted({(pair.target, pair.reference) for pair in pairs})
    spacings, sources = zip(*(_spacing_and_source(pair) for pair in pairs), strict=True)
    return {
        "architecture": recipe.network,
        "scale": recipe.scale,
        "degradation": recipe.degradation,
        "sampling": degradation_named(recipe.degradation).sampling,
        "intensity": f"divided by the {SCALE_PERCENTILE} percentile of the foreground, target (LR) and reference each",
        "canvas": {"kind": "signal", "margin_hr": MARGIN_HR, "multiple": network.multiple},
        "contrasts": [f"{target}<-{reference}" for target, reference in contrasts],
        "plane": "axial",  # what subject files hold: slices in LPS order
        "spacing_mm": [round(float(min(spacings)), 3), round(float(max(spacings)), 3)],
        "data": sorted(set(sources)),
        "licence": LICENCE,
        "recipe": recipe.name,
        "git_revision": _git_revision(),
        "version": __version__,
        **({} if recipe.stage is None else {"stage": recipe.stage}),
    }


def _spacing_and_source(pair: SubjectPair) -> tuple[float, str]:
    """In-plane spacing on the high-resolution grid, mm, and where the data come from."""
    with h5py.File(pair.path) as file:
        spacing = float(np.max(file.attrs["spacing"][:2]))
        return spacing, f"{file.attrs.get('citation', 'no citation given')} ({file.attrs.get('licence', 'unknown')})"


def _git_revision() -> str:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
