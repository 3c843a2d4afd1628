"""From a trained network to a weights file that carries all that inference needs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import mode
from typing import Any

from .. import __version__
from ..canvas import MARGIN_HR
from ..degradation import degradation_named
from ..intensity import SCALE_PERCENTILE
from ..networks import Network
from ..subjects import find_subject_pairs
from ..weights import save_weights
from .recipe import Recipe

LICENCE = "CC BY 4.0, with attribution to the data (see `data`)"


def export_weights(network: Network, recipe: Recipe, data: Path, path: Path) -> Path:
    """Write the network with its card; figures are added when they are measured (`mcsr evaluate`)."""
    save_weights(path, network, weights_card(network, recipe, data))
    return path


def weights_card(network: Network, recipe: Recipe, data: Path) -> dict[str, Any]:
    """What the weights say of themselves, from the recipe and the attributes of the data."""
    pairs = find_subject_pairs(data, "train", contrasts=recipe.contrasts)
    contrasts = sorted({(pair.target, pair.reference) for pair in pairs})
    spacings = [pair.spacing_mm for pair in pairs]
    sources = {f"{citation} ({licence})" for citation, licence in (pair.session.origin for pair in pairs)}
    return {
        "architecture": recipe.network,
        "scale": recipe.scale,
        "degradation": recipe.degradation,
        "sampling": degradation_named(recipe.degradation).sampling,
        "intensity": f"divided by the {SCALE_PERCENTILE} percentile of the foreground, target (LR) and reference each",
        "canvas": {"kind": "signal", "margin_hr": MARGIN_HR, "multiple": network.multiple},
        "contrasts": [f"{target}<-{reference}" for target, reference in contrasts],
        "plane": mode(pair.plane for pair in pairs),
        "spacing_mm": [round(float(min(spacings)), 3), round(float(max(spacings)), 3)],
        "data": sorted(sources),
        "licence": LICENCE,
        "recipe": recipe.name,
        "git_revision": _git_revision(),
        "version": __version__,
        **({} if recipe.stage is None else {"stage": recipe.stage}),
    }


def _git_revision() -> str:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
