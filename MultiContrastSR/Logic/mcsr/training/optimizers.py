"""The optimiser that a recipe names, and its learning rate in the course of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .recipe import Recipe

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

SCHEDULES = ("cosine", "constant", "multistep")


def optimizer_for(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimiser for those parameters that are trained.

    Raises:
        InputError: for an optimiser or a schedule that is not known.
    """
    if recipe.optimizer not in OPTIMIZERS:
        raise InputError(f"{recipe.name}: unknown optimizer '{recipe.optimizer}'; known are {', '.join(OPTIMIZERS)}.")
    if recipe.schedule not in SCHEDULES:
        raise InputError(f"{recipe.name}: unknown schedule '{recipe.schedule}'; known are {', '.join(SCHEDULES)}.")
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
    return OPTIMIZERS[recipe.optimizer]([p for p in parameters if p.requires_grad], **settings)


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """The learning rate of a step (counted from 0) in a run that has come so far (0..1).

    A function of both, where torch's schedulers count steps: a run may end by the clock, and goes on from anywhere.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * progress))
    elif recipe.schedule == "multistep":
        rate *= recipe.gamma ** sum(step >= milestone for milestone in recipe.milestones)
    return rate * min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
