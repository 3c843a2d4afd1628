"""The training loop: L1 on the canvas, Adam with warm-up and cosine decay, EMA, checkpoints, resume."""

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
import torch.nn.functional as F
from lightning.fabric import Fabric

from ..errors import InputError
from ..metrics import psnr
from ..networks import Network, create_network
from ..weights import load_weights
from .data import TrainingPair, TrainingSamples, find_pairs, read_sample
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
    cancelled: Callable[[], bool] = lambda: False,
) -> Network:
    """Train a network and return it with its averaged (EMA) weights, on the CPU.

    Args:
        recipe: what and how.
        data: folder of HDF5 subject files (see `data.py`).
        run_folder: receives `checkpoint.pt` (atomically, every few hundred steps) and `log.csv`.
        initial: weights file to start from, of any scale of the same network.
        resume: continue from the folder's checkpoint.
        cancelled: asked every step; True stops after a checkpoint.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = run_folder / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise InputError(f"{run_folder} has no checkpoint to resume from; leave --resume out.")
    if checkpoint.is_file() and not resume:
        raise InputError(f"{run_folder} holds the checkpoint of another run; --resume it, or choose another folder.")
    torch.manual_seed(recipe.seed)
    fabric = Fabric(accelerator="auto", devices=1, precision=recipe.precision)  # type: ignore[arg-type]
    network = create_network(recipe.network, scale=recipe.scale, **recipe.network_config)
    if initial is not None:
        network.load_state_dict(load_weights(initial).build().state_dict())
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).eval().to(fabric.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    model, optimizer = fabric.setup(network, optimizer)
    state: dict[str, Any] = {"model": model, "averaged": averaged, "optimizer": optimizer, "step": 0, "seconds": 0.0}
    if resume:
        fabric.load(checkpoint, state)
    samples = TrainingSamples(find_pairs(data, "train", recipe.scale, recipe.degradation, network.multiple), recipe)
    validation = find_pairs(data, "val", recipe.scale, recipe.degradation, network.multiple)
    validation = [pair for pair in validation if not pair.source.auxiliary] or validation
    logger.info("%d training pairs, %d validation pairs", len(samples.pairs), len(validation))
    _run(fabric, recipe, state, samples, validation, run_folder, cancelled)
    return averaged.cpu()


def _run(
    fabric: Fabric,
    recipe: Recipe,
    state: dict[str, Any],
    samples: TrainingSamples,
    validation: list[TrainingPair],
    run_folder: Path,
    cancelled: Callable[[], bool],
) -> None:
    model, averaged, optimizer = state["model"], state["averaged"], state["optimizer"]
    losses: list[float] = []
    started, before = time.monotonic(), state["seconds"]
    validate_at = [at for at in VALIDATE_AT if at > _progress(recipe, state)]
    while True:
        state["seconds"] = before + time.monotonic() - started
        progress = _progress(recipe, state)
        if progress >= 1 or cancelled():
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(recipe, state["step"], progress)
        targets, truths, references = samples.batch(state["step"], _phase(recipe, progress))
        targets, truths, references = fabric.to_device((targets, truths, references))
        loss = F.l1_loss(model(targets, references).sr.float(), truths)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _average(averaged, model, min(recipe.ema_decay, (1 + state["step"]) / (10 + state["step"])))
        losses.append(loss.item())
        state["step"] += 1
        if state["step"] % LOG_EVERY == 0:
            _log(run_folder, state, progress, {"l1": float(np.mean(losses))})
            losses.clear()
        if state["step"] % CHECKPOINT_EVERY == 0:
            save_checkpoint(fabric, run_folder / CHECKPOINT, state)
        while validate_at and progress >= validate_at[0]:
            validate_at.pop(0)
            _log(run_folder, state, progress, validate(averaged, validation, recipe))
    save_checkpoint(fabric, run_folder / CHECKPOINT, state)
    _log(run_folder, state, _progress(recipe, state), validate(averaged, validation, recipe))


@torch.no_grad()
def validate(network: Network, pairs: list[TrainingPair], recipe: Recipe) -> dict[str, float]:
    """PSNR (dB, data range 1) of every sixth slice by pair, with the reference and with the target as its own."""
    scores: dict[str, float] = {}
    device = next(network.parameters()).device
    for pair in pairs:
        rows: dict[str, list[float]] = {"reference": [], "self": [], "sinc": []}
        for index in pair.source.slices[::VALIDATION_STRIDE]:
            sample = read_sample(pair, index, recipe.scale, recipe.degradation)
            lr, reference = (torch.from_numpy(a)[None].to(device) for a in (sample.target_lr, sample.reference))
            upsampled = create_network("sinc", scale=recipe.scale)(lr, reference).sr
            results = {
                "reference": network(lr, reference).sr,
                "self": network(lr, upsampled).sr,
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
