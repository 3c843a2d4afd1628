"""What a fast path is, and the table of them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..networks import Generators, MapSpec, Network, SROutput


class FastPath(Network):
    """Computes the slices of a plain network faster: to 1e-5 the same in fp32.

    What can be prepared from the weights is prepared once, when it is made: later changes of the plain network's
    weights are not seen. Internal maps are those of the plain network, which `capture=True` runs.

    Args:
        plain: with its weights, in eval mode.
    """

    def __init__(self, plain: Network) -> None:
        super().__init__(plain.config)
        self.plain = plain
        self.uses_reference = plain.uses_reference  # type: ignore[misc]
        self.upsamples_first = plain.upsamples_first  # type: ignore[misc]
        self.eval()

    @property
    def multiple(self) -> int:
        """See `Network.multiple`."""
        return self.plain.multiple

    @property
    def native_size(self) -> int | None:
        """See `Network.native_size`."""
        return self.plain.native_size

    @abstractmethod
    def encode_reference(self, reference: Tensor) -> Any:
        """What this path keeps of a reference (B, 1, H, W), for use with several targets; nothing for the plain one."""

    @abstractmethod
    def fast_forward(self, target_lr: Tensor, reference: Any, generator: Generators) -> SROutput:
        """The slices alone, `sr`; arguments as for `Network.forward`."""

    @torch.no_grad()
    def forward(
        self,
        target_lr: Tensor,
        reference: Any,
        *,
        generator: Generators = None,
        capture: bool = False,
    ) -> SROutput:
        """See `Network.forward`; with `capture` the plain network runs, and takes an encoding of its own alone."""
        if capture:
            return self.plain(target_lr, reference, generator=generator, capture=True)
        return self.fast_forward(target_lr, reference, generator)

    def map_specs(self) -> dict[str, MapSpec]:
        """See `Network.map_specs`."""
        return self.plain.map_specs()

    def point_maps(self, maps: Mapping[str, Tensor], row: int, column: int) -> dict[str, Tensor]:
        """See `Network.point_maps`."""
        return self.plain.point_maps(maps, row, column)


class ChangedCopy(FastPath):
    """A fast path that is a copy of the plain network, `network`, in which the subclass exchanges modules."""

    def __init__(self, plain: Network) -> None:
        super().__init__(plain)
        self.network = copy.deepcopy(plain)

    @torch.no_grad()
    def encode_reference(self, reference: Tensor) -> Any:
        """See `Network.encode_reference`."""
        return self.network.encode_reference(reference)

    @torch.no_grad()
    def fast_forward(self, target_lr: Tensor, reference: Any, generator: Generators) -> SROutput:
        """See `FastPath.fast_forward`."""
        return SROutput(self.network(target_lr, reference, generator=generator).sr)


_PATHS: dict[type[Network], type[FastPath]] = {}


def accelerates(network: type[Network]) -> Callable[[type[FastPath]], type[FastPath]]:
    """Class decorator: enter a fast path for a class of networks."""

    def enter(path: type[FastPath]) -> type[FastPath]:
        _PATHS[network] = path
        return path

    return enter


def has_fast_path(network: Network) -> bool:
    """Whether a network has one: it must be in eval mode."""
    return type(network) in _PATHS and not network.training


@torch.no_grad()
def fast_path(network: Network) -> Network:
    """The fast path of a network, or the network itself where there is none."""
    return _PATHS[type(network)](network) if has_fast_path(network) else network
