"""A network built as a card says, and no larger than the tensors of its file: a card can ask for any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .networks import Network
from .networks._registry import config_of
from .networks.blocks import UPSAMPLINGS

_LARGEST_SETTING = 1024
"""Of channels, layers, steps and sizes; the papers' largest is 256."""


def check_config(architecture: str, scale: int, config: Mapping[str, Any]) -> None:
    """Refuse settings that a network of this architecture and scale cannot have (`ValueError`, `KeyError`).

    Args:
        architecture: a registered name.
        scale: that the card states.
        config: of the card.
    """
    usual = asdict(config_of(architecture))
    odd = next((key for key, value in config.items() if not _is_like(value, usual[key])), None)
    if odd:
        raise ValueError(f"{odd} cannot be {config[odd]!r:.100}")
    if config.get("scale") != scale or config.get("upsampling", UPSAMPLINGS[0]) not in UPSAMPLINGS:
        raise ValueError("another scale than the card's, or an unknown way of upsampling")


def filled(build: Callable[[], Network], tensors: Mapping[str, Tensor]) -> Network:
    """The network that `build` makes, with these values.

    Args:
        build: makes it; ended by a `ValueError` where it makes more parameters than there are tensors.
        tensors: each of the network's own under its name; one that goes by two names under either.

    Raises:
        ValueError: for tensors that are missing, surplus, of another shape or another kind of number.
    """
    with _at_most(len(tensors), sum(tensor.numel() for tensor in tensors.values())):
        network = build()
    named = network.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        own = named.get(name)
        if own is None or own.shape != tensor.shape or own.is_floating_point() != tensor.is_floating_point():
            raise ValueError(f"{name} is surplus or of another kind")
    missing = {id(own) for own in named.values()} - {id(named[name]) for name in tensors}
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing")
    network.load_state_dict(dict(tensors), strict=False)
    return network


@contextmanager
def _at_most(count: int, numbers: int) -> Iterator[None]:
    left = {"parameters": 2 * count, "numbers": 2 * numbers}  # some are made twice and tied

    def count_off(_module: nn.Module, name: str, parameter: Tensor | None) -> None:
        left["parameters"] -= parameter is not None
        left["numbers"] -= 0 if parameter is None else parameter.numel()
        if min(left.values()) < 0:
            raise ValueError(f"{name} is beyond what the file holds")

    # Asked before a parameter gets its first values: until then even a huge one takes no memory.
    hook = register_module_parameter_registration_hook(count_off)
    try:
        yield
    finally:
        hook.remove()


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a setting is of the kind that the network's own is."""
    if isinstance(usual, tuple):
        return isinstance(value, list) and len(value) == len(usual) and all(_is_like(v, usual[0]) for v in value)
    if isinstance(usual, float):
        return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= _LARGEST_SETTING
    if type(usual) is int:
        return type(value) is int and 0 <= value <= _LARGEST_SETTING
    return type(value) is type(usual)
