"""Headers that cannot be true: what ITK reads wrongly, or does not survive, is refused in one sentence."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_cases import Image
from fuzz_files import metaimage_file, nifti_file, nrrd_file
from grids import oblique_grid
from helpers import mri, one_sentence
from mcsr.errors import GeometryError, InputError
from mcsr.imageio import read_volume
from mcsr.volume import Volume

VOLUME = mri()
IMAGE = Image(VOLUME.array_kji.astype(np.int16), VOLUME.ijk_to_ras)
SPACING = tuple(VOLUME.grid.spacing_ijk_mm)
NAN, INF = float("nan"), float("inf")


def nifti(**fields: Any) -> bytes:
    return nifti_file(IMAGE.array, **{"pixdim": (1, *SPACING), "sform": IMAGE.matrix, **fields})


def refused(path: Path, content: bytes, *words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_volume(path)
    assert one_sentence(error, path.name, *words), error.value


class TestNifti:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"dim": (3, 24, 20, 0, 1, 1, 1, 1)}, "impossible sizes"),
            ({"dim": (3, 24, 20, -6, 1, 1, 1, 1)}, "impossible sizes"),
            ({"dim": (0, 24, 20, 6, 1, 1, 1, 1)}, "impossible sizes"),
            ({"dim": (8, 24, 20, 6, 1, 1, 1, 1)}, "impossible sizes"),
            ({"dim": (3, 24, 20, 3, 1, 1, 1, 1)}, "more than"),
            ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "truncated"),
            ({"datatype": 2}, "more than"),
            ({"datatype": 16}, "truncated"),
            ({"offset": 0}, "inside itself"),
            ({"offset": 348}, "inside itself"),
            ({"offset": NAN}, "inside itself"),
            ({"offset": 1e9}, "truncated"),
            ({"magic": b"\0\0\0\0"}, "not a NIfTI image"),
            ({"size": 540}, "NIfTI-2"),
            ({"scaling": (INF, 0)}, "scales its values"),
            ({"scaling": (1, NAN)}, "scales its values"),
            ({"scaling": (0, 5)}, "scales its values"),
            ({"sform": np.full((4, 4), NAN)}, "where its voxels lie"),
            ({"sform": np.zeros((4, 4))}, "where its voxels lie"),
            ({"sform": None, "quaternion": (NAN, 0, 0, 0, 0, 0)}, "where its voxels lie"),
            ({"sform": None, "pixdim": (1, 0, 0, 0)}, "where its voxels lie"),
            ({"pixdim": (1, 1, 1, 1)}, "contradicts itself"),
            ({"pixdim": (1, 0, 0, 0)}, "contradicts itself"),
        ],
    )
    def test_is_refused(self, tmp_path: Path, fields: dict[str, Any], words: str) -> None:
        refused(tmp_path / "a.nii", nifti(**fields), words)

    def test_truncated_file_whose_bits_are_fewer_than_its_type_has(self, tmp_path: Path) -> None:
        content = nifti(bitpix=8)
        refused(tmp_path / "a.nii", content[: 352 + (len(content) - 352) // 2], "truncated")

    def test_more_than_the_header_describes_is_not_read_to_its_end(self, tmp_path: Path) -> None:
        refused(tmp_path / "a.nii.gz", gzip.compress(nifti() + bytes(10_000_000)), "more than")

    @pytest.mark.parametrize("scaling", [(0, 0), (NAN, 0), (NAN, NAN)])
    def test_no_slope_means_no_scaling(self, tmp_path: Path, scaling: tuple[float, float]) -> None:
        (tmp_path / "a.nii").write_bytes(nifti(scaling=scaling))
        assert np.array_equal(read_volume(tmp_path / "a.nii").array_kji, IMAGE.array)


class TestNrrd:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"space_units": '"m" "m" "m"'}, "in 'm'"),
            ({"space_directions": "none (0,1,0) (0,0,1)"}, "where the voxels lie"),
            ({"space_directions": None, "space": None, "space_origin": None}, "how large"),
            ({"space_directions": None, "space": None, "space_origin": None, "spacings": "1 nan 1"}, "how large"),
            ({"sizes": "24 20 0"}, "impossible sizes"),
            ({"sizes": "24 20 3"}, "more than"),
            ({"type": "uchar"}, "more than"),
            ({"type": "float"}, "truncated"),
        ],
    )
    @pytest.mark.parametrize("encoding", ["raw", "gzip"])
    def test_is_refused(self, tmp_path: Path, encoding: str, fields: dict[str, Any], words: str) -> None:
        refused(tmp_path / "a.nrrd", nrrd_file(IMAGE, encoding=encoding, **fields), words)

    @pytest.mark.parametrize(
        "change", [lambda data: data[:-1], lambda data: data[:-9], lambda data: flipped(data, 0.5)]
    )
    def test_damaged_data(self, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
        whole = nrrd_file(IMAGE, encoding="gzip")
        start = whole.index(b"\n\n") + 2
        refused(tmp_path / "a.nrrd", whole[:start] + change(whole[start:]), "damaged")


class TestMetaImage:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"NDims": 99}, "MetaImage"),
            ({"NDims": -1}, "impossible sizes"),
            ({"DimSize": "24 20 0"}, "impossible sizes"),
            ({"DimSize": "24 20 3"}, "more than"),
            ({"ElementSpacing": None}, "how large"),
            ({"ElementSpacing": "-1 1 1"}, "how large"),
            ({"Offset": "nan 0 0"}, "where the voxels lie"),
            ({"TransformMatrix": "1 0 0"}, "where the voxels lie"),
            ({"DistanceUnits": "um"}, "in 'um'"),
            ({"ElementType": "MET_STRING"}, "MetaImage"),
            ({"ElementType": "MET_UCHAR"}, "more than"),
            ({"HeaderSize": 10}, "MetaImage"),
            ({"ElementDataFile": ""}, "MetaImage"),
            ({"ElementDataFile": "a\0.raw"}, "MetaImage"),
            ({"ElementDataFile": "a" * 300}, "MetaImage"),
        ],
    )
    @pytest.mark.parametrize("compressed", [False, True])
    def test_is_refused(self, tmp_path: Path, compressed: bool, fields: dict[str, Any], words: str) -> None:
        refused(tmp_path / "a.mha", metaimage_file(IMAGE, compressed=compressed, **fields), words)

    def test_missing_data_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.mhd").write_bytes(metaimage_file(IMAGE, ElementDataFile="a.raw"))
        with pytest.raises(InputError) as error:
            read_volume(tmp_path / "a.mhd")
        assert one_sentence(error, "a.raw")

    @pytest.mark.parametrize("size", [None, 0, 100])
    def test_size_of_the_compressed_data(self, tmp_path: Path, size: int | None) -> None:
        refused(tmp_path / "a.mha", metaimage_file(IMAGE, compressed=True, CompressedDataSize=size), "damaged")

    @pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
    def test_damaged_data(self, tmp_path: Path, place: float) -> None:
        whole = metaimage_file(IMAGE, compressed=True)
        start = whole.index(b"LOCAL\n") + 6
        refused(tmp_path / "a.mha", whole[:start] + flipped(whole[start:], place), "damaged")

    def test_fewer_voxels_in_good_compression(self, tmp_path: Path) -> None:
        data = zlib.compress(IMAGE.array.tobytes()[:-200])
        whole = metaimage_file(IMAGE, compressed=True, CompressedDataSize=len(data))
        refused(tmp_path / "a.mha", whole[: whole.index(b"LOCAL\n") + 6] + data, "truncated")


def test_a_geometry_that_is_none_names_the_volume() -> None:
    with pytest.raises(GeometryError, match=r"^knee: The image's axes"):
        Volume(mri(oblique_grid((5, 4, 3))).array_kji, np.zeros((4, 4)) + np.diag([0, 0, 0, 1.0]), name="knee")


def flipped(data: bytes, place: float) -> bytes:
    at = int(place * len(data))
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
