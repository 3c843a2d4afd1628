"""Amounts of memory: how they are read and said, what is free, and arrays gone through in parts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import one_sentence
from mcsr import memory
from mcsr.canvas import Canvas
from mcsr.errors import DeviceError, InputError
from mcsr.inference import Plan, make_plan
from mcsr.inference_cost import MOST_BYTES_PER_PIXEL, pixels_within, slice_bytes
from mcsr.job import Settings
from mcsr.memory import (
    Slices,
    blocks,
    free_bytes,
    is_out_of_memory,
    memory_bound,
    parse_bytes,
    shortage_said,
    size_text,
)
from mcsr.networks import create_network, network_names
from mcsr.pipeline import enhance, simulate
from scenes import pair

GB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 * GB), ("512M", 2**29), ("1.5 GiB", 3 * 2**29), ("4gb", 4 * GB), ("2T", 2**41), ("65536", 65536)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "four", "-4G", "4X", "0", "4 G 2", "nan"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(InputError) as error:
        parse_bytes(text)
    assert one_sentence(error, f"'{text}'", "write it like 4G or 512M")


def test_sizes_are_said_as_they_are_read() -> None:
    assert size_text(4.2 * GB) == "4.2G"
    assert parse_bytes(size_text(3 * GB)) == 3 * GB


def test_the_bound_is_the_users_or_most_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_bound(5 * GB) == 5 * GB
    monkeypatch.setattr(memory, "resident_bytes", lambda: GB)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 * GB)
    assert memory_bound(None) == 9 * GB


def test_free_memory_is_that_of_the_computer_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_free_of_computer", lambda: 8 * GB)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert free_bytes() == 8 * GB
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{GB}\n")
    assert free_bytes() == 8 * GB, "a container without a limit"
    (tmp_path / "memory.max").write_text(f"{3 * GB}\n")
    assert free_bytes() == 2 * GB


def test_this_computer_tells_what_it_has() -> None:
    assert 2**26 < memory.resident_bytes() < 2**40
    assert 2**20 < free_bytes() < 2**45
    # In a process of its own: one that has done much gives room that it already holds.
    code = (
        "import numpy; from mcsr.memory import resident_bytes; before = resident_bytes(); "
        "block = numpy.ones(2**27, dtype=numpy.uint8); print(resident_bytes() - before)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(memory.__file__).parents[1])}
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(grown.stdout) == pytest.approx(2**27, rel=0.2)


def test_blocks_cover_an_array_once_and_stay_small() -> None:
    parts = list(blocks((201, 512, 512)))
    assert [n for part in parts for n in range(201)[part]] == list(range(201))
    assert max(part.stop - part.start for part in parts) == 4
    assert list(blocks((3, 5000, 5000))) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert list(blocks((0, 8, 8))) == []


def test_slices_are_made_when_they_are_asked_for() -> None:
    array = np.random.default_rng(0).random((5, 4, 3))
    asked: list[list[int]] = []

    def make(numbers: np.ndarray) -> np.ndarray:
        asked.append(numbers.tolist())
        return array[numbers]

    slices = Slices(array.shape, make)
    for chosen in (2, slice(1, 3), np.array([4, 0]), [3], slice(None)):
        np.testing.assert_array_equal(slices[chosen], array[chosen])
    assert asked == [[2], [1, 2], [4, 0], [3], [0, 1, 2, 3, 4]]


def test_shortage_becomes_a_sentence_and_other_errors_stay() -> None:
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(ValueError("out of memory"))
    for chosen, words in ((None, "close other programs, ask for fewer maps"), (4 * GB, "give less than --memory 4.0G")):
        with pytest.raises(DeviceError) as error, shortage_said(chosen):
            np.empty(2**50)
        assert one_sentence(error, "Memory ran out", words)
    with pytest.raises(RuntimeError, match="illegal"), shortage_said(None):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_job_that_cannot_fit_is_refused_before_the_work(untrained_x2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, reference = pair()
    settings = Settings(scale=2, weights=untrained_x2, memory=100 * 2**20)
    monkeypatch.setattr("mcsr.pipeline.lay_out", None)
    for maps in ("none", "all"):
        with pytest.raises(DeviceError) as error:
            enhance(simulate(truth, 2)[0], reference, dataclasses.replace(settings, maps=maps))
        assert one_sentence(error, "This job takes", "more than --memory 0.1G; give --memory")


def test_a_network_gets_tiles_that_fit_what_is_left_for_it() -> None:
    network, canvas = create_network("dcamsr-s", scale=2).eval(), Canvas(0, 0, 256, 200)
    whole = slice_bytes(network, 512 * 400)
    tiles = [make_plan(network, canvas, "cpu", "fp32", budget=n).tile for n in (whole, whole - GB // 20, whole // 2)]
    assert tiles[0] is None
    assert 512 > tiles[1] > tiles[2] >= 128
    assert slice_bytes(network, tiles[2] ** 2) <= whole // 2
    assert pixels_within(network, slice_bytes(network, 10**6)) == pytest.approx(10**6, rel=1e-6)
    with pytest.raises(DeviceError) as error:
        make_plan(network, canvas, "cpu", "fp32", budget=2**20)
    assert one_sentence(error, "0.0G of memory are left for the network", "smaller model")


def test_tiles_for_the_sake_of_memory_are_said(untrained_x2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, reference = pair()
    settings = Settings(scale=2, weights=untrained_x2, registration="none")

    def in_tiles(*given: Any, budget: int, maps: bool) -> Plan:
        assert budget > 0
        return dataclasses.replace(make_plan(*given), tile=48)

    monkeypatch.setattr("mcsr.pipeline_inputs.make_plan", in_tiles)
    result = enhance(simulate(truth, 2)[0], reference, settings)
    assert result.provenance["plan"]["tile"] == 48
    assert any("slices were run in tiles of 48 pixels" in warning for warning in result.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("name", network_names())
def test_no_network_takes_more_for_a_pixel_than_is_assumed(name: str) -> None:
    network = create_network(name, scale=2).eval()
    assert 0 < slice_bytes(network, 512**2) - slice_bytes(network, 0) < 512**2 * MOST_BYTES_PER_PIXEL
