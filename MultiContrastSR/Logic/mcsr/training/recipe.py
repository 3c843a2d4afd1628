"""Recipes: what is trained, on what, how. One TOML file each, under `recipes/`."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .augmentation import Augmentation

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPE_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Args:
        share: fraction of the whole run.
        batch: slices a step.
        crop: side of square crops of the canvas in high-resolution pixels; 0 for whole canvases, those of one
            step from one pair.
    """

    share: float
    batch: int
    crop: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on besides the data; `stage` 1 or 2 is for networks that have two.

    `load_balance` is the weight of the term that keeps CD-DPE's experts all in use, `matching` that of the one that
    teaches DAASR and HFTN-SR where to look (see `losses`).
    """

    name: str
    network: str
    scale: int
    steps: int
    learning_rate: float
    phases: tuple[Phase, ...]
    network_config: dict[str, Any] = field(default_factory=dict)
    degradation: str = "kspace"
    auxiliary_weight: float = 0.3
    augmentation: Augmentation = field(default_factory=Augmentation)
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "bf16-mixed"
    seed: int = 0
    minutes: float | None = None
    stage: int | None = None
    load_balance: float = 0.0
    matching: float = 0.0


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Read a recipe by file, or by its name such as "shipped/dcamsr-s-x4"."""
    path = Path(name_or_file)
    if not path.is_file():
        path = RECIPE_FOLDER / f"{name_or_file}.toml"
    if not path.is_file():
        known = sorted(str(p.relative_to(RECIPE_FOLDER).with_suffix("")) for p in RECIPE_FOLDER.rglob("*.toml"))
        raise InputError(f"No recipe '{name_or_file}'; known are {', '.join(known)}, or give a .toml file.")
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    unknown = set(values) - {f.name for f in dataclasses.fields(Recipe)}
    if unknown:
        raise InputError(f"{path.name} has unknown settings {', '.join(sorted(unknown))}.")
    try:
        values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        values["augmentation"] = Augmentation(**values.get("augmentation", {}))
        return Recipe(**values)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path.name} is not a complete recipe: {error}.") from error
