"""The training loop, on one device or many; what it needs beside is in the modules around it."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

from ..errors import InputError
from ..networks import Network
from ..progress import CancelQuery, Event, ProgressCallback, never_cancelled, no_progress
from ..weights import build_network, load_weights
from .adversarial import Adversary
from .checkpoint import State, load_checkpoint, save_checkpoint
from .data import Batch, TrainingPair, TrainingSamples, batches, find_pairs
from .devices import open_fabric, share_batch_statistics
from .logs import RunLog
from .objective import Objective, objective_for
from .optimizers import learning_rate, optimizer_for, set_learning_rate
from .recipe import Phase, Recipe
from .validation import validate_everywhere

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
LOG_EVERY = 50
CHECKPOINT_EVERY = 200
VALIDATE_AT = (0.2, 0.5, 0.8, 1.0)


def train(
    recipe: Recipe,
    data: Path,
    run_folder: Path,
    *,
    fabric: Fabric | None = None,
    initial: Path | None = None,
    resume: bool = False,
    workers: int = 0,
    accumulate: int = 1,
    backbone: Path | None = None,
    progress: ProgressCallback = no_progress,
    cancelled: CancelQuery = never_cancelled,
) -> Network:
    """Train a network and return it with its averaged (EMA) weights, on the CPU.

    A resumed run ends with the weights of one that was never interrupted, bit for bit on the same devices, unless its
    recipe has a limit by the clock. On more devices the same batches are divided, so that results agree to rounding;
    but for batch norm on several CPUs (DAASR), each of which knows the statistics of its own slices alone, for terms
    that are no mean over slices (`load_balance`, `matching`), and for dropout and noise.

    Args:
        recipe: what and how.
        data: folder of HDF5 subject files (see `data.py`).
        run_folder: receives `checkpoint.pt` (atomically, every few hundred steps), `log.csv` and `tensorboard/`.
        fabric: devices and precision, see `open_fabric`; one device in the recipe's precision by default.
        initial: weights file to start from, of any scale of the same network; for the second stage of a network that
            has two, that of its first.
        resume: continue from the folder's checkpoint.
        workers: processes that prepare batches beside the training; any number gives the same weights.
        accumulate: parts that a device takes its share of a batch in, one after the other, to save memory.
        backbone: VGG-19 for the perceptual term, see `VGGFeatures`.
        progress: told every step.
        cancelled: asked every step; True stops after a checkpoint.

    Raises:
        InputError: for a folder that does not fit `resume`, a recipe or data that cannot be used.
        McsrError: when the weights are no longer finite.
    """
    fabric = fabric or open_fabric(recipe.precision)
    run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = run_folder / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise InputError(f"{run_folder} has no checkpoint to resume from; leave --resume out.")
    if checkpoint.is_file() and not resume:
        raise InputError(f"{run_folder} holds the checkpoint of another run; --resume it, or choose another folder.")

    torch.manual_seed(recipe.seed)
    network = build_network(recipe.network, _config(recipe), recipe.stage)
    start = load_weights(initial).build() if initial is not None else None
    if resume and recipe.stage == 2 and start is None:
        start = build_network(recipe.network, _config(recipe), stage=1)  # its weights are in the checkpoint
    objective = objective_for(recipe, network, start, backbone)
    if start is not None and recipe.stage != 2:
        _start_from(network, start, recipe)
    state = _state(fabric, recipe, objective)
    if resume:
        load_checkpoint(fabric, checkpoint, state, recipe.name)

    measured = (recipe.scale, recipe.degradation, network.multiple)
    swapped = recipe.augmentation.contrast_pairs > 0
    pairs = find_pairs(data, "train", *measured, contrasts=recipe.contrasts, resampled_targets=swapped)
    recipe = recipe.in_steps(sum(len(pair.source.slices) for pair in pairs if pair.source.native))
    validation = find_pairs(data, "val", *measured, contrasts=recipe.contrasts)
    validation = [pair for pair in validation if not pair.source.auxiliary] or validation
    _check_sizes(network, recipe, [*pairs, *validation])
    logger.info("%d training pairs, %d validation pairs, %s steps", len(pairs), len(validation), recipe.steps)
    samples = TrainingSamples.of(network, pairs, recipe)
    run = _Run(fabric, recipe, state, samples, validation, run_folder, workers, accumulate)
    run.go(progress, cancelled)
    return state.averaged.cpu()


def _check_sizes(network: Network, recipe: Recipe, pairs: list[TrainingPair]) -> None:
    """Refuse slices that are larger than the only size a network fits, before anything is trained."""
    if network.native_size is None:
        return
    for pair in pairs:
        size = recipe.scale * max(pair.canvas.rows, pair.canvas.columns)
        if size > network.native_size:
            raise InputError(
                f"Slices of {pair.source.key} take {size} pixels, and {recipe.name} is for at most "
                f"{network.native_size}; set a larger `size` under [network_config]."
            )


class _Run:
    """One run, from the step that its state stands at."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        state: State,
        samples: TrainingSamples,
        validation: list[TrainingPair],
        folder: Path,
        workers: int,
        accumulate: int,
    ) -> None:
        self.fabric, self.recipe, self.state = fabric, recipe, state
        self.samples, self.validation, self.workers = samples, validation, workers
        self.parts = accumulate * fabric.world_size
        self.mine = range(fabric.global_rank * accumulate, (fabric.global_rank + 1) * accumulate)
        self.checkpoint = folder / CHECKPOINT
        self.aside = 0.0
        """Seconds of validation: a run of so many minutes is one of so many minutes of training."""
        self.log = RunLog(folder, state.step) if fabric.is_global_zero else None

    def go(self, report: ProgressCallback, cancelled: CancelQuery) -> None:
        """Train to the end, or until the user wants to stop."""
        state, phase = self.state, None
        started, before, begun = time.monotonic(), state.seconds, None
        while True:
            # The clock and the user of the first process are those of all.
            clock = before + time.monotonic() - started - self.aside
            state.seconds, stop = self.fabric.broadcast((clock, cancelled()))
            progress = self._progress()
            begun = progress if begun is None else begun
            report(_event(state.step, progress, begun, state.seconds - before))
            self._write_down(progress, stop)
            if stop or progress >= 1:
                break
            if phase != self.recipe.phase_at(progress):
                phase = self.recipe.phase_at(progress)
                coming = self._batches(phase)
            self._step(next(coming), learning_rate(self.recipe, state.step, progress))
        if self.log is not None:
            self.log.close()

    def _step(self, parts: list[Batch], rate: float) -> None:
        """One update from all parts of a batch, on all devices."""
        fabric, recipe, state = self.fabric, self.recipe, self.state
        judged = []
        for part, batch in zip(self.mine, fabric.to_device(parts), strict=True):
            torch.manual_seed(_seed(recipe.seed, state.step, part))
            with fabric.no_backward_sync(state.model, enabled=part != self.mine[-1]):  # type: ignore[arg-type]
                terms, images = state.model(batch)
                if state.adversary is not None:
                    terms["adversarial"] = recipe.loss["adversarial"] * state.adversary.deception_loss(images)
                fabric.backward(torch.stack(list(terms.values())).sum() / len(parts))
            state.add(terms, 1 / self.parts)
            judged.append((batch.truths, images.detach()))
        if recipe.clip_norm:
            fabric.clip_gradients(state.model, state.optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        set_learning_rate(state.optimizer, rate)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.adversary is not None:
            state.add({"discriminator": state.adversary.learn(judged, rate)}, 1 / self.fabric.world_size)
        _average(state.averaged, state.model.network, min(recipe.ema_decay, (1 + state.step) / (10 + state.step)))
        state.step += 1
        state.summed += 1

    def _write_down(self, progress: float, stop: bool) -> None:
        """Log, validation and checkpoint, whichever are due at the step that the state stands at."""
        state, ends = self.state, progress >= 1
        if state.summed and (ends or state.step % LOG_EVERY == 0):
            state.reduce(self.fabric)
            self._log("loss", {name: float(total) / state.summed for name, total in state.sums.items()}, progress)
            state.sums, state.summed = {}, 0
        due = sum(progress >= at for at in VALIDATE_AT)
        if due > state.validations and not stop:
            state.validations, asked = due, time.monotonic()
            scores, examples = validate_everywhere(self.fabric, state.averaged, self.validation, self.recipe)
            self._log("psnr", scores, progress)
            if self.log is not None:
                self.log.images(examples, state.step)
            self.aside += time.monotonic() - asked
        # Last, so that what the log holds up to a checkpoint's step is complete.
        if stop or ends or (state.step and state.step % CHECKPOINT_EVERY == 0):
            if self.log is not None:
                self.log.flush()
            save_checkpoint(self.fabric, self.checkpoint, state, self.recipe.name)

    def _log(self, group: str, values: dict[str, float], progress: float) -> None:
        if self.log is not None:
            self.log.values(group, values, self.state.step, self.state.seconds, progress)

    def _batches(self, phase: Phase) -> Iterator[list[Batch]]:
        return batches(self.samples, phase, self.state.step, self.workers, self.parts, self.mine)

    def _progress(self) -> float:
        """How far the run is (0..1): by steps, or by time where the recipe has a limit in minutes."""
        assert self.recipe.steps is not None, "a recipe is brought to steps before it runs"
        by_time = self.state.seconds / (60 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return max(self.state.step / self.recipe.steps, by_time)


def _state(fabric: Fabric, recipe: Recipe, objective: Objective) -> State:
    """The first state of a run, on its devices."""
    objective = objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(objective.network).eval().requires_grad_(False).to(fabric.device)
    shared = share_batch_statistics(objective, fabric)
    model, optimizer = fabric.setup(shared, optimizer_for(recipe, shared.parameters()))
    adversary = Adversary(fabric, recipe) if "adversarial" in objective.weights else None
    return State(model, optimizer, averaged, adversary)


def _config(recipe: Recipe) -> dict[str, object]:
    return {"scale": recipe.scale, **recipe.network_config}


def _start_from(network: Network, start: Network, recipe: Recipe) -> None:
    """Take over what fits: all of the same scale, all but the scale's own layers of another."""
    state = network.state_dict()
    fitting = {k: v for k, v in start.state_dict().items() if k in state and state[k].shape == v.shape}
    if not fitting:
        raise InputError(f"Nothing of the weights given with --initial fits {recipe.network}; leave --initial out.")
    network.load_state_dict(state | fitting)
    logger.info("%d of %d tensors are taken over", len(fitting), len(state))


def _seed(*numbers: int) -> int:
    """One seed from several, none like that of others."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _event(step: int, progress: float, begun: float, seconds: float) -> Event:
    done = progress - begun
    remaining = seconds * (1 - progress) / done if done > 0 and seconds > 1 else None
    return Event(f"Training, step {step}", min(1.0, progress), remaining)


@torch.no_grad()
def _average(averaged: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for mean, new in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(new, 1 - decay)
    for kept, current in zip(averaged.buffers(), model.buffers(), strict=True):
        kept.copy_(current)  # running statistics are averages already
