"""Encoded references: what is kept, who makes room, and that a second target gains by it without a changed bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mcsr.encoded_references import EncodedReferences, tensor_bytes
from mcsr.networks import create_network, network_names
from torch import Tensor

SIZE = 4 * 8 * 6


class Counting:
    """Encodes a reference as itself, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def encode_reference(self, reference: Tensor) -> Any:
        self.made += 1
        return [reference.clone()]


def ask(known: EncodedReferences, network: Any, values: range, made_by: str = "these weights") -> int:
    """References with these values, in order; how many of them had to be encoded."""
    before = network.made
    for value in values:
        reference = torch.full((1, 1, 8, 6), float(value))
        assert torch.equal(known.encoding(network, reference, made_by)[0], reference)
    return network.made - before


def test_the_same_reference_is_encoded_once_for_the_same_weights():
    known, network = EncodedReferences(), Counting()
    known.begin(100 * SIZE)
    assert ask(known, network, range(3)) == 3
    known.begin(100 * SIZE)
    assert ask(known, network, range(4)) == 1
    assert ask(known, network, range(3), "other weights") == 3
    assert known.held_bytes == 7 * SIZE


def test_slices_that_change_their_shape_are_of_a_job_that_is_short_of_memory():
    known, network = EncodedReferences(), Counting()
    known.begin(100 * SIZE)
    for shape in ((1, 1, 8, 6), (1, 1, 6, 8)):
        assert known.encoding(network, torch.zeros(shape), "")[0].shape == shape  # type: ignore[arg-type]
        assert known.held_bytes == SIZE
    assert network.made == 2


def test_a_volume_too_large_keeps_its_first_slices_and_older_ones_make_room():
    known, network = EncodedReferences(), Counting()
    known.begin(4 * SIZE)
    assert ask(known, network, range(6)) == 6
    assert known.held_bytes == 4 * SIZE
    known.begin(4 * SIZE)
    assert ask(known, network, range(6)) == 2
    known.begin(4 * SIZE)
    assert ask(known, network, range(10, 13)) == 3
    assert known.held_bytes == 4 * SIZE
    known.begin(4 * SIZE)
    assert known.held_bytes == 3 * SIZE, "a job finds those of the job before alone"
    known.begin(4 * SIZE)
    assert ask(known, network, range(10, 13)) == 0, "a job that needs none leaves them"
    known.begin(SIZE)
    assert known.held_bytes == SIZE
    known.begin(0)
    assert known.held_bytes == 0


def test_at_rest_nothing_is_held():
    known, network = EncodedReferences(), Counting()
    known.begin(4 * SIZE)
    ask(known, network, range(3))
    known.clear()
    assert known.held_bytes == 0
    assert ask(known, network, range(3)) == 3


@pytest.mark.parametrize("name", [name for name in network_names() if name.endswith("-s")])
def test_the_size_of_an_encoding_is_that_of_its_tensors(name: str):
    with torch.no_grad():
        encoded = create_network(name, scale=4).eval().encode_reference(torch.rand(1, 1, 64, 64))
    # Each of them keeps at least features as large as the slice, none a thousand of them.
    assert 4 * 64 * 64 < tensor_bytes(encoded) < 1000 * 4 * 64 * 64
    assert tensor_bytes(torch.zeros(3, dtype=torch.float64)) == 24
    assert tensor_bytes({"a": (torch.zeros(2), [torch.zeros(1)]), "b": 5}) == 12
