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
        batch: slices a step, over all devices.
        crop: side of square crops of the canvas in high-resolution pixels; 0 for whole canvases, those of one
            step from one pair.
    """

    share: float
    batch: int
    crop: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything a training run depends on besides the data.

    Args:
        name: by which logs and weights call it.
        network: registered name.
        scale: factor from the low- to the high-resolution grid.
        learning_rate: highest one of the run.
        phases: whose shares sum to 1.
        steps: length of the run; or
        epochs: length in passes over as many slices as the data have. Samples are drawn, not dealt: a pass may show a
            slice twice and another not at all.
        minutes: the run ends after so many minutes of training when that is earlier.
        network_config: settings of the network that differ from its defaults.
        degradation: how the target was made coarse.
        contrasts: only these pairs of target and reference, such as "T2<-T1"; all by default.
        auxiliary_weight: how often, relative to others, slices whose target was resampled are drawn.
        augmentation: see there.
        loss: weights of terms that differ from those in `losses.WEIGHTS`, by name.
        load_balance: weight of the term that keeps CD-DPE's experts all in use; in no paper.
        matching: weight of the term that teaches DAASR and HFTN-SR where to look; in no paper.
        optimizer: "adam" or "adamw".
        betas: of Adam.
        weight_decay: of Adam.
        schedule: of the learning rate: "cosine" to 0, "constant", or "multistep".
        milestones: where "multistep" multiplies the learning rate by `gamma`; in epochs if the length is, else steps.
        gamma: see `milestones`.
        warmup_steps: over which the learning rate rises from 0; 0 for none.
        clip_norm: largest norm of the gradient; 0 for any.
        ema_decay: of the averaged weights, which are the result; 0 for the last weights themselves.
        precision: "32-true", "bf16-mixed" or "16-mixed"; mixed ones pay where a device is made for them, as GPUs are.
        seed: of initial weights, samples and noise.
        stage: 1 or 2 for a network that is trained in two.
    """

    name: str
    network: str
    scale: int
    learning_rate: float
    phases: tuple[Phase, ...]
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    network_config: dict[str, Any] = field(default_factory=dict)
    degradation: str = "kspace"
    contrasts: tuple[str, ...] = ()
    auxiliary_weight: float = 0.3
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: dict[str, float] = field(default_factory=dict)
    load_balance: float = 0.0
    matching: float = 0.0
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    precision: str = "32-true"
    seed: int = 0
    stage: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise InputError(f"The recipe {self.name} needs a length: give it either steps or epochs.")

    def in_steps(self, slices: int) -> Recipe:
        """The same recipe with length and milestones in steps, for data with so many slices."""
        if self.epochs is None:
            return self
        per_step = sum(phase.share * phase.batch for phase in self.phases)
        per_epoch = slices / per_step
        return dataclasses.replace(
            self,
            steps=max(1, round(self.epochs * per_epoch)),
            epochs=None,
            milestones=tuple(round(epoch * per_epoch) for epoch in self.milestones),
        )

    def phase_at(self, progress: float) -> Phase:
        """The phase of a run that has come so far (0..1)."""
        passed = 0.0
        for phase in self.phases:
            passed += phase.share
            if progress < passed:
                return phase
        return self.phases[-1]


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
        values |= {key: tuple(values[key]) for key in ("betas", "contrasts", "milestones") if key in values}
        return Recipe(**values)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path.name} is not a complete recipe: {error}.") from error
