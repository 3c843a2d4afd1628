"""Result files that are damaged or made to mislead: one sentence, never wrong values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from mcsr.container import read_container, write_container
from mcsr.errors import InputError
from mcsr.volume import Volume
from test_container import sum_anew

FEW = settings(max_examples=60, derandomize=True, database=None, deadline=None)


def write(path: Path) -> Path:
    """All that a result can hold, in 20 kB."""
    array = np.random.default_rng(0).normal(0, 300, (3, 9, 8)).astype(np.float32)
    volumes = {name: Volume(array, np.diag([0.5, 0.5, 3.0, 1.0]), name=name) for name in ("sr", "residual")}
    tables = {"gates": np.arange(12, dtype=np.float32).reshape(3, 4)}
    texts = {"sr": {"description": "Enhanced", "unit": "a.u."}, "gates": {"description": "Of the experts"}}
    write_container(path, volumes, {"settings": {"scale": 4}, "warnings": ["Look closely."]}, texts, tables)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("results") / "whole.h5")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "result.h5")


@FEW
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), in_block=st.booleans())
def test_no_flipped_bit_passes(whole: Path, place: float, bit: int, in_block: bool) -> None:
    content = bytearray(whole.read_bytes())
    content[int(place * (512 if in_block else len(content)))] ^= 1 << bit
    flipped = whole.with_name("flipped.h5")
    flipped.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_container(flipped)
    assert one_sentence(error, "flipped.h5", "create it again")


@FEW
@given(place=st.floats(0, 1, exclude_max=True), more=st.binary(min_size=1, max_size=20))
def test_no_shortened_or_longer_file_passes(whole: Path, place: float, more: bytes) -> None:
    content = whole.read_bytes()
    changed = whole.with_name("changed.h5")
    for wrong in (content[: int(place * len(content))], content + more, content[:512]):
        changed.write_bytes(wrong)
        with pytest.raises(InputError) as error:
            read_container(changed)
        assert one_sentence(error, "changed.h5", "create it again")


def test_other_programs_are_told_of_wrong_voxels_by_hdf5(path: Path) -> None:
    with h5py.File(path, "r") as file:
        chunks = {name: file[name].id.get_chunk_info(0) for name in ("volumes/sr", "tables/gates")}
    for name, chunk in chunks.items():
        content = bytearray(write(path).read_bytes())
        content[chunk.byte_offset + chunk.size // 2] ^= 1
        path.write_bytes(content)
        with h5py.File(path, "r") as file, pytest.raises(OSError, match="read"):
            file[name][()]


def test_a_note_that_another_program_adds_is_a_change(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["volumes/sr"].attrs["description"] = "Healthy"
    with pytest.raises(InputError) as error:
        read_container(path)
    assert one_sentence(error, "was changed after it was written (checksum differs)")


def _link(file: h5py.File, link: Any) -> None:
    del file["volumes/sr"]
    file["volumes/sr"] = link


def _virtual(file: h5py.File) -> None:
    del file["volumes/sr"]
    layout = h5py.VirtualLayout((3, 9, 8), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "data", (3, 9, 8))
    file["volumes"].create_virtual_dataset("sr", layout)


def _external(file: h5py.File) -> None:
    del file["volumes/sr"]
    file["volumes"].create_dataset("sr", (3, 9, 8), "f4", external=[("secret.raw", 0, 864)])


def _another(file: h5py.File, **dataset: Any) -> None:
    attributes = dict(file["volumes/sr"].attrs)
    del file["volumes/sr"]
    file["volumes"].create_dataset("sr", **dataset).attrs.update(attributes)


def _instead(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = value


MISLEADING: dict[str, Callable[[h5py.File], Any]] = {
    "a link to another file": lambda file: _link(file, h5py.ExternalLink("secret.h5", "data")),
    "a link inside": lambda file: _link(file, h5py.SoftLink("/volumes/residual")),
    "a link to nothing": lambda file: _link(file, h5py.SoftLink("/nothing")),
    "a view of another file": _virtual,
    "voxels in another file": _external,
    "a petabyte of nothing": lambda file: _another(file, shape=(10**5,) * 3, dtype="f4", chunks=(1, 9, 8)),
    "texts for voxels": lambda file: _another(file, data=np.full((3, 9, 8), b"x")),
    "complex voxels": lambda file: _another(file, data=np.zeros((3, 9, 8), complex)),
    "two axes": lambda file: _another(file, data=np.zeros((9, 8), "f4")),
    "no voxels": lambda file: _another(file, data=np.zeros((0, 9, 8), "f4")),
    "a group for a volume": lambda file: file["volumes"].create_group("more"),
    "no group of volumes": lambda file: _instead(file, "volumes", 3),
    "no group of tables": lambda file: _instead(file, "tables", "text"),
    "an array for a text": lambda file: file["volumes/sr"].attrs.pop("unit"),
    "a matrix of nothing": lambda file: file["volumes/sr"].attrs.modify("ijk_to_ras", np.zeros((4, 4))),
    "a matrix of texts": lambda file: file["volumes/sr"].attrs.create("ijk_to_ras", "here"),
    "numbers for the provenance": lambda file: file.attrs.create("provenance", np.arange(3)),
    "a bottomless provenance": lambda file: file.attrs.create("provenance", "[" * 100_000),
    "half a provenance": lambda file: file.attrs.create("provenance", '{"settings": '),
    "another format": lambda file: file.attrs.create("format", np.arange(3)),
    "another version": lambda file: file.attrs.create("format_version", "two"),
}


@pytest.mark.parametrize("mislead", MISLEADING.values(), ids=MISLEADING)
def test_what_is_made_to_mislead_is_refused(mislead: Callable[[h5py.File], Any], path: Path) -> None:
    """With a sum that is right, so that it reaches the reader."""
    with h5py.File(path.with_name("secret.h5"), "w") as file:
        file["data"] = np.ones((3, 9, 8), "f4")
    path.with_name("secret.raw").write_bytes(bytes(864))
    with h5py.File(path, "r+") as file:
        mislead(file)
    sum_anew(path)
    with pytest.raises(InputError) as error:
        read_container(path)
    assert one_sentence(error)


def test_a_result_of_an_older_version_is_named_as_such(path: Path) -> None:
    path.write_bytes(path.read_bytes()[512:])
    with h5py.File(path, "r") as file:
        assert file.attrs["format"] == "mcsr-result"
    with pytest.raises(InputError) as error:
        read_container(path)
    assert one_sentence(error, "no result of mcsr, or one of an older version")
