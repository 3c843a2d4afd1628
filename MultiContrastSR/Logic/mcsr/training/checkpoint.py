"""What a run is at a step, and its file: written whole or not at all, so that a run may be killed at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from ..errors import InputError, McsrError
from ..imageio import complete_file
from ..networks import Network
from .adversarial import Adversary
from .objective import Objective


@dataclass
class State:
    """All that changes in the course of a run.

    Random numbers are no part of it: they are drawn anew from seed and step at every step.

    Args:
        model: the objective, as fabric wraps it.
        optimizer: of the model.
        averaged: network with the averaged weights.
        adversary: where the recipe has one.
        step: steps done.
        seconds: time taken.
        validations: how often it was validated.
        sums: of the terms since the last line of the log, over this process's share of the batches.
        summed: steps in `sums`.
    """

    model: Objective
    optimizer: torch.optim.Optimizer
    averaged: Network
    adversary: Adversary | None = None
    step: int = 0
    seconds: float = 0.0
    validations: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    summed: int = 0

    def add(self, terms: dict[str, Tensor], share: float) -> None:
        """Count the terms of a part of a step that is so large a share of the whole."""
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + share * term.detach()

    def reduce(self, fabric: Fabric) -> None:
        """Gather the sums of all processes in the first."""
        for name, total in self.sums.items():
            everywhere = fabric.all_reduce(total, reduce_op="sum")
            self.sums[name] = everywhere if fabric.is_global_zero else torch.zeros_like(total)  # type: ignore[assignment]


def save_checkpoint(fabric: Fabric, path: Path, state: State, recipe_name: str) -> None:
    """Write a checkpoint in the place of an older one; the first process does, the others wait for no one.

    Raises:
        McsrError: when the weights are no longer finite; the older checkpoint then stands.
    """
    state.reduce(fabric)
    if not all(bool(torch.isfinite(p).all()) for p in state.averaged.parameters()):
        raise McsrError(
            f"The weights are no longer finite at step {state.step}; lower the learning rate or the loss's largest term"
            f" in the recipe. {path} stands as it was at an earlier step."
        )
    if not fabric.is_global_zero:
        return
    with complete_file(path) as partial, partial.open("wb") as file:
        try:
            torch.save({"recipe": recipe_name, **_contents(fabric, state)}, file)
        except RuntimeError as error:  # in which torch hides that the disk is full
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load_checkpoint(fabric: Fabric, path: Path, state: State, recipe_name: str) -> None:
    """Put a run back to where the checkpoint was written.

    Raises:
        InputError: when it is of another recipe or network.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    if stored.get("recipe") != recipe_name:
        raise InputError(f"{path} is of the recipe {stored.get('recipe')}, not {recipe_name}; choose another folder.")
    try:
        state.model.load_state_dict(stored["model"])
    except RuntimeError as error:
        raise InputError(f"{path} is of another network than {recipe_name} now asks for: {error}") from error
    state.averaged.load_state_dict(stored["averaged"])
    state.optimizer.load_state_dict(stored["optimizer"])
    if state.adversary is not None:
        state.adversary.load_state_dict(stored["adversary"])
    fabric.strategy.precision.load_state_dict(stored["precision"])
    state.step, state.seconds, state.validations = stored["step"], stored["seconds"], stored["validations"]
    share = 1.0 if fabric.is_global_zero else 0.0
    state.sums = {name: share * total.to(fabric.device) for name, total in stored["sums"].items()}
    state.summed = stored["summed"]


def _contents(fabric: Fabric, state: State) -> dict[str, Any]:
    return {
        "model": state.model.state_dict(),
        "averaged": state.averaged.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "adversary": state.adversary and state.adversary.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),  # the scale of fp16 gradients
        "step": state.step,
        "seconds": state.seconds,
        "validations": state.validations,
        "sums": state.sums,
        "summed": state.summed,
    }
