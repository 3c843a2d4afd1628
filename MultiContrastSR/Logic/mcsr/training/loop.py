"""The training loop: the network's loss on the canvas, Adam with warm-up and cosine decay, EMA, checkpoints, resume."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision.amp import MixedPrecision

from ..errors import InputError
from ..metrics import psnr
from ..networks import Network, create_network
from ..networks.diffmsr import DiffMSRStage1
from ..weights import build_network, load_weights
from .data import TrainingPair, TrainingSamples, batches, find_pairs, read_sample
from .objective import objective_for
from .recipe import Phase, Recipe

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
LOG_EVERY = 50
CHECKPOINT_EVERY = 200
VALIDATE_AT = (0.2, 0.5, 0.8)
VALIDATION_STRIDE = 6


def train(
    recipe: Recipe,
    data: Path,
    run_folder: Path,
    *,
    initial: Path | None = None,
    resume: bool = False,
    workers: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> Network:
    """Train a network and return it with its averaged (EMA) weights, on the CPU.

    Args:
        recipe: what and how.
        data: folder of HDF5 subject files (see `data.py`).
        run_folder: receives `checkpoint.pt` (atomically, every few hundred steps) and `log.csv`.
        initial: weights file to start from, of any scale of the same network; for the second stage of a network that
            has two, that of its first.
        resume: continue from the folder's checkpoint.
        workers: processes that prepare batches beside the training; any number gives the same weights.
        cancelled: asked every step; True stops after a checkpoint.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = run_folder / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise InputError(f"{run_folder} has no checkpoint to resume from; leave --resume out.")
    if checkpoint.is_file() and not resume:
        raise InputError(f"{run_folder} holds the checkpoint of another run; --resume it, or choose another folder.")
    torch.manual_seed(recipe.seed)
    fabric = _fabric(recipe.precision)
    config = {"scale": recipe.scale, **recipe.network_config}
    network = build_network(recipe.network, config, recipe.stage)
    start = load_weights(initial).build() if initial is not None else None
    objective = objective_for(recipe, network, start)
    if start is not None and type(start) is type(network):
        _start_from(network, start)
    objective = objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).eval().to(fabric.device)
    trained = [p for p in objective.parameters() if p.requires_grad]
    model, optimizer = fabric.setup(objective, torch.optim.Adam(trained, lr=recipe.learning_rate))
    state: dict[str, Any] = {"model": model, "averaged": averaged, "optimizer": optimizer, "step": 0, "seconds": 0.0}
    if resume:
        fabric.load(checkpoint, state)
    train_pairs = find_pairs(data, "train", recipe.scale, recipe.degradation, network.multiple)
    samples = TrainingSamples(train_pairs, recipe, upsamples_first=network.upsamples_first)
    validation = find_pairs(data, "val", recipe.scale, recipe.degradation, network.multiple)
    validation = [pair for pair in validation if not pair.source.auxiliary] or validation
    logger.info("%d training pairs, %d validation pairs", len(samples.pairs), len(validation))
    _run(fabric, recipe, state, samples, validation, run_folder, workers, cancelled)
    return averaged.cpu()


def _run(
    fabric: Fabric,
    recipe: Recipe,
    state: dict[str, Any],
    samples: TrainingSamples,
    validation: list[TrainingPair],
    run_folder: Path,
    workers: int,
    cancelled: Callable[[], bool],
) -> None:
    model, averaged, optimizer = state["model"], state["averaged"], state["optimizer"]
    losses: list[dict[str, float]] = []
    started, before = time.monotonic(), state["seconds"]
    validate_at = [at for at in VALIDATE_AT if at > _progress(recipe, state)]
    phase: Phase | None = None
    while True:
        state["seconds"] = before + time.monotonic() - started
        progress = _progress(recipe, state)
        if progress >= 1 or cancelled():
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(recipe, state["step"], progress)
        if phase != _phase(recipe, progress):
            phase = _phase(recipe, progress)
            coming = batches(samples, phase, state["step"], workers)
        terms = model(fabric.to_device(next(coming)))
        fabric.backward(torch.stack(list(terms.values())).sum())
        fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _average(averaged, model.network, min(recipe.ema_decay, (1 + state["step"]) / (10 + state["step"])))
        losses.append({name: term.item() for name, term in terms.items()})
        state["step"] += 1
        if state["step"] % LOG_EVERY == 0:
            means = {name: float(np.mean([step[name] for step in losses])) for name in losses[0]}
            _log(run_folder, state, progress, means)
            losses.clear()
        if state["step"] % CHECKPOINT_EVERY == 0:
            save_checkpoint(fabric, run_folder / CHECKPOINT, state)
        while validate_at and progress >= validate_at[0]:
            validate_at.pop(0)
            _log(run_folder, state, progress, validate(averaged, validation, recipe))
    save_checkpoint(fabric, run_folder / CHECKPOINT, state)
    _log(run_folder, state, _progress(recipe, state), validate(averaged, validation, recipe))


class _Autocast(MixedPrecision):
    """Mixed precision inside the networks alone: fabric's own would round the truths too."""

    def convert_input(self, data: Any) -> Any:
        """As it is."""
        return data


def _fabric(precision: str) -> Fabric:
    if precision == "32-true":
        return Fabric(accelerator="auto", devices=1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Fabric(accelerator=device, devices=1, plugins=_Autocast(precision, device))  # type: ignore[arg-type]


def _start_from(network: Network, start: Network) -> None:
    """Take over what fits: all of the same scale, all but the scale's own layers of another."""
    state = network.state_dict()
    fitting = {k: v for k, v in start.state_dict().items() if k in state and state[k].shape == v.shape}
    network.load_state_dict(state | fitting)
    logger.info("%d of %d tensors are taken over", len(fitting), len(state))


@torch.no_grad()
def validate(network: Network, pairs: list[TrainingPair], recipe: Recipe) -> dict[str, float]:
    """PSNR (dB, data range 1) of every sixth slice by pair, with the reference and with the target as its own.

    Stage 1 of DiffMSR is given the truth, so its figures say how it trains and nothing more.
    """
    scores: dict[str, float] = {}
    device = next(network.parameters()).device
    for pair in pairs:
        rows: dict[str, list[float]] = {"reference": [], "self": [], "sinc": []}
        for index in pair.source.slices[::VALIDATION_STRIDE]:
            sample = read_sample(pair, index, recipe.scale, recipe.degradation)
            arrays = (sample.target_lr, sample.reference, sample.target_hr)
            lr, reference, truth = (torch.from_numpy(np.ascontiguousarray(a))[None].to(device) for a in arrays)
            helped = (truth,) if isinstance(network, DiffMSRStage1) else ()
            upsampled = create_network("sinc", scale=recipe.scale)(lr, reference).sr
            results = {
                "reference": network(lr, reference, *helped).sr,
                "self": network(lr, upsampled, *helped).sr,
                "sinc": upsampled,
            }
            for name, result in results.items():
                rows[name].append(psnr(np.maximum(result[0].cpu().numpy(), 0), sample.target_hr))
        for name, values in rows.items():
            scores[f"{pair.source.key} {name}"] = float(np.mean(values))
    return scores


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that it is there whole or not at all."""
    partial = path.with_suffix(".partial")
    fabric.save(partial, state)
    partial.replace(path)


def _progress(recipe: Recipe, state: dict[str, Any]) -> float:
    """How far the run is (0..1): by steps, or by time where the recipe has a limit in minutes."""
    by_time = state["seconds"] / (60 * recipe.minutes) if recipe.minutes else 0.0
    return max(state["step"] / recipe.steps, by_time)


def _phase(recipe: Recipe, progress: float) -> Phase:
    passed = 0.0
    for phase in recipe.phases:
        passed += phase.share
        if progress < passed:
            return phase
    return recipe.phases[-1]


def _schedule(recipe: Recipe, step: int, progress: float) -> float:
    warmup = min(1.0, (step + 1) / recipe.warmup_steps)
    return warmup * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def _average(averaged: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for mean, new in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(new, 1 - decay)
    for kept, current in zip(averaged.buffers(), model.buffers(), strict=True):
        kept.copy_(current)  # running statistics are averages already


def _log(run_folder: Path, state: dict[str, Any], progress: float, values: dict[str, float]) -> None:
    path = run_folder / "log.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "seconds", "progress", "what", "value"])
        for what, value in values.items():
            writer.writerow([state["step"], round(state["seconds"], 1), round(progress, 4), what, round(value, 5)])
            logger.info("step %d (%.0f %%) %s %.4f", state["step"], 100 * progress, what, value)
