"""Images a second in training: `mcsr train` against the plain loop, with and without processes that prepare batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .bench_timing import Spread, Timed, spread
from .geometry import Grid
from .networks import create_network
from .phantom import demo_case, make_phantom
from .progress import Event
from .subjects_hdf5 import write_subject_file
from .subjects_session import Session
from .volume import Volume
from .weights import build_network

if TYPE_CHECKING:
    from .training.data import TrainingSamples
    from .training.recipe import Recipe

RECIPE = "shipped/dcamsr-s-x4"
PLAIN_LOOP, LOADING = "plain loop, fp32", "preparing batches alone"
WORKERS = 2
_FULL = "32-true"
_WARM_UP = 1
"""Steps that are not measured."""


@dataclass(frozen=True, eq=False)
class PhantomSession(Session):
    """T2 and T1 of the phantom on one grid."""

    volumes: Mapping[str, Volume]

    @property
    def grid(self) -> Grid:
        """Of all contrasts."""
        return next(iter(self.volumes.values())).grid

    def slices(self, target: str, reference: str) -> range:
        """All."""
        return range(len(self.volumes[target].array_kji))

    def read(self, slices: slice, *contrasts: str) -> list[np.ndarray]:
        """See `Session.read`."""
        return [self.volumes[name].array_kji[slices] for name in contrasts]


@dataclass(frozen=True)
class TrainingCost:
    """What was measured of training.

    Args:
        recipe: whose network, crops and batches were used.
        precision: the recipe's.
        batch: images a step.
        timed: seconds of a step by the way of training; of a batch as `LOADING`.
    """

    recipe: str
    precision: str
    batch: int
    timed: Timed

    def images_per_second(self, name: str) -> Spread:
        """Of a way of training, or of one process that prepares batches."""
        return spread([self.batch / seconds for seconds in self.timed.seconds[name]])

    def waiting(self, workers: int) -> float:
        """Share of a step (0..1) in the recipe's precision that data take: what it takes beyond the step alone."""
        seconds = self.timed.seconds
        bare, own = seconds[way(self.precision)], seconds[way(self.precision, workers)]
        rounds = zip(bare, own, seconds[LOADING], strict=True)
        return spread([max(0.0, 1 - (without - load) / step) for without, step, load in rounds]).middle


def way(precision: str, workers: int = 0) -> str:
    """What training in a precision with so many processes that prepare batches is called."""
    return f"mcsr train, {precision}" + (f", {workers} workers" if workers else "")


def measure_training(size: str, rounds: int, steps: int, passed: Callable[[float], None]) -> TrainingCost:
    """Train on the phantom for a few steps each way, in turn, on the first GPU where there is one.

    Args:
        size: of the phantom.
        rounds: of all ways.
        steps: that are measured of each way in a round.
        passed: told the share that is done; may raise `Cancelled`.

    Raises:
        ModuleNotFoundError: lightning is not installed.
    """
    from .training.recipe import load_recipe

    recipe = load_recipe(RECIPE)
    phase = replace(recipe.phases[0], share=1.0)
    recipe = replace(recipe, phases=(phase,), minutes=None, steps=10**6)
    full = replace(recipe, precision=_FULL)
    ways: dict[str, Callable[[Path], float]] = {
        PLAIN_LOOP: lambda data: _plain_seconds(recipe, data, steps),
        way(_FULL): lambda data: _step_seconds(full, data, steps, 0),
        way(recipe.precision): lambda data: _step_seconds(recipe, data, steps, 0),
        way(recipe.precision, WORKERS): lambda data: _step_seconds(recipe, data, steps, WORKERS),
        LOADING: lambda data: _loading_seconds(recipe, data, steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        _write_phantom(data, size)
        for number in range(rounds):
            for column, (name, run) in enumerate(ways.items()):
                seconds[name].append(run(data))
                passed((number * len(ways) + column + 1) / (rounds * len(ways)))
    timed = Timed({name: tuple(found) for name, found in seconds.items()})
    return TrainingCost(RECIPE, recipe.precision, phase.batch, timed)


def _write_phantom(folder: Path, size: str) -> None:
    target = demo_case(size=size).target_hr
    volumes = {"T2": target, "T1": make_phantom(target.grid, "T1")}
    origin = ("the brain phantom", "none")
    for split in ("train", "val"):
        session = PhantomSession(Path(split), split, ("T2", "T1"), ("T2",), False, origin, volumes)
        write_subject_file(session, split, folder)


def _step_seconds(recipe: Recipe, data: Path, steps: int, workers: int) -> float:
    """Median seconds of a step of `mcsr train`, which tells of its progress once before every step."""
    from .training.loop import train

    clock = _Clock(steps)
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, data, Path(folder), workers=workers, progress=clock.tick, cancelled=clock.has_enough)
    return clock.middle()


def _plain_seconds(recipe: Recipe, data: Path, steps: int) -> float:
    """The same of the loop that a tutorial would show: fp32, and every batch is prepared when it is asked for."""
    from .training.data import Batch, batches
    from .training.objective import objective_for
    from .training.optimizers import optimizer_for

    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_network(recipe.network, {"scale": recipe.scale, **recipe.network_config})
    objective = objective_for(recipe, network).to(device).train()
    optimizer = optimizer_for(recipe, objective.parameters())
    coming, clock = batches(_samples(recipe, data), recipe.phases[0], 0, 0), _Clock(steps)
    clock.tick()
    while not clock.has_enough():
        (batch,) = next(coming)
        terms, _ = objective(Batch(*(tensor.to(device) for tensor in batch)))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.clip_norm)
        optimizer.step()
        clock.tick()
    return clock.middle()


def _loading_seconds(recipe: Recipe, data: Path, steps: int) -> float:
    """Median seconds of preparing a batch."""
    from .training.data import batches

    coming, clock = batches(_samples(recipe, data), recipe.phases[0], 0, 0), _Clock(steps)
    clock.tick()
    while not clock.has_enough():
        next(coming)
        clock.tick()
    return clock.middle()


def _samples(recipe: Recipe, data: Path) -> TrainingSamples:
    """As `mcsr train` draws them."""
    from .training.data import TrainingSamples, find_pairs

    network = create_network(recipe.network, scale=recipe.scale, **recipe.network_config)
    pairs = find_pairs(data, "train", recipe.scale, recipe.degradation, network.multiple)
    return TrainingSamples.of(network, pairs, recipe)


class _Clock:
    """Moments between steps; the first steps warm up and do not count."""

    def __init__(self, steps: int) -> None:
        self._needed = steps + _WARM_UP + 1
        self._moments: list[float] = []

    def tick(self, event: Event | None = None) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._moments.append(time.perf_counter())

    def has_enough(self) -> bool:
        return len(self._moments) >= self._needed

    def middle(self) -> float:
        """Median seconds of a step."""
        return float(np.median(np.diff(self._moments)[_WARM_UP:]))
