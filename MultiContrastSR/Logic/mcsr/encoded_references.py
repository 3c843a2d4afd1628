"""What a network made of reference slices, kept for the next target that is given the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from .networks import Network


class EncodedReferences:
    """Encodings of reference slices, on the CPU.

    They are known by the slices' values, so that a recalled one is that which would be made. A job finds those of the
    job before and leaves its own: the first ones, where they would take more than they may, since a volume that is gone
    through again in the same order would find none of the last ones.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._known: dict[bytes, tuple[Any, int]] = {}
        self._asked_for: set[bytes] = set()
        self._most_bytes = 0
        self._shape: tuple[int, ...] | None = None

    def begin(self, most_bytes: int) -> None:
        """A job begins, in which they may take so many bytes; one that needed none leaves those that there were."""
        self._most_bytes = most_bytes
        if self._asked_for:
            for key in self._known.keys() - self._asked_for:
                self._drop(key)
        self._asked_for.clear()
        self._shape = None
        self._make_room(0)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self.held_bytes = 0

    def encoding(self, network: Network, reference: Tensor, made_by: Hashable) -> Any:
        """What `network` makes of a reference, now if it is not known.

        Args:
            network: in eval mode.
            reference: (B, 1, H, W), float32, as for `Network.encode_reference`.
            made_by: all but the reference that the encoding depends on; its `repr` tells.
        """
        shape = tuple(reference.shape)
        if self._shape not in (None, shape):
            self.clear()  # memory ran out, and tiles took the place of whole slices
        self._shape = shape
        digest = hashlib.blake2b(f"{made_by!r} {shape}".encode(), digest_size=16)
        digest.update(reference.contiguous().numpy().data)
        key = digest.digest()
        self._asked_for.add(key)
        if key in self._known:
            return self._known[key][0]
        made = network.encode_reference(reference)
        size = tensor_bytes(made)
        if self._make_room(size):
            self._known[key] = (made, size)
            self.held_bytes += size
        return made

    def _make_room(self, size: int) -> bool:
        for key in [key for key in self._known if key not in self._asked_for]:
            if self.held_bytes + size <= self._most_bytes:
                break
            self._drop(key)
        return self.held_bytes + size <= self._most_bytes

    def _drop(self, key: bytes) -> None:
        self.held_bytes -= self._known.pop(key)[1]


def tensor_bytes(encoding: Any) -> int:
    """Bytes of all tensors in nested dataclasses, tuples, lists and dictionaries; a tensor that occurs twice, twice."""
    if torch.is_tensor(encoding):
        return encoding.nbytes
    if is_dataclass(encoding):
        return sum(tensor_bytes(getattr(encoding, part.name)) for part in fields(encoding))
    if isinstance(encoding, dict):
        return sum(map(tensor_bytes, encoding.values()))
    return sum(map(tensor_bytes, encoding)) if isinstance(encoding, list | tuple) else 0
