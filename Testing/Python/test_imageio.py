"""What is written comes back, and what is read lies where its header says."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from grids import SOME_ORDERS, oblique_grid, order_id
from helpers import EXTENSIONS, TOLERANCE_MM, mri, nifti_bytes, one_sentence
from mcsr.checks import check_scalar_mri
from mcsr.errors import OutputError
from mcsr.geometry import AxisOrder, same_space
from mcsr.imageio import read_volume, write_volume
from mcsr.volume import Volume


class TestRoundTrip:
    @pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
    @pytest.mark.parametrize("extension", EXTENSIONS)
    def test_voxels_and_places(self, tmp_path: Path, extension: str, order: AxisOrder) -> None:
        volume = mri().reordered(order)
        write_volume(volume, tmp_path / f"sub.01{extension}")
        back = read_volume(tmp_path / f"sub.01{extension}")
        assert np.array_equal(back.array_kji, volume.array_kji)
        assert same_space(back.grid, volume.grid, TOLERANCE_MM[extension])
        assert back.name == "sub.01"
        assert back.source_dtype == "int16"
        assert os.listdir(tmp_path) == [f"sub.01{extension}"]
        # Not through our own conversion: ITK's idea of where a voxel lies, in LPS.
        image = sitk.ReadImage(str(tmp_path / f"sub.01{extension}"))
        for ijk in ((0, 0, 0), tuple(n - 1 for n in volume.grid.shape_ijk), (2, 3, 1)):
            right, anterior, superior = volume.grid.to_ras(ijk)
            assert np.allclose(image.TransformIndexToPhysicalPoint(ijk), (-right, -anterior, superior), atol=1e-4)
            assert image[ijk] == volume.array_kji[ijk[::-1]]

    @pytest.mark.parametrize("extension", EXTENSIONS)
    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32"])
    def test_stored_type_is_kept(self, tmp_path: Path, extension: str, dtype: str) -> None:
        volume = mri(dtype=dtype)
        write_volume(volume, tmp_path / f"a{extension}")
        back = read_volume(tmp_path / f"a{extension}")
        assert back.source_dtype == dtype
        assert np.array_equal(back.array_kji, volume.array_kji)

    @pytest.mark.parametrize("dtype", ["bool", "float16", "float64", "int64", "uint64"])
    def test_other_types_become_float32(self, tmp_path: Path, dtype: str) -> None:
        volume = replace(mri(dtype=dtype), array_kji=mri().array_kji + np.float32(0.25))
        write_volume(volume, tmp_path / "a.nrrd")
        back = read_volume(tmp_path / "a.nrrd")
        assert back.source_dtype == "float32"
        assert np.array_equal(back.array_kji, volume.array_kji)

    def test_integers_are_rounded_and_clipped(self, tmp_path: Path) -> None:
        array = mri().array_kji.copy()
        array[0, 0, :4] = (-3, 300, 7.6, 7.4)
        write_volume(mri().with_array(array), tmp_path / "a.nii", dtype="uint8")
        assert read_volume(tmp_path / "a.nii").array_kji[0, 0, :4].tolist() == [0, 255, 8, 7]

    @pytest.mark.parametrize("extension", EXTENSIONS)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_one_slice(self, tmp_path: Path, extension: str, axis: int) -> None:
        shape = tuple(1 if n == axis else 20 for n in range(3))
        volume = mri(oblique_grid(shape))  # type: ignore[arg-type]
        write_volume(volume, tmp_path / f"a{extension}")
        back = read_volume(tmp_path / f"a{extension}")
        assert same_space(back.grid, volume.grid, TOLERANCE_MM[extension])

    @pytest.mark.parametrize("extension", [".nhdr", ".mhd"])
    def test_detached_header(self, tmp_path: Path, extension: str) -> None:
        image = sitk.GetImageFromArray(mri().array_kji)
        sitk.WriteImage(image, str(tmp_path / f"a{extension}"))
        assert np.array_equal(read_volume(tmp_path / f"a{extension}").array_kji, mri().array_kji)

    @pytest.mark.parametrize("extension", [".nrrd", ".mha"])
    def test_sheared_axes(self, tmp_path: Path, extension: str) -> None:
        matrix = oblique_grid().ijk_to_ras @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        volume = Volume(mri().array_kji, matrix)
        write_volume(volume, tmp_path / f"a{extension}")
        assert same_space(read_volume(tmp_path / f"a{extension}").grid, volume.grid, 1e-9)
        with pytest.raises(OutputError) as error:
            write_volume(volume, tmp_path / "a.nii.gz")
        assert one_sentence(error, "sheared", "a.nii.gz")
        assert not (tmp_path / "a.nii.gz").exists()


class TestGeometryAgainstTheStandards:
    """Not through our own conversion: the bytes of the header."""

    @pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
    @pytest.mark.parametrize("big_endian", [False, True])
    def test_nifti_header_made_by_hand(self, tmp_path: Path, order: AxisOrder, big_endian: bool) -> None:
        volume = mri().reordered(order)
        (tmp_path / "a.nii").write_bytes(nifti_bytes(volume.array_kji, volume.ijk_to_ras, big_endian))
        back = read_volume(tmp_path / "a.nii")
        assert np.array_equal(back.array_kji, volume.array_kji)
        assert np.abs(back.ijk_to_ras - volume.ijk_to_ras).max() < 1e-4

    @pytest.mark.parametrize("order", SOME_ORDERS, ids=order_id)
    def test_written_nifti_sform(self, tmp_path: Path, order: AxisOrder) -> None:
        volume = mri().reordered(order)
        write_volume(volume, tmp_path / "a.nii")
        header = (tmp_path / "a.nii").read_bytes()
        sform = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
        assert struct.unpack_from("<h", header, 254)[0] > 0
        assert np.abs(sform - volume.ijk_to_ras[:3]).max() < 1e-4

    @pytest.mark.data
    @pytest.mark.parametrize("contrast", ["T1", "T2", "FLAIR"])
    def test_real_mri_is_read(self, tmp_path: Path, real_data: Path, contrast: str) -> None:
        volume = read_volume(real_data / "nifti" / f"ms_p03_s2_{contrast}.nii.gz")
        assert check_scalar_mri(volume) == []
        write_volume(volume, tmp_path / "a.nii.gz")
        back = read_volume(tmp_path / "a.nii.gz")
        assert np.array_equal(back.array_kji, volume.array_kji)
        assert same_space(back.grid, volume.grid, 1e-4)
