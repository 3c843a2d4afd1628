"""What a network is to the rest of the engine, and the catalogue of them."""

from __future__ import annotations

import dataclasses
import difflib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ._map_spec import MapSpec

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Random numbers for networks that sample: one source for all slices in turn, one for each slice, or seed 0 for all."""


@dataclass
class SROutput:
    """What a forward pass gives.

    Args:
        sr: super-resolved slices (B, 1, H, W) in the intensity scale of the input.
        maps: captured internal tensors by name, only filled with `capture=True`; `Network.map_specs` explains them.
        aux: what only a loss needs.
    """

    sr: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)
    aux: dict[str, Tensor] = field(default_factory=dict)


class Network(nn.Module):
    """Base of all networks and baselines.

    A subclass takes its config (a frozen dataclass with a `scale`) as the only constructor argument.
    """

    uses_reference: ClassVar[bool] = True

    upsamples_first: ClassVar[bool] = False
    """Works on the fine grid from the start: a target that is there already is then not upsampled again."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def multiple(self) -> int:
        """High-resolution height and width are best a multiple of this; anything else is padded inside."""
        return 1

    @property
    def native_size(self) -> int | None:
        """The only slice size (pixels, square) for which the weights are exact; None when any size is."""
        return None

    @abstractmethod
    def encode_reference(self, reference: Tensor) -> Any:
        """Everything that depends on the reference alone, for reuse with several targets: reference (B, 1, H, W)."""

    @abstractmethod
    def forward(
        self,
        target_lr: Tensor,
        reference: Any,
        *,
        generator: Generators = None,
        capture: bool = False,
    ) -> SROutput:
        """Super-resolve slices.

        Args:
            target_lr: (B, 1, h, w), about 0..1, display orientation.
            reference: (B, 1, H, W) with H = scale h, W = scale w, about 0..1; or what `encode_reference` returned; or
                None: the target, interpolated, is its own reference.
            generator: see `Generators`.
            capture: also return the internal maps.
        """

    def map_specs(self) -> dict[str, MapSpec]:
        """What each captured tensor means, in the order of display; the keys are those of `SROutput.maps`."""
        return {}

    def point_maps(self, maps: Mapping[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        """Maps of one pixel: what the network looks at when it makes high-resolution pixel (row, column).

        Args:
            maps: what a forward pass captured.
            row: of the pixel, from 0.
            column: of the pixel, from 0.

        Returns:
            Tensors as the specs marked `of_point` describe them.
        """
        return {}


@dataclass(frozen=True)
class _Entry:
    network: type[Network]
    config: Callable[..., Any]
    summary: str


_ENTRIES: dict[str, _Entry] = {}


def register(name: str, config: Callable[..., Any], summary: str) -> Callable[[type[Network]], type[Network]]:
    """Class decorator: enter a network under `name`, built from `config(**overrides)`."""

    def enter(network: type[Network]) -> type[Network]:
        _ENTRIES[name] = _Entry(network, config, summary)
        return network

    return enter


def network_names() -> list[str]:
    """All registered names."""
    return list(_ENTRIES)


def create_network(name: str, **overrides: Any) -> Network:
    """Build a network by its registered name; `overrides` replace fields of its default config.

    Raises:
        InputError: for an unknown name (with the nearest known ones) or config field.
    """
    entry = _entry(name)
    return entry.network(config_of(name, **overrides))


def config_of(name: str, **overrides: Any) -> Any:
    """The config of a registered network with fields replaced; lists (as read from json) become tuples."""
    config = _entry(name).config()
    known = {f.name for f in dataclasses.fields(config)}
    unknown = set(overrides) - known
    if unknown:
        raise InputError(f"{name} has no setting {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}.")
    clean = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    return dataclasses.replace(config, **clean)


def network_summary(name: str) -> str:
    """One sentence on what the network is."""
    return _entry(name).summary


def network_class(name: str) -> type[Network]:
    """The class behind a registered name, to ask what it needs without building it."""
    return _entry(name).network


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        near = difflib.get_close_matches(name, _ENTRIES, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(_ENTRIES)}."
        raise InputError(f"Unknown model '{name}'; {hint}")
    return _ENTRIES[name]
